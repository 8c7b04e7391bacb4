import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'

/** What tools print is read by us: it must not depend on whose machine this is. */
const environment = { ...process.env, LC_ALL: 'C' }

/** Children that are still running: none may outlive this process, for a namespace lives as long as they do. */
const living = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL')
})

/** A tool that failed: which, how, and its own last words. */
export class CommandError extends Error {
  /** Its exit status; null if a signal ended it or it could not be started. */
  readonly status: number | null

  constructor(command: string, args: readonly string[], status: number | null, said: string, options?: ErrorOptions) {
    super(`${command} ${args.join(' ')}: ${said.trim() === '' ? `exit status ${status}` : said.trim()}`, options)
    this.name = 'CommandError'
    this.status = status
  }
}

export interface RunOptions {
  /** Text for its standard input, which is empty otherwise. */
  input?: string
  /** Exit statuses that are no failure. Default: 0. */
  statuses?: readonly number[]
}

/** Runs a tool to its end and returns what it printed. @throws CommandError */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const { input = '', statuses = [0] } = options
  const running = start(command, args)
  running.child.stdin?.on('error', () => undefined)
  running.child.stdin?.end(input)
  const { status, output, errors } = await running.ended
  if (status === null || !statuses.includes(status)) throw new CommandError(command, args, status, errors)
  return output
}

/** A tool at work: what it has printed so far, and how it ended. */
export interface Running {
  readonly child: ChildProcess
  output(): string
  errors(): string
  /** Rejects with CommandError if it could not be started at all. */
  readonly ended: Promise<{ status: number | null; output: string; errors: string }>
}

/** Starts a tool; it is killed if this process exits first. */
export function start(command: string, args: readonly string[]): Running {
  const child = spawn(command, args, { env: environment, stdio: ['pipe', 'pipe', 'pipe'] })
  living.add(child)
  let output = ''
  let errors = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text))
  const ended = once(child, 'close').then(
    ([status]) => {
      living.delete(child)
      return { status: status as number | null, output, errors }
    },
    (error: unknown) => {
      living.delete(child)
      const said = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'no such command' : String(error)
      throw new CommandError(command, args, null, said, { cause: error })
    },
  )
  // Whoever started it may look at its end late, or never.
  ended.catch(() => undefined)
  return { child, output: () => output, errors: () => errors, ended }
}
