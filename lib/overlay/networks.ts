import { NetlinkError } from '../base/errors.js'
import { IptablesError } from '../kernel/iptables-errors.js'
import { errnoText } from '../kernel/netlink-errors.js'
import type { FirewallState } from './firewall.js'
import type { Step } from './describe.js'
import type { PlanFailure } from './plan.js'
import type { FirewallPort } from './ports.js'

/** In a failure, for a peer's slot: it is about a network. */
export const NETWORK = -2

/** The networks of an Overlay: those wanted, those guarded as far as is known, and the firewall that guards them. */
export class Networks {
  readonly wanted = new Set<number>()
  /** VNIs in the kernel's set; where somebody else guards, those that were asked for. */
  guarded: ReadonlySet<number> = new Set()
  /** VNIs that were wanted, and are still guarded: ending that failed. */
  readonly releasing = new Set<number>()
  readonly #firewall: FirewallPort | undefined
  /** Whether the firewall's table was found tampered with, and is not mended since. */
  #broken = false

  constructor(firewall: FirewallPort | undefined) {
    this.#firewall = firewall
  }

  /** What the kernel has; undefined where somebody else guards. Afterwards `guarded` is what it has. */
  async read(): Promise<FirewallState | undefined> {
    const state = await this.#firewall?.read()
    if (state !== undefined) this.guarded = state.networks
    this.#broken = isBroken(state)
    return state
  }

  /** Whether a network is wanted, and known to be guarded. */
  isGuarded(vni: number): boolean {
    return !this.#broken && this.wanted.has(vni) && this.guarded.has(vni)
  }

  /** The networks to guard: those wanted, and what else is guarded but not given up, such as what an earlier process left. */
  kept(): Set<number> {
    const networks = new Set(this.wanted)
    for (const vni of this.guarded) if (!this.releasing.has(vni)) networks.add(vni)
    return networks
  }

  /**
   * Guards `add`, and, since another tool may have emptied our set, all the others again. What the kernel refuses is
   * returned, what it lacks is thrown.
   */
  async guard(add: readonly number[], all: ReadonlySet<number>): Promise<PlanFailure[]> {
    if (add.length === 0) return []
    try {
      await this.#firewall?.apply({ add: all })
    } catch (error) {
      return add.map((vni) => failure(`vni ${vni}`, 'guard network', error))
    }
    this.guarded = this.guarded.size === 0 ? all : union(this.guarded, all)
    this.#broken = false
    return []
  }

  /** Guards these no more. The table goes with the last one. */
  async release(remove: readonly number[]): Promise<PlanFailure[]> {
    try {
      await this.#firewall?.apply({ remove, removeEmpty: true })
    } catch (error) {
      if (remove.length === 0) return [failure('firewall', 'remove table', error)]
      return remove.map((vni) => failure(`vni ${vni}`, 'end guarding network', error))
    }
    const left = new Set(this.guarded)
    for (const vni of remove) {
      left.delete(vni)
      this.releasing.delete(vni)
    }
    this.guarded = left
    return []
  }

  /** Rebuilds a table that was tampered with, whole and at once, for what is wanted and what it still guards. */
  async mend(state: FirewallState): Promise<PlanFailure[]> {
    const all = new Set([...state.networks, ...this.wanted])
    try {
      await this.#firewall?.restore(all)
    } catch (error) {
      return [failure('firewall', 'update firewall', error)]
    }
    this.guarded = all
    this.#broken = false
    return []
  }

  /** The steps of mending what is there, and of removing a table without networks, beside those that a plan has. */
  repairs(state: FirewallState | undefined): Step[] {
    if (isBroken(state)) {
      return [{ phase: 'guard', operation: 'update firewall', subject: state.differences.join('; ') }]
    }
    return this.isLeft(state)
      ? [{ phase: 'unguard', operation: 'remove firewall', subject: 'table without networks' }]
      : []
  }

  /** Whether a table is there for no network. */
  isLeft(state: FirewallState | undefined): boolean {
    return state !== undefined && state.exists && this.wanted.size === 0 && state.networks.size === 0
  }

  /** What keeps the kernel's table from guarding what is wanted, a sentence each. */
  differences(state: FirewallState): string[] {
    if (this.wanted.size === 0) return state.exists ? state.differences : []
    const missing = [...this.wanted].filter((vni) => !state.networks.has(vni))
    if (missing.length === 0) return state.differences
    const some = `${missing.slice(0, 3).join(', ')}${missing.length > 3 ? ', …' : ''}`
    return [...state.differences, `${missing.length} networks are not in its set (${some})`]
  }
}

function union(one: ReadonlySet<number>, other: ReadonlySet<number>): Set<number> {
  const both = new Set(one)
  for (const vni of other) both.add(vni)
  return both
}

/** Whether a table is there that was tampered with. One that is not there is made with its networks. */
export function isBroken(state: FirewallState | undefined): state is FirewallState {
  return state !== undefined && state.exists && !state.intact
}

/** What the kernel refused as a failure; anything else is thrown. */
function failure(subject: string, operation: string, error: unknown): PlanFailure {
  if (error instanceof IptablesError) {
    return { peer: NETWORK, subject, operation, errno: 0, code: error.code, message: error.message }
  }
  if (!(error instanceof NetlinkError)) throw error
  const [code] = errnoText(error.errno)
  return { peer: NETWORK, subject, operation, errno: error.errno, code, message: error.message }
}
