import { AF_INET, AF_INET6, formatAddress, unusable, type Family } from '../base/address.js'
import { malformed } from './attributes.js'
import type { AttributeWriter, Attributes } from './netlink-attributes.js'

/** What is special to VXLAN links: attributes IFLA_VXLAN_* (linux/if_link.h). Ports and the flow label are in network byte order. */

export const VXLAN = 'vxlan'

const Attribute = {
  vni: 1,
  group: 2,
  device: 3,
  local: 4,
  ttl: 5,
  tos: 6,
  learning: 7,
  ageing: 8,
  limit: 9,
  sourcePorts: 10,
  proxy: 11,
  rsc: 12,
  l2miss: 13,
  l3miss: 14,
  port: 15,
  group6: 16,
  local6: 17,
  udpChecksum: 18,
  udpZeroChecksum6Tx: 19,
  udpZeroChecksum6Rx: 20,
  remoteChecksumTx: 21,
  remoteChecksumRx: 22,
  gbp: 23,
  remoteChecksumNoPartial: 24,
  external: 25,
  flowLabel: 26,
  gpe: 27,
  ttlInherit: 28,
  dontFragment: 29,
  vniFilter: 30,
  localBypass: 31,
  flowLabelPolicy: 32,
  reservedBits: 33,
  multicastRoute: 34,
} as const

/** Bytes that VXLAN puts before a packet: its own header and UDP's, the inner Ethernet header, the outer IP header. */
export function vxlanOverhead(family: Family): number {
  return 8 + 8 + 14 + (family === AF_INET ? 20 : 40)
}

/** What a link is to be made with. What is left out is the kernel's choice. */
export interface VxlanSettings {
  readonly vni: number
  readonly port: number
  readonly family: Family
  /** 16 bytes, here and below: as `xfrm_address_t` has it. */
  readonly local: Uint8Array | undefined
  /** Where what is for no known MAC goes: a host or a multicast group. */
  readonly destination: Uint8Array | undefined
  /** Index of the device, in the namespace of the socket. */
  readonly deviceIndex: number | undefined
  readonly ttl: number | undefined
  readonly tos: number | undefined
  readonly learning: boolean | undefined
  readonly proxy: boolean | undefined
  readonly l2miss: boolean | undefined
  readonly l3miss: boolean | undefined
  readonly udpChecksum: boolean
}

/** Writes IFLA_INFO_DATA. */
export function writeVxlan(writer: AttributeWriter, settings: VxlanSettings): void {
  const { family, local, destination, udpChecksum } = settings
  writer.u32(Attribute.vni, settings.vni)
  writer.bytes(Attribute.port, Uint8Array.of(settings.port >> 8, settings.port))
  if (family === AF_INET) {
    if (local !== undefined) writer.bytes(Attribute.local, local.subarray(0, 4))
    if (destination !== undefined) writer.bytes(Attribute.group, destination.subarray(0, 4))
  } else {
    if (local !== undefined) writer.bytes(Attribute.local6, local)
    // With no address at all, the unspecified one tells the kernel the family.
    writer.bytes(Attribute.group6, destination ?? new Uint8Array(16))
  }
  if (settings.deviceIndex !== undefined) writer.u32(Attribute.device, settings.deviceIndex)
  if (settings.ttl !== undefined) writer.u8(Attribute.ttl, settings.ttl)
  if (settings.tos !== undefined) writer.u8(Attribute.tos, settings.tos)
  for (const name of ['learning', 'proxy', 'l2miss', 'l3miss'] as const) {
    const value = settings[name]
    if (value !== undefined) writer.u8(Attribute[name], Number(value))
  }
  writer.u8(Attribute.udpChecksum, Number(udpChecksum))
  if (family === AF_INET6) {
    writer.u8(Attribute.udpZeroChecksum6Tx, Number(!udpChecksum))
    // Part of what tells one socket from another: links that differ in it cannot share a port.
    writer.u8(Attribute.udpZeroChecksum6Rx, 1)
  }
}

/** What the kernel says of a VXLAN link, as it says it. */
export interface VxlanAttributes {
  readonly vni: number
  readonly port: number
  /** undefined if it has no address that would tell. */
  readonly family: 4 | 6 | undefined
  readonly local: string | undefined
  /** Where what is for no known MAC goes: a host, or a multicast group. At most one of them. */
  readonly remote: string | undefined
  readonly group: string | undefined
  readonly deviceIndex: number | undefined
  /** 0: the kernel's choice. */
  readonly ttl: number | 'inherit'
  /** 1: the inner packet's. */
  readonly tos: number
  readonly learning: boolean
  /** How long a learnt entry stays that is not used. */
  readonly ageingSeconds: number
  /** Most entries learnt; 0: any number. */
  readonly limit: number
  /** UDP source ports, from and to; both 0: the host's ephemeral ones. */
  readonly sourcePorts: { readonly from: number; readonly to: number }
  readonly proxy: boolean
  readonly rsc: boolean
  readonly l2miss: boolean
  readonly l3miss: boolean
  /** Checksums of what is sent over IPv4. */
  readonly udpChecksum: boolean
  /** Whether what is sent over IPv6 has none, and what has none is received. */
  readonly udpZeroChecksum6Tx: boolean
  readonly udpZeroChecksum6Rx: boolean
  readonly remoteChecksumTx: boolean
  readonly remoteChecksumRx: boolean
  readonly remoteChecksumNoPartial: boolean
  /** Group policy extension. */
  readonly gbp: boolean
  /** Generic protocol extension. */
  readonly gpe: boolean
  /** Whether VNI and addresses come with each packet, from a route or eBPF: "collect metadata". */
  readonly external: boolean
  readonly vniFilter: boolean
  /** Of IPv6, 20 bits. */
  readonly flowLabel: number
  /** The outer header's bit. */
  readonly dontFragment: 'unset' | 'set' | 'inherit'
  /** Whether what is for this host itself goes to its own VXLAN link, and not by its network. undefined before Linux 6.5. */
  readonly localBypass: boolean | undefined
  /** Whether each packet has `flowLabel`, or that of the packet within. undefined before Linux 6.8. */
  readonly flowLabelPolicy: 'fixed' | 'inherit' | undefined
  /** Of VXLAN's header, its two words: packets with any of these set are dropped. undefined before Linux 6.14. */
  readonly reservedBits: { readonly flags: number; readonly vni: number } | undefined
  /**
   * Whether what goes to a multicast group goes by the host's multicast routes. undefined where the kernel does not say: 6.17
   * and 6.18 have it, and are silent.
   */
  readonly multicastRoute: boolean | undefined
}

const dontFragments = ['unset', 'set', 'inherit'] as const
const flowLabelPolicies = ['fixed', 'inherit'] as const

/**
 * Reads IFLA_INFO_DATA. What a kernel does not know of is off, or undefined. What is newer
 * than Linux 6.18, such as IFLA_VXLAN_LOCALBIND, is left out.
 * @throws XfrmeshError ERR_XFRMESH_MALFORMED */
export function readVxlan(data: Attributes): VxlanAttributes {
  const flag = (name: FlagName) => data.has(Attribute[name])
  const on = (name: keyof typeof Attribute) => data.has(Attribute[name]) && data.u8(Attribute[name]) !== 0
  const u8 = (name: 'ttl' | 'tos' | 'dontFragment') => (data.has(Attribute[name]) ? data.u8(Attribute[name]) : 0)
  const u32 = (name: 'ageing' | 'limit') => (data.has(Attribute[name]) ? data.u32(Attribute[name]) : 0)
  const maybe = <T>(name: keyof typeof Attribute, read: (type: number) => T) =>
    data.has(Attribute[name]) ? read(Attribute[name]) : undefined
  const local = addressIn(data, Attribute.local, Attribute.local6)
  const destination = addressIn(data, Attribute.group, Attribute.group6)
  return {
    vni: data.u32(Attribute.vni),
    port: u16Of(data.bytes(Attribute.port), 0),
    family: local?.family ?? destination?.family,
    local: local?.text,
    remote: destination?.multicast === false ? destination.text : undefined,
    group: destination?.multicast === true ? destination.text : undefined,
    deviceIndex: data.has(Attribute.device) ? data.u32(Attribute.device) : undefined,
    ttl: on('ttlInherit') ? 'inherit' : u8('ttl'),
    tos: u8('tos'),
    learning: on('learning'),
    ageingSeconds: u32('ageing'),
    limit: u32('limit'),
    sourcePorts: portsIn(data),
    proxy: on('proxy'),
    rsc: on('rsc'),
    l2miss: on('l2miss'),
    l3miss: on('l3miss'),
    udpChecksum: on('udpChecksum'),
    udpZeroChecksum6Tx: on('udpZeroChecksum6Tx'),
    udpZeroChecksum6Rx: on('udpZeroChecksum6Rx'),
    remoteChecksumTx: on('remoteChecksumTx'),
    remoteChecksumRx: on('remoteChecksumRx'),
    remoteChecksumNoPartial: flag('remoteChecksumNoPartial'),
    gbp: flag('gbp'),
    gpe: flag('gpe'),
    external: on('external'),
    vniFilter: on('vniFilter'),
    flowLabel: data.has(Attribute.flowLabel) ? labelIn(data.bytes(Attribute.flowLabel)) : 0,
    dontFragment: dontFragments[u8('dontFragment')] ?? 'unset',
    localBypass: maybe('localBypass', (type) => data.u8(type) !== 0),
    flowLabelPolicy: maybe('flowLabelPolicy', (type) => flowLabelPolicies[data.u32(type)]),
    reservedBits: maybe('reservedBits', (type) => headerIn(data.bytes(type))),
    multicastRoute: maybe('multicastRoute', (type) => data.u8(type) !== 0),
  }
}

/** Attributes that have no payload: they are there, or not. */
type FlagName = 'gbp' | 'gpe' | 'remoteChecksumNoPartial'

interface Found {
  readonly family: 4 | 6
  readonly text: string
  readonly multicast: boolean
}

function addressIn(data: Attributes, four: number, six: number): Found | undefined {
  const found = (bytes: Uint8Array, family: Family): Found => ({
    family: family === AF_INET ? 4 : 6,
    text: formatAddress(bytes, 0, family),
    multicast: unusable(bytes, 0, family) === 'multicast',
  })
  if (data.has(four)) return found(data.bytes(four), AF_INET)
  return data.has(six) ? found(data.bytes(six), AF_INET6) : undefined
}

function portsIn(data: Attributes): { from: number; to: number } {
  if (!data.has(Attribute.sourcePorts)) return { from: 0, to: 0 }
  const bytes = data.bytes(Attribute.sourcePorts)
  return { from: u16Of(bytes, 0), to: u16Of(bytes, 2) }
}

function labelIn(bytes: Uint8Array): number {
  return u32Of(bytes, 0)
}

/** struct vxlanhdr (net/vxlan.h). */
function headerIn(bytes: Uint8Array): { flags: number; vni: number } {
  if (bytes.length !== 8) throw malformed(`attribute ${Attribute.reservedBits} has ${bytes.length} bytes, not 8`)
  return { flags: u32Of(bytes, 0), vni: u32Of(bytes, 4) }
}

/** In network byte order. */
function u32Of(bytes: Uint8Array, at: number): number {
  return ((u16Of(bytes, at) << 16) | u16Of(bytes, at + 2)) >>> 0
}

/** In network byte order. */
function u16Of(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!
}
