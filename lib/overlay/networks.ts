import { NetlinkError } from '../base/errors.js'
import { IptablesError } from '../kernel/iptables-errors.js'
import { errnoText } from '../kernel/netlink-errors.js'
import type { FirewallState } from './firewall.js'
import type { Step } from './describe.js'
import type { PlanFailure } from './plan.js'
import type { FirewallPort } from './ports.js'
import { VniSet, type Vnis } from './vni-set.js'

/** In a failure, for a peer's slot: it is about a network. */
export const NETWORK = -2

/** What of networks is to be done. */
export interface NetworkChange {
  readonly add: readonly number[]
  readonly remove: readonly number[]
}

/**
 * The networks of an Overlay: those wanted, those guarded as far as is known, and the firewall that guards them. A change
 * of one takes as long as one, however many there are, where nftables guards them and an earlier process left no others.
 */
export class Networks {
  readonly #wanted = new VniSet()
  #guarded = new VniSet()
  readonly #releasing = new VniSet()
  /** Those wanted that are not guarded, as far as is known. */
  #missing = new VniSet()
  readonly #firewall: FirewallPort | undefined
  /** Whether the firewall's table was found tampered with, and is not mended since. */
  #broken = false

  constructor(firewall: FirewallPort | undefined) {
    this.#firewall = firewall
  }

  get wanted(): Vnis {
    return this.#wanted
  }

  /** VNIs in the kernel's set; where somebody else guards, those that were asked for. */
  get guarded(): Vnis {
    return this.#guarded
  }

  /** How many that were wanted are still guarded: ending that failed, or is under way. */
  get releasing(): number {
    return this.#releasing.size
  }

  /** False if it was wanted before. */
  want(vni: number): boolean {
    this.#releasing.delete(vni)
    if (!this.#wanted.add(vni)) return false
    if (!this.#guarded.has(vni)) this.#missing.add(vni)
    return true
  }

  /** Wants it no more, and leaves it as it is. False if it was not wanted. */
  forget(vni: number): boolean {
    this.#missing.delete(vni)
    return this.#wanted.delete(vni)
  }

  /** Wants it no more, so that it is to be released. False if it was neither wanted nor being released. */
  giveUp(vni: number): boolean {
    if (!this.forget(vni) && !this.#releasing.has(vni)) return false
    this.#releasing.add(vni)
    return true
  }

  /** Whether what was given up is guarded no more, as far as is known. */
  isReleased(vni: number): boolean {
    if (this.#guarded.has(vni)) return false
    this.#releasing.delete(vni)
    return true
  }

  /** Wants none any more. */
  clear(): void {
    this.#wanted.clear()
    this.#missing.clear()
  }

  /** What the kernel has; undefined where somebody else guards. Afterwards `guarded` is what it has. */
  async read(): Promise<FirewallState | undefined> {
    const state = await this.#firewall?.read()
    if (state !== undefined) this.#found(state.networks)
    this.#broken = isBroken(state)
    return state
  }

  /** Whether a network is wanted, and known to be guarded. */
  isGuarded(vni: number): boolean {
    return !this.#broken && this.#wanted.has(vni) && this.#guarded.has(vni)
  }

  /** The networks to guard: those wanted, and what else is guarded but not given up, such as what an earlier process left. */
  kept(): VniSet {
    let others = this.#guarded.size - (this.#wanted.size - this.#missing.size)
    for (const vni of this.#releasing.toArray()) if (this.#guarded.has(vni)) others--
    return others === 0 ? this.#wanted : union(this.#wanted, this.#spared())
  }

  /** What makes those guarded that are to be {@link kept}, and no others. */
  change(): NetworkChange {
    return { add: this.#missing.toArray(), remove: this.#releasing.toArray().filter((vni) => this.#guarded.has(vni)) }
  }

  /** Guards these, of those wanted. What the kernel refuses is returned, what it lacks is thrown. */
  async guard(add: readonly number[]): Promise<PlanFailure[]> {
    if (add.length === 0) return []
    try {
      this.#found(
        (await this.#firewall?.apply({ add, keep: () => this.kept().toArray() })) ?? union(this.#guarded, add),
      )
    } catch (error) {
      return ascending(add).map((vni) => failure(`vni ${vni}`, 'guard network', error))
    }
    for (const vni of add) this.#missing.delete(vni)
    this.#broken = false
    return []
  }

  /** Guards these no more. The table goes with the last one. */
  async release(remove: readonly number[]): Promise<PlanFailure[]> {
    try {
      const change = { remove, keep: () => this.kept().toArray(), removeEmpty: true }
      this.#found((await this.#firewall?.apply(change)) ?? without(this.#guarded, remove))
    } catch (error) {
      if (remove.length === 0) return [failure('firewall', 'remove table', error)]
      return ascending(remove).map((vni) => failure(`vni ${vni}`, 'end guarding network', error))
    }
    for (const vni of remove) this.#releasing.delete(vni)
    return []
  }

  /** Rebuilds a table that was tampered with, whole and at once, for what is wanted and what it still guards. */
  async mend(state: FirewallState): Promise<PlanFailure[]> {
    const all = union(state.networks, this.#wanted)
    try {
      await this.#firewall?.restore(all)
    } catch (error) {
      return [failure('firewall', 'update firewall', error)]
    }
    this.#found(all)
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
    const missing = [...this.#wanted].filter((vni) => !state.networks.has(vni))
    if (missing.length === 0) return state.differences
    const some = `${missing.slice(0, 3).join(', ')}${missing.length > 3 ? ', …' : ''}`
    return [...state.differences, `${missing.length} networks are not in its set (${some})`]
  }

  /** The firewall makes its changes to the set that it gave. */
  #found(guarded: VniSet): void {
    if (guarded === this.#guarded) return
    this.#guarded = guarded
    this.#missing = this.#wanted.copy()
    for (const vni of guarded.toArray()) this.#missing.delete(vni)
  }

  #spared(): number[] {
    return this.#guarded.toArray().filter((vni) => !this.#releasing.has(vni))
  }
}

function ascending(vnis: readonly number[]): number[] {
  return [...vnis].sort((a, b) => a - b)
}

function union(one: Iterable<number>, other: Iterable<number>): VniSet {
  return new VniSet([...one, ...other])
}

function without(one: Iterable<number>, other: Iterable<number>): VniSet {
  const left = new VniSet(one)
  for (const vni of other) left.delete(vni)
  return left
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
