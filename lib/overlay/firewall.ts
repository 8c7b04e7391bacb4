import { boolean, integer, options, U16, U32 } from '../base/check.js'
import { InvalidState, NetlinkError, Unsupported, XfrmeshError } from '../base/errors.js'
import type { Nft, NftResult, Rule, TableName } from '../kernel/nft.js'
import { NftTransaction } from '../kernel/nft-transaction.js'
import { type Drops, drops, type Guard, guardOf } from './guard.js'
import {
  differences,
  elementsOf,
  type Found,
  holdsNetworks,
  networkOf,
  portOf,
  replacing,
  vniSet,
} from './guard-table.js'
import { VniSet } from './vni-set.js'

const ENOENT = 2

export interface FirewallOptions {
  nft: Nft
  /** What is ours: the fwmark set on what is to be encrypted, and the reqid of our SAs. 1 to 2^32 - 1. */
  mark: number
  /** VXLAN's UDP port. */
  port: number
  /** All networks on this port are encrypted: no VNI is asked. Default: false. */
  exclusive?: boolean
  /** The links of these networks live in other namespaces: what a socket here sends is forged. Default: false. */
  linksElsewhere?: boolean
}

export interface FirewallChange {
  /** One that is guarded already is no failure. */
  add?: Iterable<number>
  /** Those that should be guarded already: what another tool took away of them is added again. Asked only if one may have. */
  keep?: () => Iterable<number>
  /** One that is not guarded is no failure. One that is in `add` or `keep` too is not guarded afterwards. */
  remove?: Iterable<number>
  /** When no network is left, take the table away too. Default: false. */
  removeEmpty?: boolean
}

export interface FirewallState {
  /** Whether our table is there at all. */
  exists: boolean
  /** Whether it is there, and every chain, rule and set in it is as it should be. */
  intact: boolean
  /** What is not, a sentence each. */
  differences: string[]
  /** The VNIs that the kernel's set holds. They are guarded if it is intact. */
  networks: VniSet
  /** Another port than ours, for which the table is as it should be: an Overlay with other options made it. */
  otherPort: number | undefined
  /** Packets dropped since the table was made. Mending it keeps the counts of the rules that were there. */
  drops: Drops
}

/**
 * The {@link Guard} of the encrypted networks, in one nftables table of its own, whose name carries the mark. It needs no
 * key, no SA and no ESP in the kernel.
 *
 * What is guarded stands in the kernel. What is remembered of it holds for one generation of the ruleset, at which the
 * table was intact: if it is of another, it is read again. Each change is one transaction: there is no moment at which a
 * network that is guarded before and after is not.
 */
export class Firewall {
  readonly table: TableName
  readonly #nft: Nft
  readonly #guard: Guard
  /** What replaces whatever is there by the guard of no network. Its rules are the greater part, and always the same. */
  readonly #blank: { readonly records: Uint8Array; readonly size: number }
  readonly #port: number
  readonly #mark: number
  #known: Known | undefined

  constructor(firewallOptions: FirewallOptions) {
    const known = ['nft', 'mark', 'port', 'exclusive', 'linksElsewhere'] as const
    const o = options<FirewallOptions>(firewallOptions, 'options', known)
    const mark = integer(o.mark, 'options.mark', 1, U32)
    const exclusive = boolean(o.exclusive ?? false, 'options.exclusive')
    const linksElsewhere = boolean(o.linksElsewhere ?? false, 'options.linksElsewhere')
    this.#nft = o.nft
    this.#mark = mark
    this.#port = integer(o.port, 'options.port', 1, U16)
    this.#guard = guardOf({ mark, port: this.#port, exclusive, linksElsewhere })
    this.table = { family: 'inet', table: `xfrmesh_${mark.toString(16)}` }
    const blank = replacing(this.table, this.#guard, VniSet.none)
    this.#blank = { size: blank.size, records: blank.take() }
  }

  /**
   * Guards networks, or ends it, however many they are. Makes the table if need be, and mends it where it was tampered
   * with, for the networks that its set still holds.
   * @returns the networks that are guarded then
   * @throws Unsupported for what the kernel lacks; NetlinkError. Nothing was changed then
   */
  async apply(change: FirewallChange): Promise<VniSet> {
    const wanted = filled(change)
    const known = this.#known
    this.#known = undefined
    return (known && (await this.#tryFrom(known, wanted))) ?? this.#lookAndApply(wanted)
  }

  /** Changes what is remembered. undefined if it is out of date, or nothing would change: then it is looked at first. */
  async #tryFrom(known: Known, change: Wanted): Promise<VniSet | undefined> {
    const planned = this.#planned(known, change, true)
    const { transaction } = planned
    if (transaction === undefined || transaction.size === 0) return undefined
    try {
      const { failures, generation } = await this.#nft.commit(transaction, { generation: known.generation })
      // Whoever is refused looks before he believes it: nf_tables may have been unloaded and loaded.
      return failures.length > 0 ? undefined : this.#done(planned, generation)
    } catch (error) {
      if (error instanceof XfrmeshError && error.code === 'ERR_XFRMESH_RULESET_CHANGED') return undefined
      throw error
    }
  }

  async #lookAndApply(change: Wanted): Promise<VniSet> {
    let planned: Planned | undefined
    const result = await this.#nft.change(async () => {
      planned = this.#planned(await this.#look(), change, false)
      return planned.transaction
    })
    this.#check(result)
    return this.#done(planned!, result.generation)
  }

  #done({ networks, exists }: Planned, generation: number | undefined): VniSet {
    if (generation !== undefined) this.#known = { generation, exists, intact: exists, networks, rules: [] }
    return networks
  }

  /**
   * Makes the table what it should be for exactly these networks, whatever is there.
   * @throws Unsupported for what the kernel lacks; NetlinkError. Nothing was changed then
   */
  async restore(networks: Iterable<number>): Promise<void> {
    this.#known = undefined
    const { value } = await this.#nft.snapshot(() => this.#found())
    this.#check(await this.#nft.commit(this.#replacing(VniSet.of(networks), value?.rules ?? [])))
  }

  /** Takes the table away. No failure if there is none. */
  async remove(): Promise<void> {
    this.#known = undefined
    this.#check(await this.#nft.commit(this.#removal()))
  }

  /** What the kernel has, compared with what it should have. */
  async read(): Promise<FirewallState> {
    const { value, generation } = (await this.#absent()) ?? (await this.#nft.snapshot(() => this.#found()))
    const state = this.#stateOf(value)
    const { exists, intact, networks } = state
    if (intact || !exists) this.#known = { generation, exists, intact, networks, rules: [] }
    else this.#known = undefined
    return state
  }

  /**
   * undefined if there is a table. Both are asked at once, and answered in that order: of a ruleset that has changed in
   * between the generation is not the one that is told, and a change by compare-and-swap will be refused.
   */
  async #absent(): Promise<{ value: undefined; generation: number } | undefined> {
    const [generation, table] = await Promise.all([this.#nft.generation(), this.#nft.table(this.table)])
    return table === undefined ? { value: undefined, generation } : undefined
  }

  async #look(): Promise<Now> {
    const found = await this.#found()
    return { ...this.#stateOf(found), rules: found?.rules ?? [] }
  }

  #stateOf(found: FoundTable | undefined): FirewallState {
    if (found === undefined) {
      const said = [`there is no table ${this.table.table}`]
      const nothing = { networks: VniSet.none, otherPort: undefined, drops: drops([]) }
      return { exists: false, intact: false, differences: said, ...nothing }
    }
    const said = differences(this.#guard, found)
    const networks = new VniSet(found.keys.map(networkOf))
    const otherPort = said.length > 0 ? this.#otherPort(found) : undefined
    return {
      exists: true,
      intact: said.length === 0,
      differences: said,
      networks,
      otherPort,
      drops: drops(found.rules),
    }
  }

  #otherPort(found: Found): number | undefined {
    const port = portOf(found.rules)
    if (port === undefined || port === this.#port) return undefined
    for (const exclusive of [false, true]) {
      for (const linksElsewhere of [false, true]) {
        const guard = guardOf({ mark: this.#mark, port, exclusive, linksElsewhere })
        if (differences(guard, found).length === 0) return port
      }
    }
    return undefined
  }

  async #found(): Promise<FoundTable | undefined> {
    const table = await this.#nft.table(this.table)
    if (table === undefined) return undefined
    const [chains, rules, sets] = await Promise.all([
      this.#nft.chains(this.table),
      this.#nft.rules(this.table, { expressions: true }),
      this.#nft.sets(this.table),
    ])
    const keys = sets.some(holdsNetworks) ? await this.#nft.keys(vniSet(this.table)) : []
    return { table, chains, rules, sets, keys }
  }

  /** What makes the table guard other networks too, and fewer. */
  #planned(now: Now, { add, keep, remove, removeEmpty }: Wanted, isRemembered: boolean): Planned {
    const { exists, intact, networks: before } = now
    // What is remembered has them all.
    const wanted = isRemembered ? add : add.union(keep())
    const fresh = wanted.minus(before).minus(remove)
    const gone = remove.and(before)
    const networks = before.minus(gone).union(fresh)
    const isLeft = networks.size > 0 || (exists && !removeEmpty)
    const planned = { networks, exists: isLeft }
    if (!isLeft) return { ...planned, transaction: exists ? this.#removal() : undefined }
    if (intact) {
      const transaction = new NftTransaction()
        .addElements(elementsOf(this.table, fresh))
        .deleteElements(elementsOf(this.table, gone))
      return { ...planned, transaction }
    }
    if (now.otherPort !== undefined && before.size > 0) {
      throw otherPortError(`table ${this.table.table}`, now.otherPort, this.#port)
    }
    return { ...planned, transaction: this.#replacing(networks, now.rules) }
  }

  /** What makes the table guard exactly these. Rules that were there `before` go on counting where they were. */
  #replacing(networks: VniSet, before: readonly Rule[]): NftTransaction {
    if (before.length > 0) return replacing(this.table, this.#guard, networks, before)
    const { records, size } = this.#blank
    return new NftTransaction().append(records, size).addElements(elementsOf(this.table, networks))
  }

  #removal(): NftTransaction {
    // What was just added is there to be deleted.
    return new NftTransaction().addTable(this.table).deleteTable(this.table)
  }

  /** @throws NetlinkError, or Unsupported: what a transaction refers to is there or made by it, so what is not found is a part of the kernel */
  #check({ failures: [first] }: NftResult): void {
    if (first === undefined) return
    const error = new NetlinkError(`firewall: ${first.subject}`, first.errno, first.message)
    throw first.errno === ENOENT ? missingPart(error) : error
  }
}

/** What a change starts from. */
type Now = Pick<FirewallState, 'exists' | 'intact' | 'networks'> &
  Partial<Pick<FirewallState, 'otherPort'>> &
  Pick<Found, 'rules'>

/** What is remembered: a table that is intact, or none. */
type Known = Now & { readonly generation: number }

/** A change as a transaction, which is left out if there is nothing to do. */
interface Planned {
  readonly transaction: NftTransaction | undefined
  /** Those guarded afterwards. */
  readonly networks: VniSet
  /** Whether there is a table afterwards. */
  readonly exists: boolean
}

interface Wanted {
  readonly add: VniSet
  readonly keep: () => VniSet
  readonly remove: VniSet
  readonly removeEmpty: boolean
}

/** A change with its defaults. @throws RangeError for what is no VNI */
export function filled({ add = [], keep = () => [], remove = [], removeEmpty = false }: FirewallChange): Wanted {
  return { add: VniSet.of(add), keep: () => VniSet.of(keep()), remove: VniSet.of(remove), removeEmpty }
}

/** All that was found of our table. */
type FoundTable = Found & { keys: readonly Uint8Array[] }

/** To take the table over would leave the networks that are encrypted on the other port without a guard. */
export function otherPortError(what: string, other: number, port: number): InvalidState {
  return new InvalidState(
    `${what} guards VXLAN on port ${other}, not ${port}, and has networks: open an Overlay with that port and close it with { flush: true }, or reconcile() to give them up, or use another mark`,
    'ERR_XFRMESH_OTHER_PORT',
  )
}

/** Chains want their type for this family, rules their expressions; all but one of those are in every nf_tables. */
function missingPart(error: NetlinkError): Unsupported {
  const [part, option, module] = error.operation.includes('rule ')
    ? ["nftables' match of a packet's SAs", 'CONFIG_NFT_XFRM', 'nft_xfrm']
    : ["nftables' inet family", 'CONFIG_NF_TABLES_INET', 'nf_tables']
  return new Unsupported(
    option,
    `this kernel lacks ${part}, which keeps cleartext in and out: it needs ${option} (module ${module})`,
    { cause: error },
  )
}
