import { type Failure, NetlinkError } from '../base/errors.js'
import { errnoText } from '../kernel/channel.js'
import type { FirewallState } from './firewall.js'
import type { Step } from './plan.js'
import type { FirewallPort } from './ports.js'

/** The networks of an Overlay: those wanted, those guarded as far as is known, and the firewall that guards them. */
export class Networks {
  readonly wanted = new Set<number>()
  /** VNIs in the kernel's set; where somebody else guards, those that were asked for. */
  guarded: ReadonlySet<number> = new Set()
  readonly #firewall: FirewallPort | undefined

  constructor(firewall: FirewallPort | undefined) {
    this.#firewall = firewall
  }

  /** What the kernel has; undefined where somebody else guards. Afterwards `guarded` is what it has. */
  async read(): Promise<FirewallState | undefined> {
    const state = await this.#firewall?.read()
    if (state !== undefined) this.guarded = state.networks
    return state
  }

  /**
   * Guards `add`, and, since another tool may have emptied our set, all the others again. What the kernel refuses is
   * returned, what it lacks is thrown.
   */
  async guard(add: readonly number[], all: ReadonlySet<number>): Promise<Failure[]> {
    if (add.length === 0) return []
    try {
      await this.#firewall?.apply({ add: [...all] })
    } catch (error) {
      return refused(add, 'guard network', error)
    }
    this.guarded = new Set([...this.guarded, ...all])
    return []
  }

  /** Guards these no more. The table goes with the last one. */
  async release(remove: readonly number[]): Promise<Failure[]> {
    try {
      await this.#firewall?.apply({ remove, removeEmpty: true })
    } catch (error) {
      return refused(remove, 'end guarding network', error)
    }
    const left = new Set(this.guarded)
    for (const vni of remove) left.delete(vni)
    this.guarded = left
    return []
  }

  /** Rebuilds a table that was tampered with, whole and at once, for what is wanted and what it still guards. */
  async mend(state: FirewallState | undefined): Promise<boolean> {
    if (state === undefined || !this.#isBroken(state)) return false
    const all = new Set([...state.networks, ...this.wanted])
    await this.#firewall!.restore(all)
    this.guarded = all
    return true
  }

  /** The step that {@link mend} would take, beside the networks that a plan adds and removes. */
  repairs(state: FirewallState | undefined): Step[] {
    if (state === undefined || !state.exists || !this.#isBroken(state)) return []
    return [{ phase: 'guard', operation: 'update firewall', subject: state.differences.join('; ') }]
  }

  /** What keeps the kernel's table from guarding what is wanted, a sentence each. */
  differences(state: FirewallState): string[] {
    if (this.wanted.size === 0) return state.exists ? state.differences : []
    const missing = [...this.wanted].filter((vni) => !state.networks.has(vni))
    if (missing.length === 0) return state.differences
    const some = `${missing.slice(0, 3).join(', ')}${missing.length > 3 ? ', …' : ''}`
    return [...state.differences, `${missing.length} networks are not in its set (${some})`]
  }

  #isBroken(state: FirewallState): boolean {
    return !state.intact && (state.exists || this.wanted.size > 0)
  }
}

function refused(networks: readonly number[], operation: string, error: unknown): Failure[] {
  if (!(error instanceof NetlinkError)) throw error
  const [code] = errnoText(error.errno)
  return networks.map((vni) => ({ subject: `vni ${vni}`, operation, errno: error.errno, code, message: error.message }))
}
