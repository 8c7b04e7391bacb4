import { namespace, options } from '../base/check.js'
import { malformed } from '../kernel/attributes.js'
import type { Link } from '../kernel/link.js'
import { Route } from '../kernel/route.js'
import { readVxlan, VXLAN, type VxlanAttributes } from '../kernel/vxlan.js'

/** A VXLAN link as the kernel has it. */
export interface VxlanLink extends VxlanAttributes {
  readonly name: string
  readonly index: number
  readonly up: boolean
  readonly mtu: number
  readonly mac: string | undefined
  /** The bridge, or other master, that it is attached to. */
  readonly bridge: string | undefined
  readonly bridgeIndex: number | undefined
  /** The device's name; undefined too if its namespace cannot be looked into. Its index is there in any case. */
  readonly device: string | undefined
  /**
   * The id of the namespace that its socket and device live in, as `ip netns list-id` shows it in the link's own
   * namespace; undefined if that is the same.
   */
  readonly socketNamespace: number | undefined
}

/**
 * The VXLAN links that live in a namespace, whoever made them, in order of their indices. None on a kernel without VXLAN.
 * @throws InvalidArgument for a namespace that is not there
 */
export async function listVxlan(of: { netns?: string | number } = {}): Promise<VxlanLink[]> {
  const { netns } = options<{ netns?: string | number }>(of, 'options', ['netns'])
  const route = await Route.open(namespace(netns, 'options.netns'), 'options.netns')
  try {
    const names = new Names(route)
    const links: VxlanLink[] = []
    for (const link of await route.links(VXLAN)) links.push(await typed(link, names))
    return links.sort((a, b) => a.index - b.index)
  } finally {
    await route.close()
  }
}

/** A link of that kind, with the names of what it is attached to. */
export async function typed(link: Link, names: Names): Promise<VxlanLink> {
  const vxlan = vxlanOf(link)
  return {
    ...vxlan,
    name: link.name,
    index: link.index,
    up: link.up,
    mtu: link.mtu,
    mac: link.mac,
    bridge: await names.of(link.master),
    bridgeIndex: link.master,
    device: await names.of(vxlan.deviceIndex, link.linkNamespace),
    socketNamespace: link.linkNamespace,
  }
}

/** @throws XfrmeshError ERR_XFRMESH_MALFORMED */
export function vxlanOf({ name, data }: Link): VxlanAttributes {
  if (data === undefined) throw malformed(`nothing of VXLAN in link ${name}`)
  return readVxlan(data)
}

/** Names of links by their indices, each looked up once. */
export class Names {
  readonly #route: Route
  readonly #known = new Map<string, string | undefined>()

  constructor(route: Route) {
    this.#route = route
  }

  /** undefined for one that is gone, or in a namespace that must not be looked into. */
  async of(index: number | undefined, namespaceId?: number): Promise<string | undefined> {
    if (index === undefined) return undefined
    const key = `${namespaceId} ${index}`
    if (!this.#known.has(key)) this.#known.set(key, await this.#look(index, namespaceId))
    return this.#known.get(key)
  }

  async #look(index: number, namespaceId: number | undefined): Promise<string | undefined> {
    try {
      return (await this.#route.link({ index }, namespaceId))?.name
    } catch (error) {
      if (namespaceId === undefined) throw error
      return undefined
    }
  }
}
