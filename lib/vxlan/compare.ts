import { AF_INET6 } from '../base/address.js'
import { formatMac } from '../base/mac.js'
import type { Link } from '../kernel/link.js'
import { VXLAN } from '../kernel/vxlan.js'
import type { Difference } from './errors.js'
import { Names, vxlanOf, type VxlanLink } from './link.js'
import type { Wanted } from './options.js'
import type { Place } from './place.js'

/** What was asked for, with the indices of what it names. */
export interface Resolved extends Wanted {
  readonly deviceIndex: number | undefined
  readonly bridgeIndex: number | undefined
}

/** What a link of that name has otherwise than it was asked for; nothing if it is the same. */
export async function differences(want: Resolved, link: Link, place: Place): Promise<Difference[]> {
  if (link.kind !== VXLAN) return [{ attribute: 'kind', have: link.kind, want: VXLAN }]
  const have = { ...link, ...vxlanOf(link) }
  const found: Difference[] = []
  // An alternative name finds a link too.
  compare(found, 'name', have.name, want.name)
  for (const [name, value] of expected(want)) compare(found, name, have[name as 'vni'], value)
  const names = new Names(place.home)
  const away = await socketAway(link, want, place)
  if (away !== undefined || have.deviceIndex !== want.deviceIndex) {
    const device = (await names.of(have.deviceIndex, have.linkNamespace)) ?? numbered(have.deviceIndex)
    // Indices are of one namespace. Of two, the names tell.
    if (away === undefined || device !== want.device)
      found.push({ attribute: 'device', have: device, want: want.device })
  }
  if (want.bridge !== undefined && have.master !== want.bridgeIndex) {
    const bridge = (await names.of(have.master)) ?? numbered(have.master)
    found.push({ attribute: 'bridge', have: bridge, want: want.bridge })
  }
  if (away !== undefined) found.push(away)
  return found
}

/**
 * What a link like that has, as far as it can be told: with no address, the kernel does not say which family it is of.
 * Addresses that were not asked for are to be none, other attributes whatever they are.
 */
function expected(want: Wanted): [attribute: string, value: Difference['want']][] {
  const { vni, port, local, remote, group, udpChecksum, mac, up } = want
  const { ttl, tos, learning, proxy, l2miss, l3miss, mtu } = want
  const six = want.family === AF_INET6
  const always = {
    ...{ vni, port, local: local?.text, remote: remote?.text, group: group?.text },
    ...(six ? { udpZeroChecksum6Tx: !udpChecksum } : { udpChecksum }),
    ...socketIdentity(want),
    up,
  }
  const asked = { ttl, tos, learning, proxy, l2miss, l3miss, mtu, mac: mac && formatMac(mac) }
  return [...Object.entries(always), ...Object.entries(asked).filter(([, value]) => value !== undefined)]
}

/** What all links have in common that share a socket, and so a port in a namespace. Ours have none of it but the one. */
export function socketIdentity({ family }: Pick<Wanted, 'family'>): SocketIdentity {
  return {
    udpZeroChecksum6Rx: family === AF_INET6,
    gbp: false,
    gpe: false,
    remoteChecksumRx: false,
    remoteChecksumNoPartial: false,
    external: false,
    vniFilter: false,
  }
}

/** VXLAN_F_RCV_FLAGS of drivers/net/vxlan.h, from which the kernel tells sockets of one port and family. */
type SocketIdentity = Pick<
  VxlanLink,
  'udpZeroChecksum6Rx' | 'gbp' | 'gpe' | 'remoteChecksumRx' | 'remoteChecksumNoPartial' | 'external' | 'vniFilter'
>

export function compare(
  found: Difference[],
  attribute: string,
  have: Difference['have'],
  want: Difference['want'],
): void {
  if (have !== want) found.push({ attribute, have, want })
}

function numbered(index: number | undefined): string | undefined {
  return index === undefined ? undefined : `link ${index}`
}

/** Whether its socket is in another namespace than it is to be in. */
async function socketAway(
  { linkNamespace }: Link,
  { netns }: Wanted,
  { here, home, apart }: Place,
): Promise<Difference | undefined> {
  // One that has no id there yet is no link's.
  const wanted = apart ? await home.namespaceId(here) : undefined
  if (linkNamespace === wanted && apart === (wanted !== undefined)) return undefined
  const have = linkNamespace === undefined ? "the link's own" : `that of id ${linkNamespace}`
  return { attribute: 'netns', have, want: apart ? (netns ?? "the process's own") : "the link's own" }
}
