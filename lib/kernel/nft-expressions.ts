import { boolean, integer, oneOf, options, U16, U32 } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { Attributes, type AttributeWriter } from './nft-attributes.js'
import { checkedName, nameOf, namesOf } from './nft-names.js'
import { LITTLE_ENDIAN } from './records.js'

/**
 * What a rule is made of: expressions, run in order over one packet. One loads something into a register, the next
 * compares it; the first that does not hold, or whose field the packet does not have, ends the rule without a match.
 *
 * They are plain values, made with the functions here and found again in {@link Rule.expressions}. Registers are as in
 * NFT_REG_*: 1 to 4 hold 16 bytes each, 8 to 23 hold 4 of the same 64. Kernel format: linux/netfilter/nf_tables.h.
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
  | { readonly kind: 'cmp'; readonly operator: Operator; readonly data: Uint8Array; readonly register: number }
  /** Holds if the register's value is in the set; inverted, if it is not. */
  | { readonly kind: 'lookup'; readonly set: string; readonly inverted: boolean; readonly register: number }
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
  /** One that is not among these, or has more to it: its name and attributes (NFTA_EXPR_DATA) as they are. */
  | { readonly kind: 'other'; readonly name: string; readonly attributes: Uint8Array }

const MetaKeys = {
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
const PayloadBases = { link: 0, network: 1, transport: 2 } as const
const Operators = { '==': 0, '!=': 1, '<': 2, '<=': 3, '>': 4, '>=': 5 } as const
const RtKeys = { classid: 0, nexthop4: 1, nexthop6: 2, tcpmss: 3, xfrm: 4 } as const
const XfrmKeys = { daddr4: 1, daddr6: 2, saddr4: 3, saddr6: 4, reqid: 5, spi: 6 } as const
const Directions = { in: 0, out: 1 } as const
const Verdicts = { drop: 0, accept: 1, continue: -1, break: -2, jump: -3, goto: -4, return: -5 } as const

export type MetaKey = keyof typeof MetaKeys
export type PayloadBase = keyof typeof PayloadBases
export type Operator = keyof typeof Operators
export type RtKey = keyof typeof RtKeys
export type XfrmKey = keyof typeof XfrmKeys
export type PlainVerdict = Exclude<keyof typeof Verdicts, 'jump' | 'goto'>

export const meta = (key: MetaKey, register = 1): Expression => ({ kind: 'meta', key, register })
export const setMeta = (key: MetaKey, register = 1): Expression => ({ kind: 'meta-set', key, register })
export const payload = (base: PayloadBase, offset: number, length: number, register = 1): Expression => ({
  kind: 'payload',
  base,
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
export const immediate = (data: Uint8Array, register = 1): Expression => ({ kind: 'immediate', data, register })
export const verdict = (name: PlainVerdict): Expression => ({ kind: 'verdict', verdict: name })
export const jump = (chain: string): Expression => ({ kind: 'verdict', verdict: 'jump', chain })
export const goto = (chain: string): Expression => ({ kind: 'verdict', verdict: 'goto', chain })
export const bitwise = (mask: Uint8Array, xor: Uint8Array, source = 1, destination = source): Expression => ({
  kind: 'bitwise',
  mask,
  xor,
  source,
  destination,
})
export const counter = (packets = 0n, bytes = 0n): Expression => ({ kind: 'counter', packets, bytes })
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

const Expr = { name: 1, data: 2 } as const
const Data = { value: 1, verdict: 2 } as const
const VerdictAttribute = { code: 1, chain: 2 } as const
const Meta = { destination: 1, key: 2, source: 3 } as const
const Payload = { destination: 1, base: 2, offset: 3, length: 4 } as const
const Cmp = { source: 1, operator: 2, data: 3 } as const
const Lookup = { set: 1, source: 2, destination: 3, setId: 4, flags: 5 } as const
const LOOKUP_INVERTED = 1
const Immediate = { destination: 1, data: 2 } as const
const VERDICT_REGISTER = 0
const Bitwise = { source: 1, destination: 2, length: 3, mask: 4, xor: 5, operation: 6 } as const
const BITWISE_MASK_XOR = 0
const Counter = { bytes: 1, packets: 2, pad: 3 } as const
const Rt = { destination: 1, key: 2 } as const
const Xfrm = { destination: 1, key: 2, direction: 3, depth: 4 } as const

/** NFT_REG32_15 */
const LAST_REGISTER = 23
/** All registers together (NFT_DATA_VALUE_MAXLEN). */
const LONGEST_VALUE = 64
/** XFRM_MAX_DEPTH is 6. */
const DEEPEST = 5

const LARGEST_COUNT = 0xffff_ffff_ffff_ffffn

/** What an expression has beside its kind. Only a verdict's chain may be left out, and must be where it has none. */
const Fields: Readonly<Record<Expression['kind'], readonly string[]>> = {
  meta: ['key', 'register'],
  'meta-set': ['key', 'register'],
  payload: ['base', 'offset', 'length', 'register'],
  cmp: ['operator', 'data', 'register'],
  lookup: ['set', 'inverted', 'register'],
  immediate: ['data', 'register'],
  verdict: ['verdict', 'chain'],
  bitwise: ['mask', 'xor', 'source', 'destination'],
  counter: ['packets', 'bytes'],
  rt: ['key', 'register'],
  xfrm: ['direction', 'key', 'depth', 'register'],
  other: ['name', 'attributes'],
}

/** An expression of a kind that there is, with no field that its kind does not have; the fields are not checked. */
function checkedKind(value: unknown, argument: string): Expression {
  if (typeof value !== 'object' || value === null) throw new InvalidArgument(argument, 'an expression', value)
  const kind = oneOf((value as { kind: unknown }).kind, `${argument}.kind`, Object.keys(Fields) as Expression['kind'][])
  return { ...options<Expression>(value, argument, ['kind', ...Fields[kind]] as 'kind'[]), kind } as Expression
}

/** Writes NFTA_EXPR_NAME and NFTA_EXPR_DATA. @throws InvalidArgument, naming the field of `argument` that is wrong */
export function writeExpression(writer: AttributeWriter, value: Expression, argument: string): void {
  const expression = checkedKind(value, argument)
  const data = (name: string, fill: (writer: AttributeWriter) => void) =>
    writer.text(Expr.name, name).nest(Expr.data, fill)
  const register = (value: number, field = 'register') => integer(value, `${argument}.${field}`, 1, LAST_REGISTER)
  const code = <T extends string>(table: Readonly<Record<T, number>>, value: T, field: string) =>
    table[oneOf(value, `${argument}.${field}`, namesOf(table))]
  const putValue = (type: number, bytes: Uint8Array, field: string) =>
    writer.nest(type, (w) => w.bytes(Data.value, checkedValue(bytes, `${argument}.${field}`)))

  switch (expression.kind) {
    case 'meta':
      data('meta', (w) =>
        w.u32(Meta.key, code(MetaKeys, expression.key, 'key')).u32(Meta.destination, register(expression.register)),
      )
      break
    case 'meta-set':
      data('meta', (w) =>
        w.u32(Meta.key, code(MetaKeys, expression.key, 'key')).u32(Meta.source, register(expression.register)),
      )
      break
    case 'payload':
      data('payload', (w) =>
        w
          .u32(Payload.destination, register(expression.register))
          .u32(Payload.base, code(PayloadBases, expression.base, 'base'))
          .u32(Payload.offset, integer(expression.offset, `${argument}.offset`, 0, 255))
          .u32(Payload.length, integer(expression.length, `${argument}.length`, 1, LONGEST_VALUE)),
      )
      break
    case 'cmp':
      data('cmp', (w) => {
        w.u32(Cmp.source, register(expression.register))
        w.u32(Cmp.operator, code(Operators, expression.operator, 'operator'))
        putValue(Cmp.data, expression.data, 'data')
      })
      break
    case 'lookup':
      data('lookup', (w) => {
        w.text(Lookup.set, checkedName(expression.set, `${argument}.set`))
        w.u32(Lookup.source, register(expression.register))
        if (boolean(expression.inverted, `${argument}.inverted`)) w.u32(Lookup.flags, LOOKUP_INVERTED)
      })
      break
    case 'immediate':
      data('immediate', (w) => {
        w.u32(Immediate.destination, register(expression.register))
        putValue(Immediate.data, expression.data, 'data')
      })
      break
    case 'verdict':
      data('immediate', (w) =>
        w.u32(Immediate.destination, VERDICT_REGISTER).nest(Immediate.data, () =>
          w.nest(Data.verdict, () => {
            w.u32(VerdictAttribute.code, code(Verdicts, expression.verdict, 'verdict'))
            if (expression.verdict === 'jump' || expression.verdict === 'goto') {
              w.text(VerdictAttribute.chain, checkedName(expression.chain, `${argument}.chain`))
            } else if ('chain' in expression) {
              throw new InvalidArgument(`${argument}.chain`, 'left out: only a jump and a goto name one')
            }
          }),
        ),
      )
      break
    case 'bitwise': {
      const mask = checkedValue(expression.mask, `${argument}.mask`)
      const xor = checkedValue(expression.xor, `${argument}.xor`)
      if (mask.length !== xor.length) {
        throw new InvalidArgument(`${argument}.xor`, `as long as the mask, ${mask.length} bytes`, xor)
      }
      data('bitwise', (w) => {
        w.u32(Bitwise.source, register(expression.source, 'source'))
          .u32(Bitwise.destination, register(expression.destination, 'destination'))
          .u32(Bitwise.length, mask.length)
        putValue(Bitwise.mask, mask, 'mask')
        putValue(Bitwise.xor, xor, 'xor')
      })
      break
    }
    case 'counter':
      data('counter', (w) => {
        const packets = checkedCount(expression.packets, `${argument}.packets`)
        const bytes = checkedCount(expression.bytes, `${argument}.bytes`)
        if (packets !== 0n || bytes !== 0n) w.u64(Counter.bytes, bytes).u64(Counter.packets, packets)
      })
      break
    case 'rt':
      data('rt', (w) =>
        w.u32(Rt.destination, register(expression.register)).u32(Rt.key, code(RtKeys, expression.key, 'key')),
      )
      break
    case 'xfrm':
      data('xfrm', (w) =>
        w
          .u32(Xfrm.destination, register(expression.register))
          .u32(Xfrm.key, code(XfrmKeys, expression.key, 'key'))
          .u8(Xfrm.direction, code(Directions, expression.direction, 'direction'))
          .u32(Xfrm.depth, integer(expression.depth, `${argument}.depth`, 0, DEEPEST)),
      )
      break
    case 'other':
      if (!((expression.attributes as unknown) instanceof Uint8Array)) {
        throw new InvalidArgument(`${argument}.attributes`, 'a Uint8Array', expression.attributes)
      }
      writer.text(Expr.name, checkedName(expression.name, `${argument}.name`)).nested(Expr.data, expression.attributes)
      break
  }
}

function checkedCount(value: unknown, argument: string): bigint {
  if (typeof value === 'bigint' && value >= 0n && value <= LARGEST_COUNT) return value
  throw new InvalidArgument(argument, 'a bigint from 0 to 2^64 - 1', value)
}

function checkedValue(value: unknown, argument: string): Uint8Array {
  if (value instanceof Uint8Array && value.length > 0 && value.length <= LONGEST_VALUE) return value
  throw new InvalidArgument(argument, `1 to ${LONGEST_VALUE} bytes`, value)
}

/**
 * Reads NFTA_EXPR_NAME and NFTA_EXPR_DATA. Nothing is passed over: an expression with an attribute or a value that has no
 * place in ours is an `other`, so that two that read the same are the same.
 */
export function readExpression(bytes: Uint8Array): Expression {
  const attributes = new Attributes(bytes)
  const name = attributes.text(Expr.name)
  // Some have nothing to say, and then no data.
  const data = attributes.has(Expr.data) ? attributes.bytes(Expr.data) : new Uint8Array()
  return readers.get(name)?.(new Attributes(data)) ?? { kind: 'other', name, attributes: data.slice() }
}

const readers = new Map<string, (data: Attributes) => Expression | undefined>([
  [
    'meta',
    (data) => {
      const key = nameOf(MetaKeys, data.u32(Meta.key))
      if (key === undefined) return undefined
      if (data.has(Meta.destination) && data.only(Meta.key, Meta.destination))
        return meta(key, data.u32(Meta.destination))
      if (data.has(Meta.source) && data.only(Meta.key, Meta.source)) return setMeta(key, data.u32(Meta.source))
      return undefined
    },
  ],
  [
    'payload',
    (data) => {
      if (!data.has(Payload.destination) || !data.only(...Object.values(Payload))) return undefined
      const base = nameOf(PayloadBases, data.u32(Payload.base))
      if (base === undefined) return undefined
      return payload(base, data.u32(Payload.offset), data.u32(Payload.length), data.u32(Payload.destination))
    },
  ],
  [
    'cmp',
    (data) => {
      const operator = nameOf(Operators, data.u32(Cmp.operator))
      const value = readValue(data, Cmp.data)
      if (operator === undefined || value === undefined || !data.only(...Object.values(Cmp))) return undefined
      return cmp(operator, value, data.u32(Cmp.source))
    },
  ],
  [
    'lookup',
    (data) => {
      if (!data.only(Lookup.set, Lookup.source, Lookup.setId, Lookup.flags)) return undefined
      const flags = data.has(Lookup.flags) ? data.u32(Lookup.flags) : 0
      if ((flags & ~LOOKUP_INVERTED) !== 0) return undefined
      return lookup(data.text(Lookup.set), flags === LOOKUP_INVERTED, data.u32(Lookup.source))
    },
  ],
  [
    'immediate',
    (data) => {
      if (!data.only(...Object.values(Immediate))) return undefined
      const register = data.u32(Immediate.destination)
      if (register === VERDICT_REGISTER) return readVerdict(data.nest(Immediate.data))
      const value = readValue(data, Immediate.data)
      return value && immediate(value, register)
    },
  ],
  [
    'bitwise',
    (data) => {
      if (!data.only(...Object.values(Bitwise))) return undefined
      if (data.has(Bitwise.operation) && data.u32(Bitwise.operation) !== BITWISE_MASK_XOR) return undefined
      const mask = readValue(data, Bitwise.mask)
      const xor = readValue(data, Bitwise.xor)
      if (mask?.length !== data.u32(Bitwise.length) || xor === undefined) return undefined
      return bitwise(mask, xor, data.u32(Bitwise.source), data.u32(Bitwise.destination))
    },
  ],
  [
    'counter',
    (data) => {
      if (!data.only(...Object.values(Counter))) return undefined
      const value = (type: number) => (data.has(type) ? data.u64(type) : 0n)
      return counter(value(Counter.packets), value(Counter.bytes))
    },
  ],
  [
    'rt',
    (data) => {
      const key = nameOf(RtKeys, data.u32(Rt.key))
      return key && data.only(...Object.values(Rt)) ? rt(key, data.u32(Rt.destination)) : undefined
    },
  ],
  [
    'xfrm',
    (data) => {
      const direction = nameOf(Directions, data.u8(Xfrm.direction))
      const key = nameOf(XfrmKeys, data.u32(Xfrm.key))
      if (direction === undefined || key === undefined || !data.only(...Object.values(Xfrm))) return undefined
      return xfrm(direction, key, data.has(Xfrm.depth) ? data.u32(Xfrm.depth) : 0, data.u32(Xfrm.destination))
    },
  ],
])

function readVerdict(data: Attributes): Expression | undefined {
  if (!data.only(Data.verdict)) return undefined
  const attributes = data.nest(Data.verdict)
  const name = nameOf(Verdicts, attributes.i32(VerdictAttribute.code))
  if (name === undefined) return undefined
  if (name !== 'jump' && name !== 'goto') return attributes.only(VerdictAttribute.code) ? verdict(name) : undefined
  if (!attributes.has(VerdictAttribute.chain)) return undefined
  return { kind: 'verdict', verdict: name, chain: attributes.text(VerdictAttribute.chain) }
}

/** A copy: the buffer that the kernel's answer came in is not kept for it. */
function readValue(data: Attributes, type: number): Uint8Array | undefined {
  const value = data.nest(type)
  return value.only(Data.value) ? value.bytes(Data.value).slice() : undefined
}
