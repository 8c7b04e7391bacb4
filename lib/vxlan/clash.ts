import { AF_INET6 } from '../base/address.js'
import { NetlinkError, Unsupported, XfrmeshError } from '../base/errors.js'
import type { Link } from '../kernel/link.js'
import type { Route } from '../kernel/route.js'
import { VXLAN } from '../kernel/vxlan.js'
import { compare, socketIdentity } from './compare.js'
import { LinkClash, list, type Difference } from './errors.js'
import { Names, typed, type VxlanLink } from './link.js'
import type { Wanted } from './options.js'
import type { Place } from './place.js'

/** Why the kernel refused a link, in words: it names neither the link that is in the way, nor what the two differ in. */

const EEXIST = 17
const EOPNOTSUPP = 95
const EPFNOSUPPORT = 96
const EAFNOSUPPORT = 97
const EADDRINUSE = 98

/** @param replaced whether one was deleted for it, which must not go unsaid */
export async function explained(error: unknown, want: Wanted, place: Place, replaced: boolean): Promise<unknown> {
  if (!(error instanceof XfrmeshError)) return error
  let reason: XfrmeshError
  try {
    reason = error instanceof NetlinkError ? await reasonOf(error, want, place) : error
  } catch {
    // What kept it from being explained is less to the point than what is to be explained.
    reason = error
  }
  if (replaced) reason.message += '; the link that it was to replace is deleted'
  return reason
}

async function reasonOf(error: NetlinkError, want: Wanted, place: Place): Promise<XfrmeshError> {
  switch (error.errno) {
    case EOPNOTSUPP:
      return error.message.includes('Unknown device type') ? withoutVxlan(error) : error
    case EPFNOSUPPORT:
    case EAFNOSUPPORT:
      return withoutIpv6(error)
    case EADDRINUSE:
      return portHeld(error, want, await neighbours(place))
    case EEXIST:
      return (await vniTaken(error, want, place)) ?? error
    default:
      return error
  }
}

function withoutVxlan(cause: NetlinkError): Unsupported {
  return new Unsupported(
    'CONFIG_VXLAN',
    'this kernel has no VXLAN: it needs CONFIG_VXLAN; if that is a module, modprobe vxlan loads it',
    { cause },
  )
}

function withoutIpv6(cause: NetlinkError): Unsupported {
  return new Unsupported(
    'CONFIG_IPV6',
    'this kernel has no IPv6, or has it turned off (ipv6.disable=1 on its command line): a VXLAN link of family 6 needs it',
    { cause },
  )
}

/** Links of one port in a namespace share one UDP socket, and must agree in what it is like. */
function portHeld(cause: NetlinkError, want: Wanted, all: readonly Neighbour[]): LinkClash {
  const open = all.filter(({ link }) => link.port === want.port && link.up)
  // One that has no address may be of either family: it is suspected last.
  const suspects = [
    ...open.filter(({ link }) => hasSocketOf(link, want)),
    ...open.filter(({ link }) => !tellsFamily(link)),
  ]
  for (const { link, where } of suspects) {
    const seems = tellsFamily(link) ? '' : ', it seems (it has no address that would tell its family)'
    const found: Difference[] = []
    for (const [name, value] of Object.entries(socketIdentity(want))) compare(found, name, link[name as 'gbp'], value)
    if (found.length === 0) continue
    return new LinkClash(
      want.name,
      `UDP port ${want.port} is held by the VXLAN link ${link.name} (VNI ${link.vni}, ${where})${seems}, whose socket it cannot share: ` +
        `there ${list(found)}. Make that link anew like this one, or give one of them another port`,
      link.name,
      found,
      { cause },
    )
  }
  return new LinkClash(
    want.name,
    `UDP port ${want.port} is held by another socket: ss -lunp 'sport = :${want.port}', run where this link's socket is to be, shows it. ` +
      'End it, or take another port. If none is shown but has no process, it is that of a VXLAN link in a namespace unknown here',
    undefined,
    [],
    { cause },
  )
}

function hasSocketOf(link: VxlanLink, want: Wanted): boolean {
  return link.external || link.family === versionOf(want)
}

function tellsFamily({ external, family }: VxlanLink): boolean {
  return external || family !== undefined
}

function versionOf({ family }: Wanted): 4 | 6 {
  return family === AF_INET6 ? 6 : 4
}

async function vniTaken(cause: NetlinkError, want: Wanted, place: Place): Promise<LinkClash | undefined> {
  const same = (link: VxlanLink) =>
    link.vni === want.vni && link.port === want.port && (hasSocketOf(link, want) || !tellsFamily(link))
  const found = (await neighbours(place)).find(({ link }) => same(link))
  if (found !== undefined) {
    const why = `VNI ${want.vni} on port ${want.port} belongs to the VXLAN link ${found.link.name} (${found.where}): delete that one, or make this one by that name`
    return new LinkClash(want.name, why, found.link.name, [], { cause })
  }
  if (cause.message.includes('VNI')) {
    const why =
      `VNI ${want.vni} on port ${want.port} belongs to a VXLAN link that was made in the same namespace, and moved to one unknown here. ` +
      'If that was deleted just now, the kernel is still at it: call again'
    return new LinkClash(want.name, why, undefined, [], { cause })
  }
  if (!place.apart || (await place.here.link(want)) === undefined) return undefined
  // Old kernels look for the name where the link is made, not where it comes to live.
  const why = `a link of that name is in the namespace that this one is made in, and this kernel does not tell the two namespaces apart: choose another name`
  return new LinkClash(want.name, why, want.name, [], { cause })
}

interface Neighbour {
  readonly link: VxlanLink
  readonly where: string
}

/**
 * The VXLAN links whose sockets are where that of this link is to be, as far as they can be found: in that namespace, in
 * the link's own, and in those that it knows others by.
 */
async function neighbours({ here, home, apart }: Place): Promise<Neighbour[]> {
  const found: Neighbour[] = []
  const take = async (route: Route, links: readonly Link[], where: string) => {
    for (const link of links) found.push({ link: await typed(link, new Names(route)), where })
  }
  await take(here, (await here.links(VXLAN)).filter(madeHere), 'in the namespace of the socket')
  const homeId = apart ? await here.namespaceId(home) : undefined
  if (apart) {
    const id = await home.namespaceId(here)
    const links = (await home.links(VXLAN)).filter(
      ({ linkNamespace }) => linkNamespace !== undefined && linkNamespace === id,
    )
    await take(home, links, 'in the namespace of this link')
  }
  for (const id of await here.namespaceIds()) {
    if (id !== homeId) await take(here, await movedTo(here, id), `in the namespace of id ${id}, see ip netns list-id`)
  }
  return found
}

function madeHere({ linkNamespace }: Link): boolean {
  return linkNamespace === undefined
}

/** Links in the namespace of that id whose sockets are here. */
async function movedTo(here: Route, id: number): Promise<Link[]> {
  let links: Link[]
  try {
    links = await here.links(VXLAN, id)
  } catch {
    // Gone, or of another user's.
    return []
  }
  // Asked for links whose sockets are here, the kernel gives this namespace an id of its own: after the list it is there.
  const own = await here.namespaceId(here)
  return own === id ? [] : links.filter(({ linkNamespace }) => linkNamespace !== undefined && linkNamespace === own)
}
