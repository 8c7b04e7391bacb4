import { setImmediate } from 'node:timers/promises'

/** How long work may keep the JavaScript thread in a row, in milliseconds. */
const TURN_MS = 0.5

/**
 * Splits long work on the JavaScript thread into turns of the event loop, by time: the same thousand steps that take a
 * tenth of a millisecond here take ten in a slow virtual machine. Ask after each step; looking at the clock costs as much
 * as a step does, so that is done every `every` steps.
 */
export class Pace {
  readonly #every: number
  #steps = 0
  #began = performance.now()

  constructor(every = 64) {
    this.#every = every
  }

  /** Whether it is time to {@link breathe}. */
  get isDue(): boolean {
    if (++this.#steps < this.#every) return false
    this.#steps = 0
    return performance.now() - this.#began >= TURN_MS
  }

  /** Lets timers, sockets and other work have their turn. */
  async breathe(): Promise<void> {
    await setImmediate()
    this.#began = performance.now()
  }
}
