import { namespace, options } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import type { Link } from '../kernel/link.js'
import type { Route } from '../kernel/route.js'
import { VXLAN } from '../kernel/vxlan.js'
import { LinkDiffers } from './errors.js'
import { Names, typed } from './link.js'
import { forEach } from './many.js'
import { linkName, port, vni } from './options.js'
import type { Places } from './place.js'

/** Which link: by its name, or by its VNI and port. */
export interface VxlanName {
  name?: string
  vni?: number
  /** With `vni`. Default: 4789. */
  port?: number
  /** The network namespace that the link lives in: a path or an open descriptor. Default: the process's own. */
  netns?: string | number
}

interface Named {
  readonly argument: string
  readonly which: { readonly name: string } | { readonly vni: number; readonly port: number }
  readonly netns: string | number | undefined
  readonly moveTo: undefined
}

/**
 * Deletes a VXLAN link, whoever made it, and says whether there was one. Given a list it does so one after the other, to
 * its end, and rejects with a PartialFailure if one could not be deleted. All arguments are checked before the first.
 *
 * @throws InvalidArgument also for a namespace that is not there, and for a VNI and port that several links there have
 * @throws LinkDiffers for a link of that name that is no VXLAN link
 * @throws Unsupported without CAP_NET_ADMIN; NetlinkError
 */
export function deleteVxlan(links: VxlanName): Promise<boolean>
export function deleteVxlan(links: readonly VxlanName[]): Promise<boolean[]>
export function deleteVxlan(links: VxlanName | readonly VxlanName[]): Promise<boolean | boolean[]> {
  return forEach(links, { operation: 'deleting it', check: named, work: remove, changed: (deleted) => deleted })
}

function named(value: unknown, argument: string): Named {
  const given = options<VxlanName>(value, argument, ['name', 'vni', 'port', 'netns'])
  const netns = namespace(given.netns, `${argument}.netns`)
  if (given.name === undefined) {
    const which = { vni: vni(given.vni, `${argument}.vni`), port: port(given.port, `${argument}.port`) }
    return { argument, which, netns, moveTo: undefined }
  }
  for (const other of ['vni', 'port'] as const) {
    if (given[other] === undefined) continue
    throw new InvalidArgument(`${argument}.${other}`, 'left out with a name', given[other])
  }
  return { argument, which: { name: linkName(given.name, `${argument}.name`) }, netns, moveTo: undefined }
}

async function remove(want: Named, places: Places): Promise<boolean> {
  const { here } = await places.of(want)
  const link = 'name' in want.which ? await ofName(here, want.which.name) : await ofVni(here, want.which, want.argument)
  return link !== undefined && here.delete(link)
}

async function ofName(route: Route, name: string): Promise<Link | undefined> {
  const link = await route.link({ name })
  if (link === undefined || link.kind === VXLAN) return link
  throw new LinkDiffers(name, [{ attribute: 'kind', have: link.kind, want: VXLAN }], 'it was left alone')
}

async function ofVni(
  route: Route,
  { vni, port }: { vni: number; port: number },
  argument: string,
): Promise<Link | undefined> {
  const names = new Names(route)
  const found: Link[] = []
  for (const link of await route.links(VXLAN)) {
    const vxlan = await typed(link, names)
    if (vxlan.vni === vni && vxlan.port === port) found.push(link)
  }
  if (found.length < 2) return found[0]
  const all = found.map(({ name }) => name).join(' and ')
  throw new InvalidArgument(`${argument}.name`, `given: ${all} have VNI ${vni} and port ${port}`)
}
