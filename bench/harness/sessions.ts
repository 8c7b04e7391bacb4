import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { Namespace } from '#dist/demo/namespace.js'
import { start, type Running } from '#dist/demo/processes.js'
import type { Sample, Session } from './contest.js'

/** Milliseconds that a program may take to end. */
const LONGEST_END_MS = 30_000

/** Does a step, and says what it took. */
export type Doing = () => Promise<Sample>

/** A session of steps by name. */
export function session(steps: Record<string, Doing>, close: () => Promise<void> = () => Promise.resolve()): Session {
  return {
    step: (name) => {
      const step = steps[name]
      if (step === undefined) throw new Error(`no step '${name}'; there are ${Object.keys(steps).join(', ')}`)
      return step()
    },
    close,
  }
}

/** Makes what depends on a size once, until another is asked for: what a daemon's caller holds is no part of its work. */
export function kept<T>(make: (size: number) => T): (size: number) => T {
  let known: { readonly size: number; readonly made: T } | undefined
  return (size) => {
    if (known?.size !== size) known = { size, made: make(size) }
    return known.made
  }
}

/** Awaits a call, and says how long it took. */
export async function timed(call: () => Promise<unknown>): Promise<Sample> {
  const began = performance.now()
  await call()
  return { ms: performance.now() - began }
}

/** Of a call that is carried out in this process: also how long the JavaScript thread was on a processor for it. */
export async function timedThread(call: () => Promise<unknown>): Promise<Sample> {
  const [cpu, began] = [threadMs(), performance.now()]
  await call()
  return { ms: performance.now() - began, javascriptMs: threadMs() - cpu }
}

/** Milliseconds that this thread has been on a processor (the first field of schedstat, in nanoseconds). */
export function threadMs(): number {
  return Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[0]) / 1e6
}

/**
 * A program that reads a command a line from its standard input, carries it out, and answers with a line of JSON:
 * `{ "elapsedMs": … }` and other numbers, or `{ "error": "…" }`.
 */
export class LineProgram {
  readonly #running: Running
  readonly #answers: AsyncIterator<string>

  private constructor(running: Running) {
    this.#running = running
    // Who is gone says so by answering nothing.
    running.child.stdin!.on('error', () => undefined)
    this.#answers = createInterface(running.child.stdout!)[Symbol.asyncIterator]()
  }

  /** Starts it in a namespace, or without one where this process is. */
  static start(namespace: Namespace | undefined, command: string, args: readonly string[]): LineProgram {
    return new LineProgram(namespace === undefined ? start(command, args) : namespace.start(command, args))
  }

  async tell(line: string): Promise<Sample> {
    this.#running.child.stdin!.write(`${line}\n`)
    const answer = await this.#answers.next()
    if (answer.done === true) throw new Error(`it ended without an answer: ${this.#running.errors()}`)
    const { error, elapsedMs, ...others } = JSON.parse(answer.value) as Record<string, unknown> & {
      error?: string
    }
    if (error !== undefined) throw new Error(error)
    if (typeof elapsedMs !== 'number') throw new Error(`an answer without a time: ${answer.value}`)
    const figures = Object.entries(others).filter((figure): figure is [string, number] => typeof figure[1] === 'number')
    return { ms: elapsedMs, ...Object.fromEntries(figures) }
  }

  /** Ends it, by force if it takes long. @throws Error if it did not end well */
  async end(): Promise<void> {
    const { child, ended } = this.#running
    child.stdin!.end()
    const late = setTimeout(() => child.kill('SIGKILL'), LONGEST_END_MS)
    const { status, errors } = await ended
    clearTimeout(late)
    if (status !== 0) throw new Error(`it ended with status ${String(status)}: ${errors}`)
  }
}
