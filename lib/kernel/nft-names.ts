import { oneOf } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { textBytes } from './netlink-attributes.js'

/** How objects are named, by the caller and by the kernel: families, hooks, message and attribute numbers. */

/** Families as nftables numbers them (NFPROTO_*, linux/netfilter.h). A table of `inet` sees IPv4 and IPv6. */
export const Families = { inet: 1, ip: 2, arp: 3, netdev: 5, bridge: 7, ip6: 10 } as const
export type NftFamily = keyof typeof Families

/** Where a base chain hangs, as `inet`, `ip` and `ip6` number it (NF_INET_*). */
export const Hooks = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const
export type Hook = keyof typeof Hooks

const OtherHooks: Partial<Record<NftFamily, readonly string[]>> = {
  arp: ['input', 'output', 'forward'],
  netdev: ['ingress', 'egress'],
}
const IpHooks = [...namesOf(Hooks), 'ingress']

/** What `nft` calls a hook of that family; its number if it has none. */
export function hookNamed(family: NftFamily, number: number): string {
  return (OtherHooks[family] ?? IpHooks)[number] ?? String(number)
}

export const Policies = { drop: 0, accept: 1 } as const
export type Policy = keyof typeof Policies

export const ChainTypes = ['filter', 'route', 'nat'] as const
export type ChainType = (typeof ChainTypes)[number]

/** NFT_SET_* that a caller may set. */
export const SetFlags = { constant: 2, interval: 4, timeout: 16, dynamic: 32 } as const
export type SetFlag = keyof typeof SetFlags
/** NFT_SET_MAP */
export const SET_IS_MAP = 8

/** NFT_SET_ELEM_INTERVAL_END */
export const INTERVAL_END = 1

/** A table by its name, up to 255 bytes. */
export interface TableName {
  readonly family: NftFamily
  readonly table: string
}
export interface ChainName extends TableName {
  readonly chain: string
}
export interface SetName extends TableName {
  readonly set: string
}
export interface CounterName extends TableName {
  readonly counter: string
}
export interface RuleName extends ChainName {
  /** The kernel's own number of it. */
  readonly handle: number
}

/** NFT_MSG_* (linux/netfilter/nf_tables.h). */
export const Message = {
  newTable: 0,
  getTable: 1,
  deleteTable: 2,
  newChain: 3,
  getChain: 4,
  deleteChain: 5,
  newRule: 6,
  getRule: 7,
  deleteRule: 8,
  newSet: 9,
  getSet: 10,
  deleteSet: 11,
  newElements: 12,
  getElements: 13,
  deleteElements: 14,
  newGeneration: 15,
  getGeneration: 16,
  newObject: 18,
  getObject: 19,
  deleteObject: 20,
} as const

/** Types of attributes, by the object they are of (NFTA_*). */
export const TableAttribute = { name: 1, flags: 2, use: 3, handle: 4, userdata: 6 } as const
export const ChainAttribute = {
  table: 1,
  handle: 2,
  name: 3,
  hook: 4,
  policy: 5,
  use: 6,
  type: 7,
  userdata: 12,
} as const
export const HookAttribute = { number: 1, priority: 2 } as const
export const RuleAttribute = { table: 1, chain: 2, handle: 3, expressions: 4, userdata: 7 } as const
export const SetAttribute = {
  table: 1,
  name: 2,
  flags: 3,
  keyType: 4,
  keyBytes: 5,
  dataType: 6,
  dataBytes: 7,
  description: 9,
  id: 10,
  timeout: 11,
  userdata: 13,
  handle: 16,
  expression: 17,
} as const
export const SetDescription = { size: 1 } as const
export const ElementsAttribute = { table: 1, set: 2, elements: 3 } as const
export const ElementAttribute = {
  key: 1,
  data: 2,
  flags: 3,
  timeout: 4,
  expiration: 5,
  userdata: 6,
  expression: 7,
  expressions: 11,
} as const
export const ObjectAttribute = { table: 1, name: 2, type: 3, data: 4, use: 5, handle: 6, userdata: 8 } as const
/** NFT_OBJECT_COUNTER */
export const OBJECT_COUNTER = 1
export const LIST_ELEMENT = 1
/** What an expression is written as, and a value: bytes, or a verdict. */
export const ExpressionAttribute = { name: 1, data: 2 } as const
export const DataAttribute = { value: 1, verdict: 2 } as const
export const VerdictAttribute = { code: 1, chain: 2 } as const
export const CounterAttribute = { bytes: 1, packets: 2, pad: 3 } as const

/** NFT_NAME_MAXLEN: the NUL counts. */
const LONGEST_NAME = 256

/** @throws InvalidArgument */
export function familyNumber(family: unknown): number {
  const known = (Families as Record<string, number | undefined>)[String(family)]
  return known ?? Families[oneOf(family, 'family', namesOf(Families))]
}

/** @throws InvalidArgument */
export function checkedName(value: unknown, argument: string): string {
  if (typeof value !== 'string' || value === '' || value.includes('\0') || textBytes(value) > LONGEST_NAME) {
    throw new InvalidArgument(argument, `a name of 1 to ${LONGEST_NAME - 1} bytes`, value)
  }
  return value
}

export function namesOf<T extends string>(table: Readonly<Record<T, number>>): T[] {
  return Object.keys(table) as T[]
}

export function nameOf<T extends string>(table: Readonly<Record<T, number>>, value: number): T | undefined {
  return namesOf(table).find((name) => table[name] === value)
}
