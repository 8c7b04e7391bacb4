import type { Expression, Verdict } from './nft-expressions.js'
import type { ChainName, ChainType, CounterName, Hook, Policy, SetFlag, SetName, TableName } from './nft-names.js'
import type { DataType } from './nft-types.js'
import type { TransportField } from './nft-userdata.js'

/** What a transaction's changes are made from. A comment is what `nft list` shows: up to 128 bytes. */

/** Bytes where it is not UTF-8: cut within a character, as some write them. */
export type Comment = string | Uint8Array

export interface TableOptions extends TableName {
  readonly comment?: string
}

export interface BaseChain {
  readonly type: ChainType
  readonly hook: Hook
  /** The lower the earlier: raw is -300, mangle -150, filter 0, the source NAT 100. */
  readonly priority: number
  /** What happens to packets that reach its end. Default: accept. */
  readonly policy?: Policy
}

export interface ChainOptions extends ChainName {
  /** Left out: a chain that packets enter only by a jump or goto. */
  readonly base?: BaseChain
  readonly comment?: string
}

/** A set, or with `map` a map. */
export interface SetOptions extends SetName {
  /** What the keys are: `nft list` prints them so, and their length follows. */
  readonly type?: DataType
  /** How long keys are that are plain integers: 1 to 64 bytes. In the place of `type`. */
  readonly keyBytes?: number
  /** The field that integers are compared with, so that `nft list` can print them. Its length is that of the keys. */
  readonly typeof?: TransportField
  /** What it maps keys to; left out, it is a set. */
  readonly map?: 'verdict' | DataType
  /**
   * `constant`: no change once a rule refers to it. `interval`: its elements are ends of ranges. `timeout`: they may have
   * one. `dynamic`: rules fill it.
   */
  readonly flags?: readonly SetFlag[]
  /** How long an element stays that does not say so itself. Implies the flag `timeout`. 1 to 2^53 - 1. */
  readonly timeoutMs?: number
  /** Most elements: 1 to 2^32 - 1. */
  readonly size?: number
  /** Whether each element counts the packets that match it. */
  readonly counters?: boolean
  readonly comment?: string
}

export interface RuleOptions extends ChainName {
  readonly expressions: readonly Expression[]
  /** Where: at the chain's end, which is the default, or at its head. */
  readonly at?: 'end' | 'head'
  readonly comment?: Comment
}

/** Elements by their keys, and what else there is to them: the fastest way to thousands. */
export interface ElementsOptions extends SetName {
  readonly keyBytes: number
  /** Keys in network byte order, one after the other without gaps. */
  readonly keys: Uint8Array
  /** In a verdict map, what each of them holds. Not to delete them. */
  readonly verdict?: Verdict
  /** As many as there are keys, if any. Not to delete elements. */
  readonly comments?: readonly (Comment | undefined)[]
}

export interface ElementListOptions extends SetName {
  readonly elements: readonly ElementOptions[]
}

/** What names an element: what was listed can be deleted. */
export interface ElementName {
  /** As long as the set's keys are, in the order of its type: network byte order, but for what is the kernel's own. */
  readonly key: Uint8Array
  /** In a set of intervals: the key is the first one after a range. */
  readonly intervalEnd?: boolean
}

export interface ElementNamesOptions extends SetName {
  readonly elements: readonly ElementName[]
}

export interface ElementOptions extends ElementName {
  /** In a verdict map, what it holds. */
  readonly verdict?: Verdict
  /** In a map of data, what it holds. */
  readonly data?: Uint8Array
  /** 1 to 2^53 - 1; only in a set with timeouts. */
  readonly timeoutMs?: number
  readonly comment?: Comment
}

/** A counter with a name, in which rules count. */
export interface CounterOptions extends CounterName {
  /** Where it starts, 0 to 2^64 - 1 each. Default: 0. */
  readonly packets?: bigint
  readonly bytes?: bigint
  readonly comment?: string
}
