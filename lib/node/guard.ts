import { AF_INET, AF_INET6, type Family } from '../base/address.js'
import { NetlinkError, Unsupported } from '../base/errors.js'
import type { BaseChain, Expression, Nft, NftFailure, TableName } from '../kernel/nft.js'
import { AttributeWriter } from '../kernel/netlink-attributes.js'
import {
  cmp,
  counter,
  goto,
  hostU32,
  lookup,
  meta,
  payload,
  u16,
  u8,
  verdict,
  xfrm,
} from '../kernel/nft-expressions.js'
import { type FoundTable, replacing, type ShapedChain, shapeDifferences, type TableShape } from '../kernel/nft-shape.js'
import { NftTransaction } from '../kernel/nft-transaction.js'
import { IPPROTO_UDP } from '../kernel/xfrm-names.js'
import {
  elementsOf,
  type Interval,
  intervalOf,
  intervalsOf,
  merged,
  outside,
  sameIntervals,
  without,
} from './ranges.js'
import { type Ends, FAMILIES, type Remote, type Settings } from './settings.js'
import { Purpose } from './tunnels.js'

/**
 * What keeps cleartext between pods in and out where no marks choose it: a table of nftables with sets of the ranges here
 * and there.
 *
 * - What goes from a range here to one there is dropped if no SA of ours is about to take it. That is judged after source
 *   NAT, which may send a packet another way: its source may not be a pod's any more, so what connection tracking
 *   remembers of both directions counts too.
 * - What comes from a range there to one here is dropped if no SA of ours brought it. That is judged before all else, by
 *   the addresses that it came with, and again where it is forwarded or taken in, by the addresses that it then has:
 *   destination NAT, or the way back of source NAT, may have led it here.
 *
 * It holds with every policy gone. Reading connection tracking turns it on in this namespace, and with it fragments are
 * put together before any rule sees them.
 */
const TABLE: TableName = { family: 'inet', table: 'xfrmesh_node' }

const PRIORITY_RAW = -300
/** After source NAT (100). */
const PRIORITY_LAST = 300
const DESTINATION_PORT = 2
/** A path holds at most six SAs (XFRM_MAX_DEPTH). */
const DEPTHS = [0, 1, 2, 3, 4, 5]
const ENOENT = 2

/** What of a family's header and of its connection the rules look at: linux/netfilter/nf_tables.h, enum nft_ct_keys. */
const fields = {
  [AF_INET]: { version: '4', type: 'ipv4_addr', nfproto: 2, source: 12, destination: 16, bytes: 4, ctSource: 19 },
  [AF_INET6]: { version: '6', type: 'ipv6_addr', nfproto: 10, source: 8, destination: 24, bytes: 16, ctSource: 21 },
} as const
const Ct = { register: 1, key: 2, direction: 3 } as const
const Direction = { original: 0, reply: 1 } as const

/** What the guard is to hold, by family: ranges here and there, and addresses there between which overlay traffic runs. */
export interface GuardedSets {
  readonly local: ReadonlyMap<Family, readonly Interval[]>
  readonly remote: ReadonlyMap<Family, readonly Interval[]>
  readonly overlay: ReadonlyMap<Family, readonly Interval[]>
}

export interface GuardState {
  readonly exists: boolean
  /** Whether it is there, and every chain, rule and set is as it should be, whatever the sets hold. */
  readonly intact: boolean
  /** What is not, a sentence each. */
  readonly differences: readonly string[]
  /** What the sets hold. */
  readonly sets: GuardedSets
  /** Packets dropped on the way in and out since the table was made. */
  readonly drops: { in: number; out: number }
}

/**
 * The sets for these nodes, and for more that were guarded: what is here is not there. What was here once still is, unless
 * a node has it now.
 */
export function setsFor({ local }: Settings, nodes: Iterable<Remote>, more: GuardedSets = noSets): GuardedSets {
  const all = [...nodes]
  const byFamily = (of: (family: Family) => Interval[]) =>
    new Map(FAMILIES.map((family): [Family, Interval[]] => [family, merged(of(family))]))
  const rangesOf = ({ subnets }: Ends, family: Family) =>
    subnets.filter((range) => range.family === family).map(intervalOf)
  const here = byFamily((family) => rangesOf(local, family))
  const there = byFamily((family) => all.flatMap((node) => rangesOf(node, family)))
  return {
    local: byFamily((family) => [...here.get(family)!, ...outside(more.local.get(family) ?? [], there.get(family)!)]),
    remote: byFamily((family) => {
      return outside([...there.get(family)!, ...(more.remote.get(family) ?? [])], here.get(family)!)
    }),
    overlay: byFamily((family) => {
      if (local.overlay.size === 0) return []
      const ends = all.flatMap(({ overlay }) => overlay.get(family) ?? [])
      const hosts = ends.map((end) => intervalOf({ ...end, length: fields[family].bytes * 8 }))
      return [...hosts, ...(more.overlay.get(family) ?? [])]
    }),
  }
}

export function sameSets(one: GuardedSets, other: GuardedSets): boolean {
  return (['local', 'remote', 'overlay'] as const).every((part) =>
    FAMILIES.every((family) => sameIntervals(one[part].get(family) ?? [], other[part].get(family) ?? [])),
  )
}

const noSets: GuardedSets = { local: new Map(), remote: new Map(), overlay: new Map() }

/** The guard in one namespace. It holds nothing but its shape: what is guarded stands in the kernel alone. */
export class NodeGuard {
  readonly #nft: Nft
  readonly #shape: TableShape
  readonly #names: readonly SetId[]

  constructor(nft: Nft, { local, overlayPort }: Settings) {
    this.#nft = nft
    this.#names = setIds(local.overlay.size > 0)
    this.#shape = shapeOf(this.#names, local.overlay.size > 0 ? overlayPort : 0)
  }

  /**
   * Makes the sets hold exactly these, in one step; mends the table where it is not as it should be.
   * @throws NetlinkError; Unsupported. Nothing was changed then
   */
  async apply(sets: GuardedSets): Promise<void> {
    const last = { isMaking: false }
    const { failures } = await this.#nft.change(async () => {
      const state = await this.read()
      last.isMaking = !state.intact
      return last.isMaking ? this.#making(sets) : this.#changing(state.sets, sets)
    })
    const [first] = failures
    if (first === undefined) return
    // All that it refers to it makes itself: what is not found is a part of the kernel.
    if (last.isMaking && first.errno === ENOENT) throw missingPart(first.subject)
    throw refused(first)
  }

  /** Takes the table away. No failure if there is none. */
  async remove(): Promise<void> {
    const { failures } = await this.#nft.commit(new NftTransaction().addTable(TABLE).deleteTable(TABLE))
    if (failures[0] !== undefined) throw refused(failures[0])
  }

  /** What the kernel has. */
  async read(): Promise<GuardState> {
    const table = await this.#nft.table(TABLE)
    if (table === undefined) {
      const differences = [`there is no table ${TABLE.table}`]
      return { exists: false, intact: false, differences, sets: noSets, drops: { in: 0, out: 0 } }
    }
    const [chains, rules, sets] = await Promise.all([
      this.#nft.chains(TABLE),
      this.#nft.rules(TABLE, { expressions: true }),
      this.#nft.sets(TABLE),
    ])
    const found: FoundTable = { table, chains, rules, sets }
    const differences = shapeDifferences(this.#shape, found)
    const held = { local: new Map(), remote: new Map(), overlay: new Map() } as Record<Part, Map<Family, Interval[]>>
    for (const { part, family, set } of this.#names) {
      if (sets.some((each) => each.set === set)) {
        held[part].set(family, intervalsOf(await this.#nft.keys({ ...TABLE, set }), family))
      }
    }
    const drops = { in: dropped(found, 'in'), out: dropped(found, 'out') }
    return { exists: true, intact: differences.length === 0, differences, sets: held, drops }
  }

  #making(sets: GuardedSets): NftTransaction {
    const transaction = replacing(TABLE, this.#shape)
    for (const { part, family, set } of this.#names) {
      transaction.addElements({ ...TABLE, set, elements: elementsOf(sets[part].get(family) ?? [], family) })
    }
    return transaction
  }

  #changing(from: GuardedSets, to: GuardedSets): NftTransaction | undefined {
    const transaction = new NftTransaction()
    for (const { part, family, set } of this.#names) {
      const [before, after] = [from[part].get(family) ?? [], to[part].get(family) ?? []]
      if (sameIntervals(before, after)) continue
      const [gone, fresh] = [without(before, after), without(after, before)]
      if (gone.length > 0) transaction.deleteElements({ ...TABLE, set, elements: elementsOf(gone, family) })
      if (fresh.length > 0) transaction.addElements({ ...TABLE, set, elements: elementsOf(fresh, family) })
    }
    return transaction.size === 0 ? undefined : transaction
  }
}

type Part = keyof GuardedSets

interface SetId {
  readonly part: Part
  readonly family: Family
  readonly set: string
}

function setIds(withOverlay: boolean): SetId[] {
  const parts: Part[] = withOverlay ? ['local', 'remote', 'overlay'] : ['local', 'remote']
  return parts.flatMap((part) => FAMILIES.map((family) => ({ part, family, set: `${part}${fields[family].version}` })))
}

/** @param overlayPort 0: no overlay traffic is guarded */
function shapeOf(names: readonly SetId[], overlayPort: number): TableShape {
  const at = (hook: BaseChain['hook'], priority: number): Required<BaseChain> => {
    return { type: 'filter', hook, priority, policy: 'accept' }
  }
  const both = (of: (family: Family) => Expression[][]) => FAMILIES.flatMap(of)
  const purposes = overlayPort === 0 ? (['pods'] as const) : (['pods', 'overlay'] as const)
  const toPods = (family: Family) => {
    return [...address(family, 'source', 'remote'), ...address(family, 'destination', 'local'), goto('in-pods')]
  }
  const chains: ShapedChain[] = [
    {
      chain: 'prerouting',
      base: at('prerouting', PRIORITY_RAW),
      rules: both((family) => [
        toPods(family),
        ...(overlayPort === 0
          ? []
          : [[...address(family, 'source', 'overlay'), ...udpTo(overlayPort), goto('in-overlay')]]),
      ]),
    },
    ...(['forward', 'input'] as const).map((hook) => {
      return { chain: hook, base: at(hook, PRIORITY_RAW), rules: both((family) => [toPods(family)]) }
    }),
    {
      chain: 'postrouting',
      base: at('postrouting', PRIORITY_LAST),
      rules: both((family) => [
        ...[
          address(family, 'source', 'local'),
          tracked(family, 'original', 'local'),
          tracked(family, 'reply', 'local'),
        ].map((local) => [...address(family, 'destination', 'remote'), ...local, goto('out-pods')]),
        ...(overlayPort === 0
          ? []
          : [[...address(family, 'destination', 'overlay'), ...udpTo(overlayPort), goto('out-overlay')]]),
      ]),
    },
  ]
  const drop = [counter(), verdict('drop')]
  for (const purpose of purposes) {
    const through = (direction: 'in' | 'out', depth: number) => [
      xfrm(direction, 'reqid', depth),
      cmp('==', hostU32(Purpose[purpose])),
      verdict('return'),
    ]
    chains.push({ chain: `in-${purpose}`, rules: [...DEPTHS.map((depth) => through('in', depth)), drop] })
    // On the way out ours is the first: it has one template, and nothing else selects the same.
    chains.push({ chain: `out-${purpose}`, rules: [through('out', 0), drop] })
  }
  const sets = names.map(({ set, family }) => ({ set, type: fields[family].type, flags: ['interval'] as const }))
  return { comment: 'pods that xfrmesh encrypts between nodes', sets, chains }
}

/** Whether an address of a packet's header is in a set. */
function address(family: Family, side: 'source' | 'destination', part: Part): Expression[] {
  const { version, nfproto, bytes, [side]: offset } = fields[family]
  return [meta('nfproto'), cmp('==', u8(nfproto)), payload('network', offset, bytes), lookup(`${part}${version}`)]
}

/** Whether the source that a packet's connection has in one direction is in a set: what it was before source NAT. */
function tracked(family: Family, direction: keyof typeof Direction, part: Part): Expression[] {
  const { version, nfproto, ctSource } = fields[family]
  const { written } = new AttributeWriter()
    .u32(Ct.register, 1)
    .u32(Ct.key, ctSource)
    .u8(Ct.direction, Direction[direction])
  const ct: Expression = { kind: 'other', name: 'ct', attributes: new Uint8Array(written) }
  return [meta('nfproto'), cmp('==', u8(nfproto)), ct, lookup(`${part}${version}`)]
}

function udpTo(port: number): Expression[] {
  return [meta('l4proto'), cmp('==', u8(IPPROTO_UDP)), payload('transport', DESTINATION_PORT, 2), cmp('==', u16(port))]
}

function dropped({ rules }: FoundTable, way: 'in' | 'out'): number {
  return rules
    .filter(({ chain }) => chain.startsWith(`${way}-`))
    .flatMap(({ expressions }) => expressions)
    .reduce((sum, expression) => (expression.kind === 'counter' ? sum + Number(expression.packets) : sum), 0)
}

function refused({ subject, errno, message }: NftFailure): NetlinkError {
  return new NetlinkError(`guard: ${subject}`, errno, message)
}

function missingPart(subject: string): Unsupported {
  return new Unsupported(
    'CONFIG_NFT_XFRM',
    `this kernel lacks what the guard is made of (${subject}): it needs CONFIG_NF_TABLES_INET, CONFIG_NFT_XFRM and CONFIG_NFT_CT (modules nf_tables, nft_xfrm, nft_ct)`,
  )
}
