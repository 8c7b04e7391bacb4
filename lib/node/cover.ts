import { type Failure, NetlinkError } from '../base/errors.js'
import { errnoText } from '../kernel/netlink-errors.js'
import { type GuardedSets, type GuardState, type NodeGuard, sameSets, setsFor } from './guard.js'
import type { Step } from './plan.js'
import type { Remote, Settings } from './settings.js'

/**
 * Sees to it that the guard holds the ranges of all nodes that are wanted, and of all that ever were, until they are
 * released. Where marks choose what is encrypted there is no guard, and nothing to do.
 */
export class Cover {
  readonly #settings: Settings
  readonly #guard: NodeGuard | undefined
  /** All that is guarded, as far as is known; of some of it there may be no node now. */
  #kept: GuardedSets | undefined

  constructor(settings: Settings, guard: NodeGuard | undefined) {
    this.#settings = settings
    this.#guard = guard
  }

  /** Keeps what an earlier process guarded. */
  async adopt(): Promise<void> {
    this.#kept = (await this.read())?.sets
  }

  /** The guard as the kernel has it, not intact where its sets hold other ranges either; undefined where marks choose. */
  read(): Promise<GuardState> | undefined {
    return this.#guard?.read().then((state) => {
      if (!state.intact || this.#kept === undefined || sameSets(state.sets, this.#kept)) return state
      return { ...state, intact: false, differences: [OTHER_RANGES] }
    })
  }

  /** Guards these nodes too. @returns why that could not be done: then nothing was changed */
  async spread(nodes: Iterable<Remote>): Promise<Failure[]> {
    if (this.#guard === undefined) return []
    try {
      const sets = this.#sets(nodes)
      await this.#guard.apply(sets)
      this.#kept = sets
      return []
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error
      const { errno, message } = error
      return [{ subject: 'guard', operation: 'update guard', errno, code: errnoText(errno)[0], message }]
    }
  }

  /** Guards these nodes alone. */
  async release(nodes: Iterable<Remote>): Promise<void> {
    const sets = setsFor(this.#settings, nodes)
    await this.#guard?.apply(sets)
    this.#kept = sets
  }

  /** Takes the guard away. */
  async remove(): Promise<void> {
    await this.#guard?.remove()
  }

  /** What {@link spread} would do. */
  async steps(nodes: Iterable<Remote>): Promise<Step[]> {
    const state = await this.read()
    if (state === undefined) return []
    const step = (subject: string): Step[] => [{ phase: 'guard sets', operation: 'update guard', subject }]
    if (!state.intact) return step(state.differences.join('; '))
    return sameSets(state.sets, this.#sets(nodes)) ? [] : step(OTHER_RANGES)
  }

  #sets(nodes: Iterable<Remote>): GuardedSets {
    return setsFor(this.#settings, nodes, this.#kept)
  }
}

const OTHER_RANGES = 'its sets hold other ranges'
