import { isDeepStrictEqual } from 'node:util'
import { AF_INET, AF_INET6, formatAddress, type Family } from '../base/address.js'
import {
  bitwise,
  cmp,
  goto,
  Hole,
  masquerade,
  meta,
  payload,
  RuleTemplate,
  u8,
  verdict,
  vmap,
  type Expression,
} from '../kernel/nft.js'
import { bytesOf, maskOf, Subnets, type Mapping, type Subnet } from './subnet.js'

/**
 * The table's rules, as `nft` makes them of what the CNI plugins write: a field at a byte's boundary is loaded no longer
 * than it must be, and masked only where it ends within a byte.
 */

export const table = { family: 'inet', table: 'cni_plugins_masquerade' } as const
export const checks = { ...table, chain: 'masq_checks' } as const
export const postrouting = { ...table, chain: 'postrouting' } as const
/** Where source NAT happens: `nft` calls it srcnat. */
export const postroutingBase = { type: 'nat', hook: 'postrouting', priority: 100 } as const

interface AddressFamily {
  readonly bytes: number
  /** NFPROTO_*, which equal AF_*. */
  readonly number: number
  /** Where the addresses are in the header, in bytes. */
  readonly source: number
  readonly destination: number
  /** The map from source addresses to their subnets' chains. */
  readonly map: string
  readonly type: 'ipv4_addr' | 'ipv6_addr'
  /** What the map's rule and the map say of themselves. */
  readonly comment: string
}

export const Families: Readonly<Record<Family, AddressFamily>> = {
  [AF_INET]: {
    bytes: 4,
    number: AF_INET,
    source: 12,
    destination: 16,
    map: 'masq_ipv4',
    type: 'ipv4_addr',
    comment: "xfrmesh: IPv4 addresses and their subnets' chains",
  },
  [AF_INET6]: {
    bytes: 16,
    number: AF_INET6,
    source: 8,
    destination: 24,
    map: 'masq_ipv6',
    type: 'ipv6_addr',
    comment: "xfrmesh: IPv6 addresses and their subnets' chains",
  },
}
export const families = [AF_INET, AF_INET6] as const

/** What sends packets through the checks, but for those to a multicast group. */
export const postroutingRules: readonly (readonly Expression[])[] = [
  [
    ...ofFamily(AF_INET),
    payload('network', Families[AF_INET].destination, 4),
    bitwise(maskOf(4, 4), new Uint8Array(4)),
    cmp('==', Uint8Array.of(224, 0, 0, 0)),
    verdict('return'),
  ],
  [
    ...ofFamily(AF_INET6),
    payload('network', Families[AF_INET6].destination, 1),
    cmp('==', u8(0xff)),
    verdict('return'),
  ],
  [goto(checks.chain)],
]

/** Looks a packet's source up in its family's map. */
export function mapRule(family: Family): Expression[] {
  const { source, bytes, map } = Families[family]
  return [...ofFamily(family), payload('network', source, bytes), vmap(map)]
}

/** `ip saddr ADDRESS ip daddr != SUBNET masquerade` */
export function mappingRule(mapping: Mapping): Expression[] {
  const { subnet } = mapping
  return [...fromAddress(subnet.family, bytesOf(mapping)), ...toElsewhere(subnet, compared(subnet))]
}

/** The same without an address: all that is in its subnet's chain. */
export function subnetRule(subnet: Subnet): Expression[] {
  return [...ofFamily(subnet.family), ...toElsewhere(subnet, compared(subnet))]
}

const templates = new Map<number, RuleTemplate>()

/** {@link mappingRule} for all of subnets as long: its holes are the `address`, and the `subnet` as {@link compared}. */
export function mappingTemplate(subnet: Subnet): RuleTemplate {
  const { family, prefix } = subnet
  const key = (family << 8) | prefix
  let template = templates.get(key)
  if (template === undefined) {
    const address = new Hole('address', Families[family].bytes)
    const destination = new Hole('subnet', compared(subnet).length)
    const expressions = [...fromAddress(family, address), ...toElsewhere(subnet, destination)]
    template = new RuleTemplate({ ...checks, expressions })
    templates.set(key, template)
  }
  return template
}

/** The mapping whose rule this is; undefined for any other rule. */
export function mappingOf(expressions: readonly Expression[], subnets: Subnets): Mapping | undefined {
  const [, familyIs, , sourceIs, , next, last] = expressions
  if (familyIs?.kind !== 'cmp' || sourceIs?.kind !== 'cmp') return undefined
  const family = families.find((number) => number === familyIs.data[0])
  if (family === undefined || sourceIs.data.length !== Families[family].bytes) return undefined
  const elsewhere = next?.kind === 'bitwise' ? last : next
  if (elsewhere?.kind !== 'cmp') return undefined
  const prefix = next?.kind === 'bitwise' ? ones(next.mask) : elsewhere.data.length * 8
  const mapping = mappingTo(family, sourceIs.data, prefix, subnets)
  return isDeepStrictEqual(mappingRule(mapping), expressions) ? mapping : undefined
}

/** A mapping by what the kernel has of it. */
export function mappingTo(family: Family, address: Uint8Array, prefix: number, subnets: Subnets): Mapping {
  return { text: formatAddress(address, 0, family), subnet: subnets.of(family, address, 0, prefix) }
}

function ofFamily(family: Family): Expression[] {
  return [meta('nfproto'), cmp('==', u8(family))]
}

function fromAddress(family: Family, address: Uint8Array): Expression[] {
  const { source, bytes } = Families[family]
  return [...ofFamily(family), payload('network', source, bytes), cmp('==', address)]
}

function toElsewhere({ family, prefix }: Subnet, subnet: Uint8Array): Expression[] {
  const { destination, bytes } = Families[family]
  const masked = subnet.length * 8 === prefix ? [] : [bitwise(maskOf(prefix, bytes), new Uint8Array(bytes))]
  return [payload('network', destination, subnet.length), ...masked, cmp('!=', subnet), masquerade()]
}

/** As much of a subnet's address as is compared. */
export function compared({ prefix, first }: Subnet): Uint8Array {
  return prefix > 0 && prefix % 8 === 0 ? first.subarray(0, prefix / 8) : first
}

function ones(mask: Uint8Array): number {
  let bits = 0
  for (const byte of mask) bits += 8 - Math.log2(0x100 - byte)
  return bits
}

/** A name that `nft` can read back: it takes no colons. */
export function subnetChain({ text }: Subnet): string {
  return `subnet_${text.replaceAll(':', '-')}`
}

/** The length of the prefix in a subnet's chain's name; undefined for any other chain. */
export function prefixOfChain(chain: string): number | undefined {
  const [, prefix] = /^subnet_[\da-f.-]+\/(\d{1,3})$/.exec(chain) ?? []
  return prefix === undefined ? undefined : Number(prefix)
}
