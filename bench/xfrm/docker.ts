import { join } from 'node:path'
import type { Namespace } from '#dist/demo/namespace.js'
import type { Sample } from '../harness/contest.js'
import { LineProgram } from '../harness/sessions.js'
import { type BenchKey, LOCAL, MARK, PORT } from './common.js'

const program = join(import.meta.dirname, '../../../build/peers/docker')

/** bench/peers/docker.go at work in a namespace: Docker's calls, one object and one round trip at a time. */
export class DockerNode {
  readonly #program: LineProgram
  readonly #size: number

  private constructor(started: LineProgram, size: number) {
    this.#program = started
    this.#size = size
  }

  static async start(
    namespace: Namespace,
    size: number,
    keys: readonly BenchKey[],
    options: readonly string[] = [],
  ): Promise<DockerNode> {
    const words = [`--local=${LOCAL}`, `--port=${PORT}`, `--mark=${MARK}`, ...options]
    const node = new DockerNode(LineProgram.start(namespace, program, words), size)
    await node.#tell({ op: 'setKeys', keys: keys.map(hex) })
    return node
  }

  addPeers(): Promise<Sample> {
    return this.#tell({ op: 'addPeers', range: { first: '11.0.0.1', count: this.#size } })
  }

  removePeers(): Promise<Sample> {
    return this.#tell({ op: 'removePeers', range: { first: '11.0.0.1', count: this.#size } })
  }

  updateKeys(change: { add?: BenchKey; primary?: number; prune?: number }): Promise<Sample> {
    return this.#tell({ op: 'updateKeys', ...change, ...(change.add && { add: hex(change.add) }) })
  }

  /** Lists all states and policies, and deletes what bears the mark. */
  clean(): Promise<Sample> {
    return this.#tell({ op: 'clean' })
  }

  /** Lists all, and looks for what each peer should have. */
  compare(): Promise<Sample> {
    return this.#tell({ op: 'compare' })
  }

  end(): Promise<void> {
    return this.#program.end()
  }

  #tell(command: object): Promise<Sample> {
    return this.#program.tell(JSON.stringify(command))
  }
}

function hex({ tag, value }: BenchKey): { tag: number; value: string } {
  return { tag, value: Buffer.from(value).toString('hex') }
}
