import { spawn } from 'node:child_process'
import { constants } from 'node:fs'
import { access, type FileHandle, open } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { namespace } from '../base/check.js'
import { InvalidArgument, Unsupported, XfrmeshError } from '../base/errors.js'
import { checkNamespace } from './namespace.js'

/** Programs of others, run in a network namespace. No shell has a part in it. */

/** Where programs of root's may be beside PATH: a daemon's often lacks these. */
const SYSTEM_DIRECTORIES = ['/usr/sbin', '/sbin', '/usr/local/sbin']

/** The descriptor that a child has its namespace by. */
const INHERITED = 3

/** What a program came to. */
export interface Ended {
  /** null if a signal ended it. */
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
}

/** The absolute path of a program; undefined if it is not installed. */
export async function findProgram(name: string): Promise<string | undefined> {
  const directories = [...(process.env['PATH'] ?? '').split(delimiter).filter(Boolean), ...SYSTEM_DIRECTORIES]
  for (const directory of directories) {
    const path = join(directory, name)
    const isThere = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    )
    if (isThere) return path
  }
  return undefined
}

/** A network namespace to run programs in: held open, so that it stays the same whatever becomes of its path. */
export class ProgramPlace {
  readonly #timeoutMs: number
  readonly #held: FileHandle | undefined
  readonly #inode: number
  readonly #path: string | undefined

  private constructor(timeoutMs: number, held?: FileHandle, inode = 0, path?: string) {
    this.#timeoutMs = timeoutMs
    this.#held = held
    this.#inode = inode
    this.#path = path
  }

  /**
   * @param netns its path, or an open descriptor; undefined: the process's own
   * @param timeoutMs how long one program may run
   * @throws InvalidArgument for a namespace that is not there
   */
  static async open(netns: string | number | undefined, timeoutMs: number): Promise<ProgramPlace> {
    const given = namespace(netns, 'netns')
    if (given === undefined) return new ProgramPlace(timeoutMs)
    try {
      const held = await open(typeof given === 'number' ? `/proc/self/fd/${given}` : given)
      return new ProgramPlace(timeoutMs, held, (await held.stat()).ino, typeof given === 'string' ? given : undefined)
    } catch (error) {
      throw new InvalidArgument(
        'netns',
        `a network namespace: its path, as in /run/netns/a, or an open descriptor of it (${(error as Error).message})`,
        netns,
      )
    }
  }

  /**
   * Runs a program to its end. Its language is C's.
   * @param what names it in errors
   * @throws Unsupported if it can't be started; XfrmeshError ERR_XFRMESH_TIMEOUT, ERR_XFRMESH_NAMESPACE_GONE
   */
  run(what: string, command: readonly string[], input = ''): Promise<Ended> {
    if (this.#held && this.#path !== undefined) checkNamespace(what, this.#path, this.#inode)
    const entering = this.#held ? ['nsenter', `--net=/proc/self/fd/${INHERITED}`] : []
    const [program, ...words] = [...entering, ...command]
    return new Promise((resolve, reject) => {
      const child = spawn(program!, words, {
        stdio: ['pipe', 'pipe', 'pipe', ...(this.#held ? [this.#held.fd] : [])],
        env: { ...process.env, LC_ALL: 'C' },
        timeout: this.#timeoutMs,
        killSignal: 'SIGKILL',
      })
      const printed = { stdout: '', stderr: '' }
      for (const stream of ['stdout', 'stderr'] as const) {
        child[stream]!.setEncoding('utf8').on('data', (chunk: string) => (printed[stream] += chunk))
      }
      child.on('error', (cause) => {
        const message = `${what}: ${program} can't be started (${cause.message}): install it`
        reject(new Unsupported(program!, message, { cause }))
      })
      child.on('close', (status) => {
        if (!child.killed) resolve({ status, ...printed })
        else reject(new XfrmeshError('ERR_XFRMESH_TIMEOUT', `${what}: out of time: read back what it came to`))
      })
      // It may end before it has read all; its status, and what it printed, say why.
      child.stdin!.on('error', () => undefined).end(input)
    })
  }

  async close(): Promise<void> {
    await this.#held?.close()
  }
}
