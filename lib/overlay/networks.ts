import { NetlinkError } from '../base/errors.js'
import { IptablesError } from '../kernel/iptables-errors.js'
import { errnoText } from '../kernel/netlink-errors.js'
import type { FirewallState } from './firewall.js'
import type { Step } from './describe.js'
import type { PlanFailure } from './plan.js'
import type { FirewallPort } from './ports.js'
import { VniSet } from './vni-set.js'

/** In a failure, for a peer's slot: it is about a network. */
export const NETWORK = -2

/** What of networks is to be done. */
export interface NetworkChange {
  readonly add: VniSet
  readonly remove: VniSet
}

/**
 * The networks of an Overlay: those wanted, those guarded as far as is known, and the firewall that guards them. A change
 * of one takes as long as one, however many there are, where nftables guards them and their VNIs are not all scattered.
 */
export class Networks {
  #wanted = VniSet.none
  #guarded = VniSet.none
  #releasing = VniSet.none
  readonly #firewall: FirewallPort | undefined
  /** Whether the firewall's table was found tampered with, and is not mended since. */
  #broken = false

  constructor(firewall: FirewallPort | undefined) {
    this.#firewall = firewall
  }

  get wanted(): VniSet {
    return this.#wanted
  }

  /** VNIs in the kernel's set; where somebody else guards, those that were asked for. */
  get guarded(): VniSet {
    return this.#guarded
  }

  /** How many that were wanted are still guarded: ending that failed, or is under way. */
  get releasing(): number {
    return this.#releasing.size
  }

  want(vnis: VniSet): void {
    this.#releasing = this.#releasing.minus(vnis)
    this.#wanted = this.#wanted.union(vnis)
  }

  /** Wants them no more, and leaves them as they are. */
  forget(vnis: VniSet): void {
    this.#wanted = this.#wanted.minus(vnis)
  }

  /** Wants them no more, so that they are to be released. Returns those that were wanted, or being released. */
  giveUp(vnis: VniSet): VniSet {
    const gone = vnis.and(this.#wanted.union(this.#releasing))
    this.forget(gone)
    this.#releasing = this.#releasing.union(gone)
    return gone
  }

  /** Of those given up, the ones that are guarded no more, as far as is known. */
  released(vnis: VniSet): VniSet {
    const released = vnis.minus(this.#guarded)
    this.#releasing = this.#releasing.minus(released)
    return released
  }

  /** Wants none any more. */
  clear(): void {
    this.#wanted = VniSet.none
  }

  /** What the kernel has; undefined where somebody else guards. Afterwards `guarded` is what it has. */
  async read(): Promise<FirewallState | undefined> {
    const state = await this.#firewall?.read()
    if (state !== undefined) this.#guarded = state.networks
    this.#broken = isBroken(state)
    return state
  }

  /** Whether a network is wanted, and known to be guarded. */
  isGuarded(vni: number): boolean {
    return !this.#broken && this.#wanted.has(vni) && this.#guarded.has(vni)
  }

  /** The networks to guard: those wanted, and what else is guarded but not given up, such as what an earlier process left. */
  kept(): VniSet {
    return this.#wanted.union(this.#guarded.minus(this.#releasing))
  }

  /** What makes those guarded that are to be {@link kept}, and no others. */
  change(): NetworkChange {
    return { add: this.#wanted.minus(this.#guarded), remove: this.#releasing.and(this.#guarded) }
  }

  /** Guards these, of those wanted. What the kernel refuses is returned, what it lacks is thrown. */
  async guard(add: VniSet): Promise<PlanFailure[]> {
    if (add.size === 0) return []
    try {
      const guarded = await this.#firewall?.apply({ add, keep: () => this.kept() })
      this.#guarded = guarded ?? this.#guarded.union(add)
    } catch (error) {
      return [...add].map((vni) => failure(`vni ${vni}`, 'guard network', error))
    }
    this.#broken = false
    return []
  }

  /** Guards these no more. The table goes with the last one. */
  async release(remove: VniSet): Promise<PlanFailure[]> {
    try {
      const guarded = await this.#firewall?.apply({ remove, keep: () => this.kept(), removeEmpty: true })
      this.#guarded = guarded ?? this.#guarded.minus(remove)
    } catch (error) {
      if (remove.size === 0) return [failure('firewall', 'remove table', error)]
      return [...remove].map((vni) => failure(`vni ${vni}`, 'end guarding network', error))
    }
    this.#releasing = this.#releasing.minus(remove)
    return []
  }

  /** Rebuilds a table that was tampered with, whole and at once, for what is wanted and what it still guards. */
  async mend(state: FirewallState): Promise<PlanFailure[]> {
    const all = state.networks.union(this.#wanted)
    try {
      await this.#firewall?.restore(all)
    } catch (error) {
      return [failure('firewall', 'update firewall', error)]
    }
    this.#guarded = all
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
    return state !== undefined && state.exists && this.#wanted.size === 0 && state.networks.size === 0
  }

  /** What keeps the kernel's table from guarding what is wanted, a sentence each. */
  differences(state: FirewallState): string[] {
    if (this.#wanted.size === 0) return state.exists ? state.differences : []
    const missing = this.#wanted.minus(state.networks)
    if (missing.size === 0) return state.differences
    const some = `${[...missing].slice(0, 3).join(', ')}${missing.size > 3 ? ', …' : ''}`
    return [...state.differences, `${missing.size} networks are not in its set (${some})`]
  }
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
