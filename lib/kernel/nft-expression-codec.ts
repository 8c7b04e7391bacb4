import { boolean, integer, oneOf, options } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { Attributes, type AttributeWriter } from './netlink-attributes.js'
import {
  bitwise,
  cmp,
  counter,
  counterReference,
  Directions,
  exthdr,
  goto,
  immediate,
  jump,
  lookup,
  map,
  masquerade,
  meta,
  MetaKeys,
  Operators,
  payload,
  PayloadBases,
  rt,
  RtKeys,
  setMeta,
  verdict,
  VERDICT_REGISTER,
  Verdicts,
  xfrm,
  XfrmKeys,
  type Expression,
  type Verdict,
} from './nft-expressions.js'
import { Hole, HoleWriter } from './nft-holes.js'
import {
  checkedName,
  CounterAttribute,
  DataAttribute,
  ExpressionAttribute,
  nameOf,
  namesOf,
  OBJECT_COUNTER,
  VerdictAttribute,
} from './nft-names.js'

/** How the kernel has expressions: NFTA_EXPR_NAME and NFTA_EXPR_DATA, and what is in the latter for each. */

const Meta = { destination: 1, key: 2, source: 3 } as const
const Payload = { destination: 1, base: 2, offset: 3, length: 4 } as const
const ExtHdr = { destination: 1, header: 2, offset: 3, length: 4, flags: 5, operation: 6 } as const
const EXTHDR_IPV6 = 0
const Cmp = { source: 1, operator: 2, data: 3 } as const
const Lookup = { set: 1, source: 2, destination: 3, setId: 4, flags: 5 } as const
const LOOKUP_INVERTED = 1
const Immediate = { destination: 1, data: 2 } as const
const Bitwise = { source: 1, destination: 2, length: 3, mask: 4, xor: 5, operation: 6 } as const
const BITWISE_MASK_XOR = 0
const Objref = { type: 1, name: 2 } as const
const Rt = { destination: 1, key: 2 } as const
const Xfrm = { destination: 1, key: 2, direction: 3, depth: 4 } as const

/** NFT_REG32_15 */
const LAST_REGISTER = 23
/** All registers together (NFT_DATA_VALUE_MAXLEN). */
const LONGEST_VALUE = 64
/** XFRM_MAX_DEPTH is 6. */
const DEEPEST = 5

const LARGEST_COUNT = 0xffff_ffff_ffff_ffffn

const verdictNames = namesOf(Verdicts)

/** What an expression has beside its kind. Only a verdict's chain may be left out, and must be where it has none. */
const Fields: Readonly<Record<Expression['kind'], readonly string[]>> = {
  meta: ['key', 'register'],
  'meta-set': ['key', 'register'],
  payload: ['base', 'offset', 'length', 'register'],
  exthdr: ['header', 'offset', 'length', 'register'],
  cmp: ['operator', 'data', 'register'],
  lookup: ['set', 'inverted', 'register'],
  map: ['map', 'register', 'destination'],
  immediate: ['data', 'register'],
  verdict: ['verdict', 'chain'],
  bitwise: ['mask', 'xor', 'source', 'destination'],
  counter: ['packets', 'bytes'],
  'counter-reference': ['counter'],
  rt: ['key', 'register'],
  xfrm: ['direction', 'key', 'depth', 'register'],
  masquerade: [],
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
    writer.text(ExpressionAttribute.name, name).nest(ExpressionAttribute.data, fill)
  const register = (value: number, field = 'register') => integer(value, `${argument}.${field}`, 1, LAST_REGISTER)
  const code = <T extends string>(table: Readonly<Record<T, number>>, value: T, field: string) =>
    table[oneOf(value, `${argument}.${field}`, namesOf(table))]
  const checkedData = (bytes: unknown, field: string) => {
    const checked = checkedValue(bytes, `${argument}.${field}`)
    if (!(checked instanceof Hole) || writer instanceof HoleWriter) return checked
    throw new InvalidArgument(`${argument}.${field}`, 'a value: holes are for a RuleTemplate')
  }
  const putValue = (type: number, bytes: Uint8Array, field: string) =>
    writer.nest(type, (w) => w.bytes(DataAttribute.value, checkedData(bytes, field)))

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
    case 'exthdr':
      data('exthdr', (w) =>
        w
          .u32(ExtHdr.destination, register(expression.register))
          .u8(ExtHdr.header, integer(expression.header, `${argument}.header`, 0, 255))
          .u32(ExtHdr.offset, integer(expression.offset, `${argument}.offset`, 0, 255))
          .u32(ExtHdr.length, integer(expression.length, `${argument}.length`, 1, LONGEST_VALUE))
          .u32(ExtHdr.flags, 0)
          .u32(ExtHdr.operation, EXTHDR_IPV6),
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
    case 'map':
      data('lookup', (w) =>
        w
          .text(Lookup.set, checkedName(expression.map, `${argument}.map`))
          .u32(Lookup.source, register(expression.register))
          .u32(
            Lookup.destination,
            integer(expression.destination, `${argument}.destination`, VERDICT_REGISTER, LAST_REGISTER),
          ),
      )
      break
    case 'immediate':
      data('immediate', (w) => {
        w.u32(Immediate.destination, register(expression.register))
        putValue(Immediate.data, expression.data, 'data')
      })
      break
    case 'verdict':
      data('immediate', (w) =>
        w
          .u32(Immediate.destination, VERDICT_REGISTER)
          .nest(Immediate.data, () => writeVerdict(w, expression, argument)),
      )
      break
    case 'bitwise': {
      const mask = checkedData(expression.mask, 'mask')
      const xor = checkedData(expression.xor, 'xor')
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
        if (packets !== 0n || bytes !== 0n) w.u64(CounterAttribute.bytes, bytes).u64(CounterAttribute.packets, packets)
      })
      break
    case 'counter-reference':
      data('objref', (w) =>
        w
          .u32(Objref.type, OBJECT_COUNTER)
          // As nft does: without a NUL.
          .bytes(Objref.name, Buffer.from(checkedName(expression.counter, `${argument}.counter`))),
      )
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
    case 'masquerade':
      writer.text(ExpressionAttribute.name, 'masq').nest(ExpressionAttribute.data, () => undefined)
      break
    case 'other':
      if (!((expression.attributes as unknown) instanceof Uint8Array)) {
        throw new InvalidArgument(`${argument}.attributes`, 'a Uint8Array', expression.attributes)
      }
      writer
        .text(ExpressionAttribute.name, checkedName(expression.name, `${argument}.name`))
        .nested(ExpressionAttribute.data, expression.attributes)
      break
  }
}

/** Writes NFTA_DATA_VERDICT: of an immediate, and of a verdict map's element. @throws InvalidArgument */
export function writeVerdict(writer: AttributeWriter, value: Verdict, argument: string): void {
  const { verdict: given, chain } = value as { verdict: unknown; chain?: unknown }
  const name = oneOf(given, `${argument}.verdict`, verdictNames)
  const nest = writer.open(DataAttribute.verdict)
  writer.u32(VerdictAttribute.code, Verdicts[name])
  if (name === 'jump' || name === 'goto') {
    writer.text(VerdictAttribute.chain, checkedName(chain, `${argument}.chain`))
  } else if (chain !== undefined) {
    throw new InvalidArgument(`${argument}.chain`, 'left out: only a jump and a goto name one')
  }
  writer.close(nest)
}

/** @throws InvalidArgument */
export function checkedCount(value: unknown, argument: string): bigint {
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
  const name = attributes.text(ExpressionAttribute.name)
  // Some have nothing to say, and then no data.
  const data = attributes.has(ExpressionAttribute.data) ? attributes.bytes(ExpressionAttribute.data) : new Uint8Array()
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
    'exthdr',
    (data) => {
      if (!data.has(ExtHdr.destination) || !data.only(...Object.values(ExtHdr))) return undefined
      const isDefault = (type: number, value: number) => !data.has(type) || data.u32(type) === value
      if (!isDefault(ExtHdr.flags, 0) || !isDefault(ExtHdr.operation, EXTHDR_IPV6)) return undefined
      const [offset, length] = [data.u32(ExtHdr.offset), data.u32(ExtHdr.length)]
      return exthdr(data.u8(ExtHdr.header), offset, length, data.u32(ExtHdr.destination))
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
      if (!data.only(...Object.values(Lookup))) return undefined
      const flags = data.has(Lookup.flags) ? data.u32(Lookup.flags) : 0
      if ((flags & ~LOOKUP_INVERTED) !== 0) return undefined
      const [set, register] = [data.text(Lookup.set), data.u32(Lookup.source)]
      if (!data.has(Lookup.destination)) return lookup(set, flags === LOOKUP_INVERTED, register)
      return flags === 0 ? map(set, register, data.u32(Lookup.destination)) : undefined
    },
  ],
  [
    'immediate',
    (data) => {
      if (!data.only(...Object.values(Immediate))) return undefined
      const register = data.u32(Immediate.destination)
      if (register === VERDICT_REGISTER) return readVerdict(data.nest(Immediate.data))
      const loaded = readValue(data, Immediate.data)
      return loaded && immediate(loaded, register)
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
      if (!data.only(...Object.values(CounterAttribute))) return undefined
      const value = (type: number) => (data.has(type) ? data.u64(type) : 0n)
      return counter(value(CounterAttribute.packets), value(CounterAttribute.bytes))
    },
  ],
  [
    'objref',
    (data) => {
      if (!data.only(Objref.type, Objref.name) || data.u32(Objref.type) !== OBJECT_COUNTER) return undefined
      return counterReference(data.text(Objref.name))
    },
  ],
  ['masq', (data) => (data.only() ? masquerade() : undefined)],
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

/** A verdict, as {@link writeVerdict} writes it; undefined if it is none that we know. */
export function readVerdict(data: Attributes): Verdict | undefined {
  if (!data.only(DataAttribute.verdict)) return undefined
  const attributes = data.nest(DataAttribute.verdict)
  const name = nameOf(Verdicts, attributes.i32(VerdictAttribute.code))
  if (name === undefined) return undefined
  if (name !== 'jump' && name !== 'goto') return attributes.only(VerdictAttribute.code) ? verdict(name) : undefined
  if (!attributes.has(VerdictAttribute.chain)) return undefined
  const chain = attributes.text(VerdictAttribute.chain)
  return name === 'jump' ? jump(chain) : goto(chain)
}

/** A copy: the buffer that the kernel's answer came in is not kept for it. */
function readValue(data: Attributes, type: number): Uint8Array | undefined {
  const value = data.nest(type)
  return value.only(DataAttribute.value) ? value.bytes(DataAttribute.value).slice() : undefined
}
