import { address, AF_INET, AF_INET6, hostAddress, unusable, type Address, type Family } from '../base/address.js'
import { boolean, integer, namespace, options, U16 } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { hostMac } from '../base/mac.js'
import type { VxlanSettings } from '../kernel/vxlan.js'

/** What a VXLAN link is to be. What is left out and has no default here is the kernel's choice, and is not compared. */
export interface VxlanOptions {
  /** 1 to 15 bytes. */
  name: string
  /** 0 to 2^24 - 1. */
  vni: number
  /** UDP port, of both ends: 1 to 65535. Default: 4789. */
  port?: number
  /** Of the outer header. Default: that of the addresses; 4 if there are none. */
  family?: 4 | 6
  /** Outer source address. Default: that of the route. */
  local?: string
  /** The host that gets what is for no known MAC. Default: none, what has no entry in the FDB is dropped. */
  remote?: string
  /** The multicast group that gets it, and that is joined. In place of `remote`; needs a `device`. */
  group?: string
  /** The device that packets leave by, in `netns`. The link goes when it goes. Default: that of the route. */
  device?: string
  /** Of the outer header: 1 to 255; 0, the kernel's choice: the host's, 1 to a group. */
  ttl?: number
  /** Of the outer header, 0 to 255; 1: the inner packet's. */
  tos?: number
  /** Whether the FDB learns from what comes in. */
  learning?: boolean
  /** Whether ARP and neighbour solicitations are answered from the neighbour table. */
  proxy?: boolean
  /** Whether unknown MACs (`l2miss`) and addresses (`l3miss`) are told to who listens. */
  l2miss?: boolean
  l3miss?: boolean
  /** 68 to 65535; with a device at most its MTU less 50 for IPv4, 70 for IPv6. */
  mtu?: number
  /**
   * Whether UDP checksums are sent. ESP hides them from a NAT, which cannot mend them: with checksums on all is dropped
   * behind one. Packets without are received in any case. Default: false.
   */
  udpChecksum?: boolean
  /** Ethernet address, as in 02:42:0a:00:00:02. */
  mac?: string
  /** The bridge that it is attached to, where the link comes to live. */
  bridge?: string
  /** Default: true. */
  up?: boolean
  /** The network namespace in which the link is made, and its UDP socket stays: a path or an open descriptor. Default: the process's own. */
  netns?: string | number
  /** The namespace that the link comes to live in, from its first moment on. Default: `netns`. */
  moveTo?: string | number
  /** Whether a link of that name that differs is deleted, with its FDB, and made anew. Default: false. */
  replace?: boolean
}

/** Options, checked, with their defaults. */
export interface Wanted extends Omit<VxlanSettings, 'local' | 'destination' | 'deviceIndex'> {
  /** What the caller knows the options as. */
  readonly argument: string
  readonly name: string
  readonly local: Address | undefined
  readonly remote: Address | undefined
  readonly group: Address | undefined
  readonly device: string | undefined
  readonly mtu: number | undefined
  readonly mac: Uint8Array | undefined
  readonly bridge: string | undefined
  readonly up: boolean
  readonly netns: string | number | undefined
  readonly moveTo: string | number | undefined
  readonly replace: boolean
}

const known = [
  'name',
  'vni',
  'port',
  'family',
  'local',
  'remote',
  'group',
  'device',
  'ttl',
  'tos',
  'learning',
  'proxy',
  'l2miss',
  'l3miss',
  'mtu',
  'udpChecksum',
  'mac',
  'bridge',
  'up',
  'netns',
  'moveTo',
  'replace',
] as const

const DEFAULT_PORT = 4789
const LAST_VNI = 0xff_ffff
/** ETH_MIN_MTU, ETH_MAX_MTU */
export const LEAST_MTU = 68
export const MOST_MTU = U16
/** IFNAMSIZ, less the NUL. */
const LONGEST_NAME = 15

/** @throws InvalidArgument */
export function wanted(value: unknown, argument: string): Wanted {
  const o = options<VxlanOptions>(value, argument, known)
  const at = (name: (typeof known)[number]) => `${argument}.${name}`
  const maybe = <T>(name: keyof VxlanOptions, check: (value: unknown, argument: string) => T) =>
    o[name] === undefined ? undefined : check(o[name], at(name))
  const byte = (given: unknown, where: string) => integer(given, where, 0, 255)
  return {
    argument,
    name: linkName(o.name, at('name')),
    vni: vni(o.vni, at('vni')),
    port: port(o.port, at('port')),
    ...addresses(o, at),
    device: maybe('device', linkName),
    ttl: maybe('ttl', byte),
    tos: maybe('tos', byte),
    learning: maybe('learning', boolean),
    proxy: maybe('proxy', boolean),
    l2miss: maybe('l2miss', boolean),
    l3miss: maybe('l3miss', boolean),
    mtu: maybe('mtu', (given, where) => integer(given, where, LEAST_MTU, MOST_MTU)),
    udpChecksum: boolean(o.udpChecksum ?? false, at('udpChecksum')),
    mac: maybe('mac', hostMac),
    bridge: maybe('bridge', linkName),
    up: boolean(o.up ?? true, at('up')),
    netns: namespace(o.netns, at('netns')),
    moveTo: namespace(o.moveTo, at('moveTo')),
    replace: boolean(o.replace ?? false, at('replace')),
  }
}

export function vni(value: unknown, argument: string): number {
  return integer(value, argument, 0, LAST_VNI)
}

export function port(value: unknown, argument: string): number {
  return integer(value ?? DEFAULT_PORT, argument, 1, U16)
}

function addresses(
  o: VxlanOptions,
  at: (name: 'family' | 'local' | 'remote' | 'group' | 'device') => string,
): Pick<Wanted, 'family' | 'local' | 'remote' | 'group'> {
  const local = o.local === undefined ? undefined : hostAddress(o.local, at('local'))
  const remote = o.remote === undefined ? undefined : hostAddress(o.remote, at('remote'))
  const group = o.group === undefined ? undefined : multicast(o.group, at('group'))
  if (remote !== undefined && group !== undefined) {
    throw new InvalidArgument(at('group'), 'left out with a remote: a link has one or the other', o.group)
  }
  if (group !== undefined && o.device === undefined) {
    throw new InvalidArgument(at('device'), 'given with a group: it is on a device that a group is joined')
  }
  let family = o.family === undefined ? undefined : familyNumbered(o.family, at('family'))
  for (const [name, given] of Object.entries({ local, remote, group })) {
    if (given === undefined) continue
    family ??= given.family
    if (given.family === family) continue
    const version = family === AF_INET ? 'IPv4' : 'IPv6'
    throw new InvalidArgument(at(name as 'local'), `an ${version} address: a VXLAN link carries one family`, given.text)
  }
  return { family: family ?? AF_INET, local, remote, group }
}

function multicast(value: unknown, argument: string): Address {
  const group = address(value, argument)
  if (unusable(group.bytes, 0, group.family) === 'multicast') return group
  throw new InvalidArgument(
    argument,
    "a multicast address, as in '239.1.1.1' or 'ff05::1'; remote is for a host",
    value,
  )
}

function familyNumbered(value: unknown, argument: string): Family {
  if (value === 4) return AF_INET
  if (value === 6) return AF_INET6
  throw new InvalidArgument(argument, '4 or 6', value)
}

/**
 * What the kernel takes for a link's name (dev_valid_name), less '%', which asks it for a number.
 * @throws InvalidArgument
 */
export function linkName(value: unknown, argument: string): string {
  const bytes = typeof value === 'string' && value.length <= LONGEST_NAME ? Buffer.from(value) : undefined
  if (
    bytes === undefined ||
    bytes.length === 0 ||
    bytes.length > LONGEST_NAME ||
    value === '.' ||
    value === '..' ||
    bytes.some(cannotBeInName) ||
    bytes.toString() !== value
  ) {
    throw new InvalidArgument(argument, `a link's name: 1 to ${LONGEST_NAME} bytes, no space, '/', ':' or '%'`, value)
  }
  return value
}

/** NUL, and spaces as the kernel's isspace() has them: in Latin-1, one of 160 too. */
function cannotBeInName(byte: number): boolean {
  return (
    byte === 0 || (byte >= 9 && byte <= 13) || byte === 32 || byte === 160 || '/:%'.includes(String.fromCharCode(byte))
  )
}
