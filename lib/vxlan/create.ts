import { AF_INET, type Family } from '../base/address.js'
import { InvalidArgument, NetlinkError, XfrmeshError } from '../base/errors.js'
import type { Link, NewLink } from '../kernel/link.js'
import type { Route } from '../kernel/route.js'
import { VXLAN, vxlanOverhead, writeVxlan } from '../kernel/vxlan.js'
import { explained } from './clash.js'
import { differences, type Resolved } from './compare.js'
import { LinkDiffers, type Difference } from './errors.js'
import { forEach } from './many.js'
import { LEAST_MTU, wanted, type VxlanOptions, type Wanted } from './options.js'
import { Places, type Place } from './place.js'

/** What became of a link. */
export interface CreatedVxlan {
  readonly name: string
  /** In the namespace that it lives in. */
  readonly index: number
  /** false: it was there, as asked for, and was left alone. */
  readonly created: boolean
  /** Whether one of that name that differed was deleted for it. */
  readonly replaced: boolean
}

const EEXIST = 17

/** How often a link may come, or go, between a look and what follows from it. */
const TRIES = 4

/**
 * Makes a VXLAN link, up and attached to its bridge, or nothing: the kernel does all of it in one call, the move to
 * another namespace too, so that nobody ever sees a part of it, whenever the process dies. Asked for again, it is left
 * alone.
 *
 * Given a list it makes them one after the other; one that fails does not keep the next from being made, and then the
 * call rejects with a PartialFailure. All arguments are checked before the first.
 *
 * @throws InvalidArgument; also for a namespace, device or bridge that is not there, an MTU over the device's: for each,
 * nothing was changed
 * @throws LinkDiffers if there is a link of that name that is another: with `replace`, only for one that is no VXLAN link
 * @throws LinkClash if another link has the VNI, or another socket the port
 * @throws Unsupported without CAP_NET_ADMIN, on a kernel without VXLAN, or without IPv6
 * @throws XfrmeshError ERR_XFRMESH_LINK_GONE if somebody took it away as soon as it was made; NetlinkError. Where one says
 * that the link was made and stays, only the look at what came out failed
 */
export function createVxlan(links: VxlanOptions): Promise<CreatedVxlan>
export function createVxlan(links: readonly VxlanOptions[]): Promise<CreatedVxlan[]>
export function createVxlan(links: VxlanOptions | readonly VxlanOptions[]): Promise<CreatedVxlan | CreatedVxlan[]> {
  return forEach(links, { operation: 'making it', check: wanted, work: create, changed: ({ created }) => created })
}

async function create(want: Wanted, places: Places): Promise<CreatedVxlan> {
  const place = await places.of(want)
  const resolved = await resolve(want, place)
  let replaced = false
  for (let tries = 1; ; tries++) {
    try {
      await place.here.create(newLink(resolved, place))
      return { name: want.name, index: await verified(resolved, place), created: true, replaced }
    } catch (error) {
      if (!(error instanceof NetlinkError) || error.errno !== EEXIST || tries === TRIES) {
        throw await explained(error, want, place, replaced)
      }
      const there = await place.home.link(want)
      if (there === undefined) {
        // It is not the name that exists, unless that went meanwhile.
        if (tries > 1) throw await explained(error, want, place, replaced)
        continue
      }
      const found = await differences(resolved, there, place)
      if (found.length === 0) return { name: want.name, index: there.index, created: false, replaced }
      await remove(want, there, found, place)
      replaced = true
    }
  }
}

/** Looks for what it names. @throws InvalidArgument */
async function resolve(want: Wanted, { here, home }: Place): Promise<Resolved> {
  const device = want.device === undefined ? undefined : await named(want.device, here, `${want.argument}.device`)
  const bridge = want.bridge === undefined ? undefined : await named(want.bridge, home, `${want.argument}.bridge`)
  if (bridge !== undefined && bridge.kind !== 'bridge') {
    throw new InvalidArgument(`${want.argument}.bridge`, `a bridge's name; ${bridge.name} is none`)
  }
  if (device !== undefined && want.mtu !== undefined) checkMtu(want.mtu, device, want)
  return { ...want, deviceIndex: device?.index, bridgeIndex: bridge?.index }
}

async function named(name: string, route: Route, argument: string): Promise<Link> {
  const link = await route.link({ name })
  if (link === undefined) throw new InvalidArgument(argument, 'the name of a link that is there', name)
  return link
}

/** The kernel would take what is over it, and give the link less than was asked for. */
function checkMtu(mtu: number, device: Link, { family, argument }: { family: Family; argument: string }): void {
  const overhead = vxlanOverhead(family)
  const most = Math.max(LEAST_MTU, device.mtu - overhead)
  if (mtu <= most) return
  const version = family === AF_INET ? 'IPv4' : 'IPv6'
  throw new InvalidArgument(
    `${argument}.mtu`,
    `at most ${most}: device ${device.name} has ${device.mtu}, of which VXLAN over ${version} takes ${overhead}`,
    mtu,
  )
}

/** Deletes a link that differs, if it may be. @throws LinkDiffers */
async function remove(want: Wanted, link: Link, found: readonly Difference[], { home }: Place): Promise<void> {
  if (link.kind !== VXLAN || link.name !== want.name) {
    throw new LinkDiffers(want.name, found, 'it is not ours to replace: choose another name')
  }
  if (!want.replace) throw new LinkDiffers(want.name, found, 'replace: true deletes it and makes it anew')
  await home.delete(link)
}

function newLink(want: Resolved, { home, apart }: Place): NewLink {
  return {
    name: want.name,
    kind: VXLAN,
    data: (writer) =>
      writeVxlan(writer, { ...want, local: want.local?.bytes, destination: (want.remote ?? want.group)?.bytes }),
    up: want.up,
    mtu: want.mtu,
    mac: want.mac,
    master: want.bridgeIndex,
    namespace: apart ? home.descriptor : undefined,
  }
}

/** Looks at what was made and returns its index. The kernel says nothing of it where the device's MTU shrank meanwhile. */
async function verified(want: Resolved, place: Place): Promise<number> {
  const link = await made(place.home.link(want))
  if (link === undefined) throw gone(want.name)
  const found = await made(differences(want, link, place))
  if (found.length === 0) return link.index
  if (found.some(({ attribute }) => ['kind', 'vni', 'port'].includes(attribute))) throw gone(want.name)
  await made(place.home.delete(link))
  throw new LinkDiffers(want.name, found, 'it came out so, and was deleted again')
}

/** What is asked about a link once it is made: where that fails, the link is there all the same. */
async function made<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (error) {
    if (!(error instanceof XfrmeshError)) throw error
    const isReachable = error.code !== 'ERR_XFRMESH_NAMESPACE_GONE'
    const rest = isReachable ? ': call again, which leaves it alone or says what differs' : ' while the namespace does'
    error.message += `; the link was made and stays${rest}`
    throw error
  }
}

function gone(name: string): XfrmeshError {
  return new XfrmeshError('ERR_XFRMESH_LINK_GONE', `${name}: it was made, and somebody deleted it at once: call again`)
}
