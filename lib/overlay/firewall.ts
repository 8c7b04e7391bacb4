import { isDeepStrictEqual } from 'node:util'
import { array, integer, options, U16, U32 } from '../base/check.js'
import { NetlinkError, Unsupported, type XfrmeshError } from '../base/errors.js'
import type { BaseChain, Chain, Expression, Nft, NftFailure, NftSet, Rule, Table, TableName } from '../kernel/nft.js'
import {
  cmp,
  counter,
  goto,
  hostU32,
  immediate,
  lookup,
  meta,
  payload,
  setMeta,
  u16,
  u8,
  verdict,
  xfrm,
} from '../kernel/nft-expressions.js'
import { NftTransaction } from '../kernel/nft-transaction.js'

/** A VNI is 24 bits; RFC 7348 excludes none. */
export const LAST_VNI = 0xffffff

const VNI_BYTES = 3
/** What is ahead of the VNI from the UDP header on, in bytes: UDP's 8, then VXLAN's flags and reserved bits. */
const VNI_OFFSET = 12
const DESTINATION_PORT_OFFSET = 2
const IPPROTO_UDP = 17

const SET = 'encrypted-vnis'
/** XFRM_MAX_DEPTH: a path has at most so many SAs. */
const DEPTHS = [0, 1, 2, 3, 4, 5]

const PRIORITY_RAW = -300
const PRIORITY_MANGLE = -150
/** After source NAT (100), which may send a packet another way, one without IPsec. */
const PRIORITY_LAST = 300

/** Tries to change what another tool is changing too. */
const TRIES = 4
const ENOENT = 2
const EEXIST = 17
const EBUSY = 16

export interface FirewallOptions {
  nft: Nft
  /** What is ours: the fwmark that is set on what is to be encrypted, and the reqid of our SAs. 1 to 2^32 - 1. */
  mark: number
  /** VXLAN's UDP port. */
  port: number
}

export interface FirewallChange {
  /** VNIs, 0 to 2^24 - 1. One that is guarded already is no failure. */
  add?: readonly number[]
  /** One that is not guarded is no failure; one that is in `add` too is not guarded afterwards. */
  remove?: readonly number[]
  /** When no network is left, take the table away too. */
  removeEmpty?: boolean
}

export interface FirewallState {
  /** Whether our table is there at all. */
  exists: boolean
  /** Whether it is there and every chain, rule and set in it is as it should be. */
  intact: boolean
  /** What is not, a sentence each. */
  differences: string[]
  /** The VNIs that the kernel's set holds. They are guarded if it is intact. */
  networks: Set<number>
  /** Packets dropped since the table was made: on the way in and on the way out. */
  drops: { in: number; out: number }
}

interface GuardChain {
  readonly chain: string
  readonly base?: BaseChain
  readonly rules: readonly (readonly Expression[])[]
}

/**
 * The guard that keeps the cleartext of encrypted networks in and out, in one nftables table of its own, whose name
 * carries the mark. It needs no key, no SA and no ESP in the kernel.
 *
 * - Locally made VXLAN packets of these networks get our mark, which is what our policies select.
 * - None is received that did not come through an SA with our reqid, at whatever depth: over a route-based VPN ours is
 *   not the outermost.
 * - None leaves that is not about to go through such an SA. There ours is always the first: no policy but ours selects
 *   our mark, and it has one template. Whatever stacks another one ahead of it ends in the drop.
 *
 * A rule whose field a packet does not have is skipped. So the guards say what passes and drop the rest: the first
 * fragment of an IPv6 datagram can be too short for a VNI, and still has a port. Later fragments have none and pass, and
 * never complete. Other VXLAN networks on the same port, and other traffic, are not touched.
 *
 * Packets that are only forwarded through this namespace meet the guard on the way out, and are dropped if they bear an
 * encrypted VNI in the clear. Nothing in such a packet tells whether it was ours before some NAT or tunnel sent it round,
 * and a network that is encrypted here is encrypted for all that leaves here.
 *
 * It holds nothing but its options: what is guarded stands in the kernel alone. Calls may overlap; changes are each one
 * transaction.
 */
export class Firewall {
  readonly table: TableName
  readonly #nft: Nft
  readonly #chains: readonly GuardChain[]

  constructor(firewallOptions: FirewallOptions) {
    const { nft, mark, port } = options<FirewallOptions>(firewallOptions, 'options', ['nft', 'mark', 'port'])
    integer(mark, 'options.mark', 1, U32)
    integer(port, 'options.port', 1, U16)
    this.#nft = nft
    this.table = { family: 'inet', table: `xfrmesh_${mark.toString(16)}` }
    this.#chains = guard(mark, port)
  }

  /**
   * Guards networks, or ends it, in one transaction however many they are; makes the table if need be, and mends it if
   * it was tampered with, for the networks that its set still holds.
   * @throws Unsupported for what the kernel lacks; NetlinkError; nothing was changed then
   */
  async apply(change: FirewallChange): Promise<void> {
    const { add = [], remove = [], removeEmpty = false } = options<FirewallChange>(change, 'change', [
      'add',
      'remove',
      'removeEmpty',
    ])
    const added = vnis(add, 'add')
    const removed = vnis(remove, 'remove')
    for (let tries = 1; ; tries++) {
      const failure = await this.#try(this.#planned(await this.read(), added, removed, removeEmpty))
      if (failure === undefined) return
      // Somebody else's change came between reading and writing.
      const overtaken = [ENOENT, EEXIST, EBUSY].includes(failure.errno)
      if (!overtaken || tries === TRIES) throw failure
    }
  }

  /** Makes the table what it should be for exactly these networks, whatever is there, with no moment without a guard. */
  async restore(networks: Iterable<number>): Promise<void> {
    const failure = await this.#try(this.#whole(vnis([...networks], 'networks')))
    if (failure !== undefined) throw failure
  }

  /** Takes the table away. No failure if there is none. */
  async remove(): Promise<void> {
    // Adding it first makes deleting it certain.
    const failure = await this.#try({
      transaction: new NftTransaction().addTable(this.table).deleteTable(this.table),
      needsXfrm: new Set(),
    })
    if (failure !== undefined) throw failure
  }

  /** What the kernel has, compared with what it should have. */
  async read(): Promise<FirewallState> {
    const { table, chains, rules, sets, keys } = await this.#nft.snapshot(() => this.#dump())
    const networks = new Set<number>()
    for (const key of keys) networks.add((key[0]! << 16) | (key[1]! << 8) | key[2]!)
    const differences = table === undefined ? [`there is no table ${this.table.table}`] : this.#compare(table, chains, rules, sets)
    return {
      exists: table !== undefined,
      intact: differences.length === 0,
      differences,
      networks,
      drops: { in: dropped(rules, GUARD_IN), out: dropped(rules, GUARD_OUT) },
    }
  }
}
