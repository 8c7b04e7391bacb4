import type { Iptables, XtFamily } from '../kernel/iptables.js'
import { filled, type FirewallChange, type FirewallState, otherPortError } from './firewall.js'
import { drops, type GuardOptions } from './guard.js'
import { changes, differences, isThere, runsIn, type Tables } from './guard-chains.js'
import { chainPrefix, chainsOf, dropOf, TABLES, type XtChain } from './guard-iptables.js'
import type { Run } from './vni-program.js'
import { VniSet } from './vni-set.js'

/** What was found, by family. */
type Found = ReadonlyMap<XtFamily, Tables>

/**
 * The guard of the encrypted networks by iptables and ip6tables, for hosts without nf_tables, or whose administrator
 * wants it so: as {@link Firewall}, in chains whose names carry the mark.
 *
 * It holds nothing but its options. Each change takes a reading of three tables a family, and one iptables-restore a family,
 * which changes each table in one step: a network that is guarded before and after is guarded meanwhile. Going up the
 * tables come in {@link TABLES}'s order, coming down in the other.
 *
 * What iptables can't hold, and nftables can: a rule of an administrator's at the head of `mangle` before our jump can let
 * packets pass us by, and a flush of `raw` lets source NAT at what is encrypted. Both are differences that {@link read}
 * finds; {@link restore} mends them. What is dropped for want of headers that can be read, ip6tables' legacy kind drops
 * itself, and does not count.
 */
export class IptablesFirewall {
  readonly #iptables: Iptables
  readonly #options: GuardOptions
  readonly #prefix: string

  constructor(iptables: Iptables, guard: GuardOptions) {
    this.#iptables = iptables
    this.#options = guard
    this.#prefix = chainPrefix(guard.mark)
  }

  /**
   * Guards networks, or ends it, however many they are. Makes the chains if need be, and mends them where they were
   * tampered with, for the networks that they still tell.
   * @returns the networks that are guarded then
   * @throws Unsupported for what the kernel or the system lacks; IptablesError. What was done of the change is taken back
   *   then; where that fails too, {@link read} tells
   */
  async apply(change: FirewallChange): Promise<VniSet> {
    const { add, keep, remove, removeEmpty } = filled(change)
    const found = await this.#found()
    const state = this.#stateOf(found)
    const networks = state.networks.union(keep()).union(add).minus(remove)
    const isLast = networks.size === 0 && (removeEmpty || !state.exists)
    if (!isLast && state.otherPort !== undefined && state.networks.size > 0) {
      throw otherPortError(`chain ${this.#prefix}in`, state.otherPort, this.#options.port)
    }
    const isEnd = add.size === 0 && networks.size < state.networks.size
    try {
      await this.#write(found, isLast ? undefined : networks, isLast || isEnd)
    } catch (error) {
      await this.#takeBack(state)
      throw error
    }
    return networks
  }

  /**
   * Makes the chains what they should be for exactly these networks, whatever is there.
   * @throws Unsupported; IptablesError. One family may be done then, and the other not
   */
  async restore(networks: Iterable<number>): Promise<void> {
    await this.#write(await this.#found(), VniSet.of(networks))
  }

  /** Takes the chains away. No failure if there are none. @throws as {@link restore} */
  async remove(): Promise<void> {
    await this.#write(await this.#found(), undefined)
  }

  /** What the kernel has, compared with what it should have. */
  async read(): Promise<FirewallState> {
    return this.#stateOf(await this.#found())
  }

  /** Guards what was guarded, after a change that may have come as far as one table, or one family. */
  async #takeBack({ exists, networks }: FirewallState): Promise<void> {
    try {
      await this.#write(await this.#found(), exists ? networks : undefined)
    } catch {
      // Whoever made the change hears of what stopped it.
    }
  }

  async #found(): Promise<Found> {
    const read = async (family: XtFamily): Promise<[XtFamily, Tables]> => {
      const tables = TABLES.map(async (table) => [table, await this.#iptables.save(family, table)] as const)
      return [family, Object.fromEntries(await Promise.all(tables)) as Tables]
    }
    return new Map(await Promise.all(this.#iptables.families.map(read)))
  }

  #stateOf(found: Found): FirewallState {
    const counts = drops([])
    if (![...found.values()].some((tables) => isThere(tables, this.#prefix))) {
      const said = [`there are no chains ${this.#prefix}*`]
      const networks = VniSet.none
      return { exists: false, intact: false, differences: said, networks, otherPort: undefined, drops: counts }
    }
    const runs: Run[] = []
    for (const [family, tables] of found) {
      runs.push(...runsIn(family, tables, this.#prefix))
      for (const [chain, rules] of TABLES.flatMap((table) => [...tables[table]])) {
        for (const { rule, packets } of rules) {
          const kind = dropOf(this.#options.mark, chain, rule)
          if (kind !== undefined) counts[kind] += packets
        }
      }
    }
    const networks = new VniSet(inRuns(runs))
    const said = this.#differences(found, networks, this.#options)
    const otherPort = said.length > 0 ? this.#otherPort(found, networks) : undefined
    return { exists: true, intact: said.length === 0, differences: said, networks, otherPort, drops: counts }
  }

  #differences(found: Found, networks: VniSet, guard: GuardOptions): string[] {
    const runs = runsOfNetworks(networks)
    return [...found].flatMap(([family, tables]) =>
      differences(chainsOf(family, guard, runs), tables, this.#prefix).map((said) => `IPv${family}, ${said}`),
    )
  }

  #otherPort(found: Found, networks: VniSet): number | undefined {
    const rules = found.get(4)?.mangle.get(`${this.#prefix}in`) ?? []
    const port = Number(/ --dport (\d+) /.exec(rules[0]?.rule ?? '')?.[1] ?? this.#options.port)
    if (port === this.#options.port) return undefined
    for (const exclusive of [false, true]) {
      for (const linksElsewhere of [false, true]) {
        const other = { mark: this.#options.mark, port, exclusive, linksElsewhere }
        if (this.#differences(found, networks, other).length === 0) return port
      }
    }
    return undefined
  }

  /**
   * @param networks undefined: no chain is to be left
   * @param isEnd whether this only ends guarding
   */
  async #write(found: Found, networks: VniSet | undefined, isEnd = networks === undefined): Promise<void> {
    const runs = runsOfNetworks(networks ?? VniSet.none)
    for (const [family, tables] of found) {
      const chains: XtChain[] = networks === undefined ? [] : chainsOf(family, this.#options, runs)
      const lines = TABLES.map((table) => changes(chains, table, tables[table], this.#prefix))
      const needed = lines.filter((table) => table.lines.length > 0)
      // One after the other: they have one lock.
      if (needed.length > 0) await this.#iptables.restore(family, isEnd ? needed.reverse() : needed)
    }
  }
}

function* inRuns(runs: readonly Run[]): Generator<number> {
  for (const [first, last] of runs) for (let vni = first; vni <= last; vni++) yield vni
}

function runsOfNetworks(networks: VniSet): Run[] {
  const runs: [number, number][] = []
  for (const vni of networks) {
    const run = runs.at(-1)
    if (run?.[1] === vni - 1) run[1] = vni
    else runs.push([vni, vni])
  }
  return runs
}
