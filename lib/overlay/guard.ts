import { isDeepStrictEqual } from 'node:util'
import { IPPROTO_UDP } from '../kernel/xfrm-names.js'
import type {
  BaseChain,
  Chain,
  ElementsOptions,
  Expression,
  NftSet,
  Rule,
  SetName,
  Table,
  TableName,
} from '../kernel/nft.js'
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

/**
 * The guard as a value: which chains and rules keep the cleartext of encrypted networks in and out, and how what the
 * kernel has differs from them.
 *
 * - Locally made VXLAN packets of these networks get our mark, which is what our policies select.
 * - None is received that did not come through an SA with our reqid, at whatever depth: over a route-based VPN ours is
 *   not the outermost.
 * - None leaves that is not about to go through such an SA. There ours is always the first: no policy but ours selects
 *   our mark, and it has one template. Whatever puts another one ahead of it ends in the drop.
 *
 * A rule whose field a packet does not have is skipped. So the guards say what passes and drop the rest: the first
 * fragment of an IPv6 datagram can be too short for a VNI, and still has a port. Later fragments have none and pass, and
 * never complete. Other VXLAN networks on the same port, and other traffic, are not touched.
 *
 * Packets that are only forwarded through this namespace meet the guard on the way out, and are dropped if they bear an
 * encrypted VNI in the clear. Nothing in such a packet tells whether it was ours before some NAT or tunnel sent it round,
 * and a network that is encrypted here is encrypted in all that leaves here.
 */
export interface Guard {
  readonly chains: readonly GuardChain[]
}

export interface GuardChain {
  readonly chain: string
  readonly base?: Required<BaseChain>
  readonly rules: readonly (readonly Expression[])[]
}

const VNI_SET = 'encrypted-vnis'
const VNI_BYTES = 3
/** Where the VNI is from the UDP header on, in bytes: after UDP's 8, and VXLAN's flags and reserved bits (RFC 7348). */
const VNI_OFFSET = 12

const DESTINATION_PORT_OFFSET = 2
/** A path holds at most six SAs (XFRM_MAX_DEPTH). */
const DEPTHS = [0, 1, 2, 3, 4, 5]

const PRIORITY_RAW = -300
const PRIORITY_MANGLE = -150
/** After source NAT (100), which may send a packet another way, one without IPsec. */
const PRIORITY_LAST = 300

const GUARD_IN = 'guard-in'
const GUARD_OUT = 'guard-out'

export function guardOf(mark: number, port: number): Guard {
  const toPort = [
    meta('l4proto'),
    cmp('==', u8(IPPROTO_UDP)),
    payload('transport', DESTINATION_PORT_OFFSET, 2),
    cmp('==', u16(port)),
  ]
  const vni = payload('transport', VNI_OFFSET, VNI_BYTES)
  const ours = hostU32(mark)
  const through = (direction: 'in' | 'out', depth: number) => [
    xfrm(direction, 'reqid', depth),
    cmp('==', ours),
    verdict('return'),
  ]
  const plain = [vni, lookup(VNI_SET, true), verdict('return')]
  const drop = [counter(), verdict('drop')]
  return {
    chains: [
      {
        chain: 'output',
        base: { type: 'route', hook: 'output', priority: PRIORITY_MANGLE, policy: 'accept' },
        rules: [[...toPort, vni, lookup(VNI_SET), counter(), immediate(ours), setMeta('mark')]],
      },
      {
        chain: 'input',
        base: { type: 'filter', hook: 'input', priority: PRIORITY_RAW, policy: 'accept' },
        rules: [[...toPort, goto(GUARD_IN)]],
      },
      { chain: GUARD_IN, rules: [plain, ...DEPTHS.map((depth) => through('in', depth)), drop] },
      {
        chain: 'postrouting',
        base: { type: 'filter', hook: 'postrouting', priority: PRIORITY_LAST, policy: 'accept' },
        rules: [[...toPort, goto(GUARD_OUT)]],
      },
      { chain: GUARD_OUT, rules: [plain, through('out', 0), drop] },
    ],
  }
}

/** The VXLAN port that a table found is for, if it has a marking rule as a guard has. */
export function portOf(rules: readonly Rule[]): number | undefined {
  const marking = rules.find(({ chain }) => chain === 'output')?.expressions[3]
  if (marking?.kind !== 'cmp' || marking.data.length !== 2) return undefined
  return (marking.data[0]! << 8) | marking.data[1]!
}

/** The name of the set in a table. */
export function vniSet(table: TableName): SetName {
  return { ...table, set: VNI_SET }
}

/**
 * Replaces a table, whether it is there or not, by the guard of these networks. What sees packets changes from the old
 * to the new in one step.
 */
export function replacing(table: TableName, guard: Guard, networks: Iterable<number>): NftTransaction {
  const transaction = new NftTransaction()
    // What was just added is there to be deleted.
    .addTable(table)
    .deleteTable(table)
    .addTable({ ...table, comment: 'networks that xfrmesh encrypts' })
    .addSet({ ...vniSet(table), keyBytes: VNI_BYTES, typeof: { offset: VNI_OFFSET * 8, length: VNI_BYTES * 8 } })
  for (const { chain, base } of guard.chains) transaction.addChain({ ...table, chain, ...(base && { base }) })
  for (const { chain, rules } of guard.chains) {
    for (const expressions of rules) transaction.addRule({ ...table, chain, expressions })
  }
  return transaction.addElements(elementsOf(table, networks))
}

/** Networks as elements of the set. */
export function elementsOf(table: TableName, networks: Iterable<number>): ElementsOptions {
  const vnis = [...networks]
  const keys = new Uint8Array(vnis.length * VNI_BYTES)
  for (const [i, vni] of vnis.entries()) keys.set([vni >> 16, vni >> 8, vni], i * VNI_BYTES)
  return { ...vniSet(table), keyBytes: VNI_BYTES, keys }
}

/** The network that a key of the set is. */
export function networkOf(key: Uint8Array): number {
  return (key[0]! << 16) | (key[1]! << 8) | key[2]!
}

/** Whether the set is one whose keys are VNIs. */
export function holdsNetworks({ set, keyBytes }: NftSet): boolean {
  return set === VNI_SET && keyBytes === VNI_BYTES
}

/** What the kernel has of a table. */
export interface Found {
  readonly table: Table
  readonly chains: readonly Chain[]
  readonly rules: readonly Rule[]
  readonly sets: readonly NftSet[]
}

/** How what was found differs from the guard, a sentence each; whatever is in the table and is not of the guard differs. */
export function differences(guard: Guard, found: Found): string[] {
  const { table, chains, rules, sets } = found
  const said: string[] = []
  if (table.flags !== 0) said.push(`the table has flags ${table.flags}: it is dormant, or another's`)

  for (const { chain, base, rules: expected } of guard.chains) {
    const there = chains.find((other) => other.chain === chain)
    if (there === undefined) {
      said.push(`chain ${chain} is missing`)
      continue
    }
    if (!isDeepStrictEqual(there.base, base)) said.push(`chain ${chain} hangs elsewhere or has another policy`)
    const actual = rules.filter((rule) => rule.chain === chain)
    if (actual.length !== expected.length) {
      said.push(`chain ${chain} has ${actual.length} rules, not ${expected.length}`)
    } else {
      for (const [i, rule] of actual.entries()) {
        if (!sameRule(rule.expressions, expected[i]!)) said.push(`rule ${i + 1} of chain ${chain} is another`)
      }
    }
  }
  for (const { chain } of chains) {
    if (!guard.chains.some((ours) => ours.chain === chain)) said.push(`chain ${chain} is not ours`)
  }

  if (!sets.some(({ set }) => set === VNI_SET)) said.push(`set ${VNI_SET} is missing`)
  for (const { set, keyBytes, flags } of sets) {
    if (set !== VNI_SET) said.push(`set ${set} is not ours`)
    else if (keyBytes !== VNI_BYTES || flags !== 0) said.push(`set ${set} is of another kind`)
  }
  return said
}

/** Packets that the guard dropped in either direction. */
export function drops(rules: readonly Rule[]): { in: number; out: number } {
  return { in: dropped(rules, GUARD_IN), out: dropped(rules, GUARD_OUT) }
}

function dropped(rules: readonly Rule[], chain: string): number {
  const last = rules.findLast((rule) => rule.chain === chain)
  const count = last?.expressions.find((expression) => expression.kind === 'counter')
  return Number(count?.packets ?? 0n)
}

/** Whether they do the same, whatever was counted. */
function sameRule(actual: readonly Expression[], expected: readonly Expression[]): boolean {
  const uncounted = (expression: Expression) => (expression.kind === 'counter' ? counter() : expression)
  return isDeepStrictEqual(actual.map(uncounted), expected.map(uncounted))
}
