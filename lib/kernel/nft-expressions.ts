import { integer, U16, U32 } from '../base/check.js'
import { LITTLE_ENDIAN } from './records.js'

/**
 * What a rule is made of: expressions, run in order over one packet. One loads something into a register, the next
 * compares it; the first that does not hold, or whose field the packet does not have, ends the rule without a match.
 *
 * They are plain values, made with the functions here and found again in {@link Rule.expressions}. Registers are as in
 * NFT_REG_*: 1 to 4 hold 16 bytes each, 8 to 23 hold 4 of the same 64, 0 holds the verdict. Kernel format:
 * linux/netfilter/nf_tables.h; nft-expression-codec.ts writes and reads it.
 */
export type Expression =
  /** Loads what is known about the packet beside its bytes. */
  | { readonly kind: 'meta'; readonly key: MetaKey; readonly register: number }
  /** Sets it. */
  | { readonly kind: 'meta-set'; readonly key: MetaKey; readonly register: number }
  /** Loads `length` bytes at `offset` (bytes) of a header. */
  | {
      readonly kind: 'payload'
      readonly base: PayloadBase
      readonly offset: number
      readonly length: number
      readonly register: number
    }
  /** Loads `length` bytes at `offset` (bytes) of the first IPv6 extension header that is `header`, a protocol number. */
  | {
      readonly kind: 'exthdr'
      readonly header: number
      readonly offset: number
      readonly length: number
      readonly register: number
    }
  | { readonly kind: 'cmp'; readonly operator: Operator; readonly data: Uint8Array; readonly register: number }
  /** Holds if the register's value is in the set; inverted, if it is not. */
  | { readonly kind: 'lookup'; readonly set: string; readonly inverted: boolean; readonly register: number }
  /** Loads what the register's value maps to; does not hold if that is nothing. Destination 0: a verdict map's verdict. */
  | { readonly kind: 'map'; readonly map: string; readonly register: number; readonly destination: number }
  | { readonly kind: 'immediate'; readonly data: Uint8Array; readonly register: number }
  | { readonly kind: 'verdict'; readonly verdict: PlainVerdict }
  | { readonly kind: 'verdict'; readonly verdict: 'jump' | 'goto'; readonly chain: string }
  /** destination = (source & mask) ^ xor */
  | {
      readonly kind: 'bitwise'
      readonly mask: Uint8Array
      readonly xor: Uint8Array
      readonly source: number
      readonly destination: number
    }
  | { readonly kind: 'counter'; readonly packets: bigint; readonly bytes: bigint }
  /** Counts in a counter that has a name: {@link NftTransaction.addCounter}. */
  | { readonly kind: 'counter-reference'; readonly counter: string }
  /** Loads what is known about the packet's route. */
  | { readonly kind: 'rt'; readonly key: RtKey; readonly register: number }
  /**
   * Loads a field of one SA: of the path a packet came, or of the one that it will go. `depth` 0 is the outermost in,
   * the innermost out; 0 to 5. Does not hold where there is no such SA.
   */
  | {
      readonly kind: 'xfrm'
      readonly direction: 'in' | 'out'
      readonly key: XfrmKey
      readonly depth: number
      readonly register: number
    }
  /** Gives the packet the source address of the interface that it leaves by. In chains of type nat, at postrouting. */
  | { readonly kind: 'masquerade' }
  /** One that is not among these, or has more to it: its name and attributes (NFTA_EXPR_DATA) as they are. */
  | { readonly kind: 'other'; readonly name: string; readonly attributes: Uint8Array }

export const MetaKeys = {
  length: 0,
  protocol: 1,
  priority: 2,
  mark: 3,
  iif: 4,
  oif: 5,
  iifname: 6,
  oifname: 7,
  iiftype: 8,
  oiftype: 9,
  skuid: 10,
  skgid: 11,
  nfproto: 15,
  l4proto: 16,
  pkttype: 19,
  iifgroup: 21,
  oifgroup: 22,
  secpath: 25,
} as const
export const PayloadBases = { link: 0, network: 1, transport: 2 } as const
export const Operators = { '==': 0, '!=': 1, '<': 2, '<=': 3, '>': 4, '>=': 5 } as const
export const RtKeys = { classid: 0, nexthop4: 1, nexthop6: 2, tcpmss: 3, xfrm: 4 } as const
export const XfrmKeys = { daddr4: 1, daddr6: 2, saddr4: 3, saddr6: 4, reqid: 5, spi: 6 } as const
export const Directions = { in: 0, out: 1 } as const
export const Verdicts = { drop: 0, accept: 1, continue: -1, break: -2, jump: -3, goto: -4, return: -5 } as const

export type MetaKey = keyof typeof MetaKeys
export type PayloadBase = keyof typeof PayloadBases
export type Operator = keyof typeof Operators
export type RtKey = keyof typeof RtKeys
export type XfrmKey = keyof typeof XfrmKeys
export type PlainVerdict = Exclude<keyof typeof Verdicts, 'jump' | 'goto'>
/** What happens to a packet: what an expression decides, and what a verdict map holds. */
export type Verdict = Extract<Expression, { kind: 'verdict' }>
/** The register that a verdict map's verdict goes to (NFT_REG_VERDICT). */
export const VERDICT_REGISTER = 0

export const meta = (key: MetaKey, register = 1): Expression => ({ kind: 'meta', key, register })
export const setMeta = (key: MetaKey, register = 1): Expression => ({ kind: 'meta-set', key, register })
export const payload = (base: PayloadBase, offset: number, length: number, register = 1): Expression => ({
  kind: 'payload',
  base,
  offset,
  length,
  register,
})
export const exthdr = (header: number, offset: number, length: number, register = 1): Expression => ({
  kind: 'exthdr',
  header,
  offset,
  length,
  register,
})
export const cmp = (operator: Operator, data: Uint8Array, register = 1): Expression => ({
  kind: 'cmp',
  operator,
  data,
  register,
})
export const lookup = (set: string, inverted = false, register = 1): Expression => ({
  kind: 'lookup',
  set,
  inverted,
  register,
})
export const map = (name: string, register = 1, destination = register): Expression => ({
  kind: 'map',
  map: name,
  register,
  destination,
})
export const vmap = (name: string, register = 1): Expression => map(name, register, VERDICT_REGISTER)
export const immediate = (data: Uint8Array, register = 1): Expression => ({ kind: 'immediate', data, register })
export const verdict = (name: PlainVerdict): Verdict => ({ kind: 'verdict', verdict: name })
export const jump = (chain: string): Verdict => ({ kind: 'verdict', verdict: 'jump', chain })
export const goto = (chain: string): Verdict => ({ kind: 'verdict', verdict: 'goto', chain })
export const bitwise = (mask: Uint8Array, xor: Uint8Array, source = 1, destination = source): Expression => ({
  kind: 'bitwise',
  mask,
  xor,
  source,
  destination,
})
export const counter = (packets = 0n, bytes = 0n): Expression => ({ kind: 'counter', packets, bytes })
export const counterReference = (name: string): Expression => ({ kind: 'counter-reference', counter: name })
export const masquerade = (): Expression => ({ kind: 'masquerade' })
export const rt = (key: RtKey, register = 1): Expression => ({ kind: 'rt', key, register })
export const xfrm = (direction: 'in' | 'out', key: XfrmKey, depth = 0, register = 1): Expression => ({
  kind: 'xfrm',
  direction,
  key,
  depth,
  register,
})

/** An integer of a packet's bytes, as `cmp` wants it: in network byte order. */
export const u8 = (value: number): Uint8Array => Uint8Array.of(integer(value, 'value', 0, 0xff))
export const u16 = (value: number): Uint8Array => Uint8Array.of(integer(value, 'value', 0, U16) >> 8, value)

/** An integer of the kernel's own, a mark or a reqid, as `cmp` wants it: in host byte order. */
export function hostU32(value: number): Uint8Array {
  const bytes = new Uint8Array(4)
  new DataView(bytes.buffer).setUint32(0, integer(value, 'value', 0, U32), LITTLE_ENDIAN)
  return bytes
}
