import { AF_INET, AF_INET6, parseAddress, whyNot, type Family } from '../base/address.js'
import { array, boolean, integer, options, U16, U32 } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { LITTLE_ENDIAN, Policy, Tail, type RecordWriter } from './records.js'
import {
  codeOf,
  encapTypes,
  IPPROTO_ESP,
  ipProtocols,
  MODE_TRANSPORT,
  modes,
  templateProtocols,
  XFRMA,
} from './xfrm-names.js'
import type { EncapOptions, LimitOptions, Mark, Port, SelectorOptions, TemplateOptions } from './xfrm-types.js'

/**
 * What states and policies are made of, checked and written into the record begun last. Buffers are reused: nothing here
 * runs twice at a time, and no object is made for what is written a hundred thousand times.
 */

/**
 * An object with no property but the known ones; quick, for a misspelled one is rare. It is the caller's own: take each
 * property out of it once, or what is written may be another value than the one that was checked. @throws InvalidArgument
 */
export function known<T extends object>(value: unknown, argument: string, names: ReadonlySet<keyof T & string>): T {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    let strange = false
    for (const name in value) if (!(names as ReadonlySet<string>).has(name)) strange = true
    if (!strange) return value as T
  }
  return options<T>(value, argument, [...names])
}

const address = new Uint8Array(16)
const addressWords = new Uint32Array(address.buffer)

/** Writes an address into the record. @throws InvalidArgument naming `parent.name`: paths are joined only if need be */
export function putAddress(into: RecordWriter, offset: number, value: unknown, parent: string, name: string): Family {
  const family = parse(value, parent, name, address, 0)
  into.address(offset, addressWords, 0)
  return family
}

function parse(value: unknown, parent: string, name: string, into: Uint8Array, offset: number): Family {
  const family = typeof value === 'string' ? parseAddress(value, into, offset) : 0
  if (family === 0) throw new InvalidArgument(`${parent}.${name}`, whyNot(value), value)
  return family
}

function word(value: unknown, parent: string, name: string, min: number, max: number): number {
  const fits = typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max
  return fits ? value : integer(value, `${parent}.${name}`, min, max)
}

/** @throws InvalidArgument where a source and a destination are of two families; `name` is the one to blame */
export function sameFamily(a: number, b: number, parent: string, name: 'source' | 'destination'): void {
  if (a === b) return
  const other = name === 'source' ? 'destination' : 'source'
  throw new InvalidArgument(
    `${parent}.${name}`,
    `an ${a === AF_INET ? 'IPv4' : 'IPv6'} address, as ${parent}.${other} is`,
  )
}

/** The longest prefix of a family. */
function hostPrefix(family: Family): number {
  return family === AF_INET ? 32 : 128
}

/** An address with a prefix length as one number: the length in the upper bits, the family in the lower eight. */
function parsePrefix(value: unknown, parent: string, name: string, into: Uint8Array, offset: number): number {
  const slash = typeof value === 'string' ? value.indexOf('/') : -1
  if (slash < 0) {
    const family = parse(value, parent, name, into, offset)
    return (hostPrefix(family) << 8) | family
  }
  const text = value as string
  const family = parseAddress(text, into, offset, slash)
  // Of an IPv4-mapped prefix the first 96 bits are the mapping.
  const mapped = family === AF_INET && text.includes(':') ? 96 : 0
  const length = digits(text, slash + 1) - mapped
  if (family === 0 || length < 0 || length > hostPrefix(family)) {
    const expected = "an address with a prefix length, as in '10.0.0.0/8' or '2001:db8::/32'"
    throw new InvalidArgument(`${parent}.${name}`, expected, value)
  }
  return (length << 8) | family
}

/** The number of one to three digits that ends a text, or -1. */
function digits(text: string, from: number): number {
  if (from === text.length || text.length > from + 3) return -1
  let number = 0
  for (let i = from; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 0x30
    if (digit < 0 || digit > 9) return -1
    number = number * 10 + digit
  }
  return number
}

const PORT = new Set<keyof Port>(['value', 'mask'])

/** A port and its mask as one number: the port in the upper sixteen bits. */
function parsePort(value: unknown, parent: string, name: string): number {
  if (value === undefined) return 0
  if (typeof value === 'number') return word(value, parent, name, 0, U16) * 0x10000 + U16
  const argument = `${parent}.${name}`
  const { value: port, mask } = known<Port>(value, argument, PORT)
  return integer(port, `${argument}.value`, 0, U16) * 0x10000 + integer(mask, `${argument}.mask`, 0, U16)
}

const SELECTOR = new Set<keyof SelectorOptions>([
  'source',
  'destination',
  'protocol',
  'sourcePort',
  'destinationPort',
  'interfaceIndex',
])

function parseProtocol(value: unknown, parent: string): number {
  if (value === undefined) return 0
  if (typeof value === 'number') return word(value, parent, 'protocol', 1, 255)
  return ipProtocols.codes.get(value as string) ?? codeOf(value, `${parent}.protocol`, ipProtocols)
}

/** The head's part of a policy that is its selector. */
export function putSelector(into: RecordWriter, value: unknown, argument: string): Family {
  const selector = known<SelectorOptions>(value, argument, SELECTOR)
  const { source, destination, protocol, interfaceIndex } = selector
  if (source === undefined && destination === undefined) {
    throw new InvalidArgument(argument, "given a source or a destination ('0.0.0.0/0' or '::/0' for any)")
  }
  let family = 0
  if (source !== undefined) {
    const prefix = parsePrefix(source, argument, 'source', address, 0)
    into.address(Policy.source, addressWords, 0)
    into.u8(Policy.sourcePrefix, prefix >> 8)
    family = prefix & 0xff
  }
  if (destination !== undefined) {
    const prefix = parsePrefix(destination, argument, 'destination', address, 0)
    into.address(Policy.destination, addressWords, 0)
    into.u8(Policy.destinationPrefix, prefix >> 8)
    if (family !== 0) sameFamily(family, prefix & 0xff, argument, 'destination')
    family = prefix & 0xff
  }
  into.u8(Policy.family, family)
  into.u8(Policy.protocol, parseProtocol(protocol, argument))
  const sourcePort = parsePort(selector.sourcePort, argument, 'sourcePort')
  into.u16(Policy.sourcePort, sourcePort / 0x10000)
  into.u16(Policy.sourcePortMask, sourcePort & U16)
  const destinationPort = parsePort(selector.destinationPort, argument, 'destinationPort')
  into.u16(Policy.destinationPort, destinationPort / 0x10000)
  into.u16(Policy.destinationPortMask, destinationPort & U16)
  if (interfaceIndex !== undefined) {
    into.u32(Policy.interfaceIndex, word(interfaceIndex, argument, 'interfaceIndex', 1, 0x7fffffff))
  }
  return family as Family
}

/** struct xfrm_selector. Ports are in network order, the rest in the host's. */
export const SelectorLayout = {
  destination: 0,
  source: 16,
  destinationPort: 32,
  destinationPortMask: 34,
  sourcePort: 36,
  sourcePortMask: 38,
  family: 40,
  destinationPrefix: 42,
  sourcePrefix: 43,
  protocol: 44,
  interfaceIndex: 48,
  user: 52,
  bytes: 56,
} as const

/** A state's selector. Its addresses may be of another family than the state's (in a tunnel); without any it is of `family`. */
export function putStateSelector(into: RecordWriter, value: unknown, argument: string, family: Family | 0): void {
  const selector = known<SelectorOptions>(value, argument, SELECTOR)
  const bytes = new Uint8Array(SelectorLayout.bytes)
  const view = new DataView(bytes.buffer)
  let inner = 0
  for (const side of ['source', 'destination'] as const) {
    const text = selector[side]
    if (text === undefined) continue
    const prefix = parsePrefix(text, argument, side, bytes, SelectorLayout[side])
    bytes[SelectorLayout[`${side}Prefix`]] = prefix >> 8
    if (inner !== 0) sameFamily(inner, prefix & 0xff, argument, side)
    inner = prefix & 0xff
  }
  view.setUint16(SelectorLayout.family, inner === 0 ? family : inner, LITTLE_ENDIAN)
  for (const side of ['sourcePort', 'destinationPort'] as const) {
    const port = parsePort(selector[side], argument, side)
    view.setUint16(SelectorLayout[side], port / 0x10000)
    view.setUint16(SelectorLayout[`${side}Mask`], port & U16)
  }
  bytes[SelectorLayout.protocol] = parseProtocol(selector.protocol, argument)
  const { interfaceIndex } = selector
  if (interfaceIndex !== undefined) {
    const index = word(interfaceIndex, argument, 'interfaceIndex', 1, 0x7fffffff)
    view.setUint32(SelectorLayout.interfaceIndex, index, LITTLE_ENDIAN)
  }
  into.attribute(Tail.selector, bytes)
}

const MARK = new Set<keyof Mark>(['value', 'mask'])
const pair = new Uint32Array(2)
const pairBytes = new Uint8Array(pair.buffer)
const first = pairBytes.subarray(0, 4)

/** Leaves value and mask in `pair`. */
function parseMark(value: unknown, argument: string): void {
  if (typeof value === 'number') {
    pair[0] = integer(value, argument, 0, U32)
    pair[1] = U32
    return
  }
  const { value: bits, mask } = known<Mark>(value, argument, MARK)
  pair[0] = word(bits, argument, 'value', 0, U32)
  pair[1] = word(mask, argument, 'mask', 0, U32)
  if ((bits & ~mask) !== 0) {
    throw new InvalidArgument(`${argument}.value`, 'within the mask: bits outside of it can match nothing', bits)
  }
}

/** struct xfrm_mark; absent and 0/0 are the same. */
export function putMark(into: RecordWriter, value: unknown, argument: string): void {
  if (value === undefined) return
  parseMark(value, argument)
  if (pair[1] !== 0) into.attribute(XFRMA.MARK, pairBytes)
}

/** The mark given to packets; its mask, where not all ones, is an attribute of its own. Returns whether there is one. */
export function putOutputMark(into: RecordWriter, value: unknown, argument: string): boolean {
  if (value === undefined) return false
  parseMark(value, argument)
  const mask = pair[1]!
  if (mask === 0) return false
  into.attribute(XFRMA.SET_MARK, first)
  if (mask === U32) return true
  pair[0] = mask
  into.attribute(XFRMA.SET_MARK_MASK, first)
  return true
}

export function putWord(into: RecordWriter, type: number, value: number): void {
  pair[0] = value
  into.attribute(type, first)
}

const ENCAP = new Set<keyof EncapOptions>(['type', 'sourcePort', 'destinationPort'])
const encap = new Uint8Array(24)
const encapView = new DataView(encap.buffer)

/** struct xfrm_encap_tmpl; its original address is for the checksums of a NAT's other side and unused in the kernel. */
export function putEncap(into: RecordWriter, value: unknown, argument: string): void {
  const { type, sourcePort, destinationPort } = known<EncapOptions>(value, argument, ENCAP)
  encapView.setUint16(0, codeOf(type, `${argument}.type`, encapTypes), LITTLE_ENDIAN)
  encapView.setUint16(2, integer(sourcePort, `${argument}.sourcePort`, 1, U16))
  encapView.setUint16(4, integer(destinationPort, `${argument}.destinationPort`, 1, U16))
  into.attribute(XFRMA.ENCAP, encap)
}

/** The limits in the order of struct xfrm_lifetime_cfg: counts first, for which all ones is no limit, then times: 0. */
export const limitNames = [
  'byteSoft',
  'byteHard',
  'packetSoft',
  'packetHard',
  'timeSoft',
  'timeHard',
  'timeUseSoft',
  'timeUseHard',
] as const
export const LIMIT_COUNTS = 4
/** XFRM_INF */
export const UNLIMITED = 0xffff_ffff_ffff_ffffn
/**
 * The kernel adds a time to the present one in 64 bits with a sign: one near their end would be over at once, and a policy
 * that is gone lets its packets through as they are.
 */
const LONGEST = BigInt(Number.MAX_SAFE_INTEGER)
const LIMITS = new Set<keyof LimitOptions>(limitNames)

export function putLimits(into: RecordWriter, value: unknown, argument: string): void {
  if (value === undefined) return
  const limits = known<LimitOptions>(value, argument, LIMITS)
  const words = new BigUint64Array(limitNames.length)
  let any = false
  for (const [i, name] of limitNames.entries()) {
    words[i] = i < LIMIT_COUNTS ? UNLIMITED : 0n
    const value = limits[name]
    if (value === undefined) continue
    words[i] = limit(value, `${argument}.${name}`, i < LIMIT_COUNTS ? UNLIMITED - 1n : LONGEST)
    any = true
  }
  if (any) into.attribute(Tail.lifetime, new Uint8Array(words.buffer))
}

function limit(value: unknown, argument: string, most: bigint): bigint {
  if (typeof value === 'number') return BigInt(integer(value, argument, 1, Number.MAX_SAFE_INTEGER))
  if (typeof value === 'bigint' && value >= 1n && value <= most) return value
  const range = most === LONGEST ? '1 to 2^53 - 1' : '1 to 2^64 - 2 (a bigint from 2^53 up)'
  throw new InvalidArgument(argument, `an integer from ${range}`, value)
}

/** struct xfrm_user_tmpl. The SPI is in network order. */
export const TemplateLayout = {
  destination: 0,
  spi: 16,
  protocol: 20,
  family: 24,
  source: 28,
  reqid: 44,
  mode: 48,
  share: 49,
  optional: 50,
  authMask: 52,
  encryptionMask: 56,
  compressionMask: 60,
  bytes: 64,
} as const
/** XFRM_MAX_DEPTH */
const MOST_TEMPLATES = 6
const TEMPLATE = new Set<keyof TemplateOptions>([
  'source',
  'destination',
  'spi',
  'protocol',
  'mode',
  'reqid',
  'optional',
])

const templates = new Uint8Array(MOST_TEMPLATES * TemplateLayout.bytes)
const templatesView = new DataView(templates.buffer)
const templatesWords = new Uint32Array(templates.buffer)
const TEMPLATE_WORDS = TemplateLayout.bytes / 4
/** Any algorithm: from here on the bit sets are all ones. */
const FIRST_MASK_WORD = TemplateLayout.authMask / 4
const templatePaths = Array.from({ length: MOST_TEMPLATES }, (_, i) => `policy.templates[${i}]`)
const firstTemplates = Array.from({ length: MOST_TEMPLATES + 1 }, (_, n) =>
  templates.subarray(0, n * TemplateLayout.bytes),
)

/** The templates of a policy whose selector is of `family`. */
export function putTemplates(into: RecordWriter, value: unknown, family: Family): void {
  const list = array(value, 'policy.templates')
  const { length } = list
  if (length > MOST_TEMPLATES) {
    throw new InvalidArgument('policy.templates', `an array of at most ${MOST_TEMPLATES} templates`, value)
  }
  let inner = family
  for (let i = 0; i < length; i++) inner = fillTemplate(i, list[i], inner)
  if (length > 0) into.attribute(XFRMA.TMPL, firstTemplates[length]!)
}

/** Returns the family of the packet as this template leaves it. */
function fillTemplate(index: number, value: unknown, inner: Family): Family {
  const argument = templatePaths[index]!
  const template = known<TemplateOptions>(value, argument, TEMPLATE)
  const at = index * TemplateLayout.bytes
  // A loop: for so few words fill() takes longer than the rest of this.
  for (let i = 0; i < TEMPLATE_WORDS; i++) templatesWords[at / 4 + i] = i < FIRST_MASK_WORD ? 0 : U32
  const { source, destination, spi, protocol, mode, reqid, optional } = template
  let family: Family | 0 = 0
  if (source !== undefined) family = parse(source, argument, 'source', templates, at + TemplateLayout.source)
  if (destination !== undefined) {
    const other = parse(destination, argument, 'destination', templates, at + TemplateLayout.destination)
    if (family !== 0) sameFamily(family, other, argument, 'destination')
    family = other
  }
  if (family === 0) family = inner
  const code = mode === undefined ? MODE_TRANSPORT : (modes.codes.get(mode) ?? codeOf(mode, `${argument}.mode`, modes))
  if (code === MODE_TRANSPORT && family !== inner) {
    throw new InvalidArgument(
      argument,
      `of the packet's own family (${inner === AF_INET6 ? 'IPv6' : 'IPv4'}) in transport mode`,
    )
  }
  if (spi !== undefined) templatesView.setUint32(at + TemplateLayout.spi, word(spi, argument, 'spi', 0, U32))
  templates[at + TemplateLayout.protocol] =
    protocol === undefined
      ? IPPROTO_ESP
      : (templateProtocols.codes.get(protocol) ?? codeOf(protocol, `${argument}.protocol`, templateProtocols))
  templatesView.setUint16(at + TemplateLayout.family, family, LITTLE_ENDIAN)
  if (reqid !== undefined) {
    templatesView.setUint32(at + TemplateLayout.reqid, word(reqid, argument, 'reqid', 0, U32), LITTLE_ENDIAN)
  }
  templates[at + TemplateLayout.mode] = code
  if (optional !== undefined) {
    templates[at + TemplateLayout.optional] = boolean(optional, `${argument}.optional`) ? 1 : 0
  }
  return family
}
