import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'

const program = join(import.meta.dirname, '../../build/peers/docker')

export interface DockerKey {
  tag: number
  value: Uint8Array
}

/** What `bench/peers/docker.go` takes: see its head. */
export type DockerCommand =
  | { op: 'setKeys'; keys: readonly DockerKey[] }
  | { op: 'updateKeys'; add?: DockerKey; primary?: number; prune?: number }
  | { op: 'addPeers' | 'removePeers'; peers: readonly string[] }

/** A node programmed by Docker's calls: the Go program of the benchmark, at work in a network namespace. */
export class Docker implements AsyncDisposable {
  readonly #process: ChildProcessWithoutNullStreams
  readonly #answers: AsyncIterator<string>
  readonly #lines: Interface

  /** @param netns the namespace's path; @param local the node's address there */
  constructor(netns: string, local: string, options: { port?: number; mark?: number } = {}) {
    if (!existsSync(program)) throw new Error(`${program} is missing: bench/peers/build.sh build/peers makes it`)
    const words = Object.entries({ local, ...options }).map(([name, value]) => `--${name}=${value}`)
    this.#process = spawn('nsenter', [`--net=${netns}`, program, ...words], { stdio: 'pipe' })
    this.#process.stderr.pipe(process.stderr)
    this.#lines = createInterface(this.#process.stdout)
    this.#answers = this.#lines[Symbol.asyncIterator]()
  }

  /** Has one command carried out; rejects with the program's own words if the kernel refused any of it. */
  async run(command: DockerCommand): Promise<void> {
    const hex = (_: string, value: unknown) =>
      value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value
    this.#process.stdin.write(`${JSON.stringify(command, hex)}\n`)
    const answer = await this.#answers.next()
    if (answer.done === true) throw new Error(`${command.op}: the Go program ended without an answer`)
    const { error } = JSON.parse(answer.value) as { error?: string }
    if (error !== undefined) throw new Error(`${command.op}: ${error}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = this.#process.exitCode === null ? once(this.#process, 'exit') : undefined
    this.#process.stdin.end()
    await ended
    this.#lines.close()
  }
}
