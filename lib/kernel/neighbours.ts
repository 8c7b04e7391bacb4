import { AF_INET, AF_INET6, type Family } from '../base/address.js'
import { NETLINK_ROUTE, type NativeOutcome } from '../native.js'
import { Channel, type ChannelOptions } from './channel.js'
import { LinkMessage, linkNamed, readLinks, type Link, type LinkName } from './link.js'
import { GET_NAMESPACE_ID, namespaceIdOf, readNamespaceIds } from './namespace-id.js'
import { AF_BRIDGE } from './neighbour-records.js'
import { checkEnding } from './netlink-errors.js'
import { readVxlan, VXLAN } from './vxlan.js'

/** Neighbour and FDB entries of a namespace's links, in records (neighbour-records.ts). */

/** A link, as far as its entries depend on it. */
export interface LinkView {
  readonly index: number
  readonly name: string
  /** `vxlan`, `bridge` …; undefined of a device. */
  readonly kind: string | undefined
  /** Of a VXLAN link: the family of its outer addresses, where it names one. */
  readonly family: Family | undefined
  /** Of a VXLAN link: packets bring the network themselves (`external`, IFLA_VXLAN_COLLECT_METADATA). */
  readonly isExternal: boolean
  /** Of a VXLAN link: 0 of one that is external. */
  readonly vni: number
  /** Of a VXLAN link: the UDP port that it receives at, and sends to. */
  readonly port: number
  /** {@link Link.linkNamespace} */
  readonly linkNamespace: number | undefined
}

export class NeighbourChannel {
  readonly #channel: Channel

  private constructor(channel: Channel) {
    this.#channel = channel
  }

  /** @throws what {@link Channel.open} does */
  static async open(options: ChannelOptions): Promise<NeighbourChannel> {
    return new NeighbourChannel(await Channel.open(NETLINK_ROUTE, options))
  }

  /** undefined if there is no such link. */
  async link(link: LinkName): Promise<LinkView | undefined> {
    const what = `looking up link ${'name' in link ? link.name : link.index}`
    const question = linkNamed(link)
    const reply = await this.#channel.run(what, (socket, job) =>
      socket.request(job, LinkMessage.get, 0, question, this.#channel.timeoutMs),
    )
    if (reply.errno === ENODEV) return undefined
    checkEnding(what, reply)
    return readLinks(reply.messages).map(viewOf)[0]
  }

  /** @see Channel.checkName */
  checkName(what: string): void {
    this.#channel.checkName(what)
  }

  /** @see Channel.namespaceInode */
  get namespaceInode(): number {
    return this.#channel.namespaceInode
  }

  /** The id by which a namespace is known in this one, by a descriptor of it; undefined if it has none. */
  async namespaceId(descriptor: number): Promise<number | undefined> {
    const what = "looking for a namespace's id"
    const question = namespaceIdOf(descriptor)
    const reply = await this.#channel.run(what, (socket, job) =>
      socket.request(job, GET_NAMESPACE_ID, 0, question, this.#channel.timeoutMs),
    )
    checkEnding(what, reply)
    return readNamespaceIds(reply.messages)[0]
  }

  /** @throws Unsupported without CAP_NET_ADMIN over the namespace: better at first than for each entry */
  async checkCapability(): Promise<void> {
    const what = 'changing neighbours'
    // A deletion of nothing: the kernel looks at the capability first.
    const reply = await this.#channel.run(what, (socket, job) =>
      socket.request(job, RTM_DELNEIGH, 0, new Uint8Array(NDMSG_BYTES), this.#channel.timeoutMs),
    )
    if (reply.errno !== EINVAL) checkEnding(what, reply)
  }

  /** Hands a buffer of records to the kernel, in order. The buffer is the addon's until this settles. */
  commit(records: Uint8Array): Promise<NativeOutcome> {
    return this.#channel.run('commit', (socket, job) => socket.commit(job, records, [], [], this.#channel.timeoutMs))
  }

  /** Records of a link's whole FDB, but what stands in that of its bridge. */
  readFdb(link: number): Promise<Uint8Array> {
    return this.#read('reading the FDB', AF_BRIDGE, link)
  }

  /** Records of a link's neighbours, of one family. */
  readNeighbours(link: number, family: Family): Promise<Uint8Array> {
    return this.#read('reading neighbours', family, link)
  }

  /** @see Channel.lock */
  lock(name: string): Promise<{ pid: number; uid: number } | undefined> {
    return this.#channel.lock(name)
  }

  close(): Promise<void> {
    return this.#channel.close()
  }

  async #read(what: string, family: number, link: number): Promise<Uint8Array> {
    const dump = await this.#channel.run(what, (socket, job) =>
      socket.readNeighbours(job, family, link, this.#channel.timeoutMs),
    )
    checkEnding(what, dump)
    return dump.records
  }
}

function viewOf({ index, name, kind, data, linkNamespace }: Link): LinkView {
  if (kind !== VXLAN || data === undefined)
    return { index, name, kind, family: undefined, isExternal: false, vni: 0, port: 0, linkNamespace }
  const { family, external, vniFilter, vni, port } = readVxlan(data)
  const families = { 4: AF_INET, 6: AF_INET6 } as const
  return {
    index,
    name,
    kind,
    family: family && families[family],
    isExternal: external || vniFilter,
    vni,
    port,
    linkNamespace,
  }
}

const ENODEV = 19
const EINVAL = 22

/** linux/rtnetlink.h, linux/neighbour.h. */
const RTM_DELNEIGH = 29
const NDMSG_BYTES = 12
