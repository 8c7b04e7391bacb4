import { type Failure, NetlinkError } from '../base/errors.js'
import { errnoText } from '../kernel/netlink-errors.js'
import { type GuardedSets, type GuardState, type NodeGuard, setsFor } from './guard.js'
import type { Step } from './plan.js'
import { sameIntervals } from './ranges.js'
import { FAMILIES, type Remote, type Settings } from './settings.js'

/**
 * Sees to it that the guard holds the ranges of all nodes that are wanted, and of all that ever were, until they are
 * released. Where marks choose what is encrypted there is no guard, and nothing to do.
 */
export class Cover {
  readonly #settings: Settings
  readonly #guard: NodeGuard | undefined
  /** Ranges and addresses that were guarded and may be no node's now. */
  #kept: GuardedSets | undefined

  constructor(settings: Settings, guard: NodeGuard | undefined) {
    this.#settings = settings
    this.#guard = guard
  }

  /** Keeps what an earlier process guarded. */
  async adopt(): Promise<void> {
    this.#kept = (await this.read())?.sets
  }

  /** The guard as the kernel has it; undefined where marks choose. */
  read(): Promise<GuardState> | undefined {
    return this.#guard?.read()
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
    this.#kept = undefined
    await this.#guard?.apply(this.#sets(nodes))
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
    const wanted = this.#sets(nodes)
    const same = (['local', 'remote', 'overlay'] as const).every((part) =>
      FAMILIES.every((family) => sameIntervals(state.sets[part].get(family) ?? [], wanted[part].get(family) ?? [])),
    )
    return same ? [] : step('its sets hold other ranges')
  }

  #sets(nodes: Iterable<Remote>): GuardedSets {
    return setsFor(this.#settings, nodes, this.#kept)
  }
}
