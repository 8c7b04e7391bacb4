import { integer, oneOf, options, U16 } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { type NatOptions, natOptionNames } from './nat-options.js'
import { suite, type SuiteName } from './suites.js'

export interface OverlayMtuOptions {
  /** MTU of the path between the nodes, in bytes; IPv4 576, IPv6 1280 to 65535. Default: 1500. */
  mtu?: number
  /** Version of the outer IP. Default: 4. */
  family?: 4 | 6
  /** Default: 'aes-gcm-64'. */
  suite?: SuiteName
  /** Whether ESP travels in UDP; Overlay's own option will do. Default: false. */
  nat?: boolean | NatOptions
  /** 'docker': what Docker gives its encrypted overlays, whatever family, suite and nat. Default: 'exact'. */
  formula?: 'exact' | 'docker'
}

const UDP = 8
const VXLAN = 8
const ETHERNET = 14
/** SPI and sequence number (RFC 4303). */
const ESP_HEADER = 8
/** Both suites carry eight bytes of IV in each packet (RFC 4106, RFC 7634). */
const ESP_IV = 8
/** Pad length and next header, the end of the ciphertext. */
const ESP_TRAILER = 2
const ESP_ALIGN = 4

/**
 * The largest MTU that a VXLAN link may have so that its packets, in ESP in transport mode, cross a path of that MTU
 * unfragmented: one byte more, and they are cut up over IPv4, and lost over IPv6, where the kernel tells nobody. For
 * untagged inner frames: a device with VLAN tags on the link takes four bytes less. Below 1280 the kernel lets a link carry
 * no IPv6.
 *
 * @returns bytes
 * @throws InvalidArgument
 */
export function overlayMtu(given: OverlayMtuOptions = {}): number {
  const known = options<OverlayMtuOptions>(given, 'options', ['mtu', 'family', 'suite', 'nat', 'formula'])
  const { mtu = 1500, family = 4, suite: name = 'aes-gcm-64', nat = false, formula = 'exact' } = known
  integer(family, 'family', 4, 6)
  if ((family as number) === 5) throw new InvalidArgument('family', '4 or 6', family)
  integer(mtu, 'mtu', family === 4 ? 576 : 1280, U16)
  const { icvBits } = suite(name)
  if (typeof nat !== 'boolean') options<NatOptions>(nat, 'nat', natOptionNames)
  if (oneOf(formula, 'formula', ['exact', 'docker'] as const) === 'docker') return dockerMtu(mtu)

  const outerIp = family === 4 ? 20 : 40
  const encapsulated = mtu - outerIp - (nat === false ? 0 : UDP) - ESP_HEADER - ESP_IV - icvBits / 8
  const ciphertext = encapsulated - (encapsulated % ESP_ALIGN)
  return ciphertext - ESP_TRAILER - UDP - VXLAN - ETHERNET
}

/** 50 bytes for VXLAN over IPv4, 26 for ESP with a 64-bit ICV, then down to a multiple of four. */
function dockerMtu(mtu: number): number {
  const inner = mtu - 50 - 26
  return inner - (inner % 4)
}
