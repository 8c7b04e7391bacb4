import { AF_INET, AF_INET6, type Family } from '../base/address.js'
import { NETLINK_ROUTE, type NativeOutcome } from '../native.js'
import { malformed } from './attributes.js'
import { Channel, type ChannelOptions } from './channel.js'
import { AF_BRIDGE } from './neighbour-records.js'
import { AttributeWriter, Attributes } from './netlink-attributes.js'
import { Cursor } from './netlink-cursor.js'
import { checkEnding } from './netlink-errors.js'
import { LITTLE_ENDIAN } from './records.js'

/** Neighbour and FDB entries of a namespace's links, in records (neighbour-records.ts). */

/** A link, as far as its entries depend on it. */
export interface LinkView {
  readonly index: number
  /** `vxlan`, `bridge` …; undefined of a device. */
  readonly kind: string | undefined
  /** Of a VXLAN link: the family of its outer addresses, where it names one. */
  readonly family: Family | undefined
  /** Of a VXLAN link: packets bring the network themselves (`external`, IFLA_VXLAN_COLLECT_METADATA). */
  readonly isExternal: boolean
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

  /** The link of that name; undefined if there is none. */
  async link(name: string): Promise<LinkView | undefined> {
    const what = `looking up link ${name}`
    const question = linkNamed(name)
    const reply = await this.#channel.run(what, (socket, job) =>
      socket.request(job, RTM_GETLINK, 0, question, this.#channel.timeoutMs),
    )
    if (reply.errno === ENODEV) return undefined
    checkEnding(what, reply)
    return viewOfLink(reply.messages)
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

/** The payload of the RTM_GETLINK for the link of that name. */
function linkNamed(name: string): Uint8Array {
  const writer = new AttributeWriter(LITTLE_ENDIAN)
  writer.skip(IFINFOMSG_BYTES)
  writer.text(IFLA_IFNAME, name).u32(IFLA_EXT_MASK, SKIP_STATISTICS)
  return writer.written
}

/** The link in the first RTM_NEWLINK. */
function viewOfLink(messages: Uint8Array): LinkView {
  const message = new Cursor(messages, IFINFOMSG_BYTES)
  if (!message.nextMessage()) throw malformed('no link')
  const attributes = new Attributes(message.payload, LITTLE_ENDIAN)
  const info = attributes.has(IFLA_LINKINFO) ? attributes.nest(IFLA_LINKINFO) : undefined
  const data = info?.has(IFLA_INFO_DATA) === true ? info.nest(IFLA_INFO_DATA) : undefined
  const has = (...types: number[]) => types.some((type) => data?.has(type) === true)
  return {
    index: message.head.getInt32(INDEX_OFFSET, LITTLE_ENDIAN),
    kind: info?.has(IFLA_INFO_KIND) === true ? info.text(IFLA_INFO_KIND) : undefined,
    family: has(Vxlan.group6, Vxlan.local6) ? AF_INET6 : has(Vxlan.group, Vxlan.local) ? AF_INET : undefined,
    isExternal: has(Vxlan.collectMetadata) && data?.bytes(Vxlan.collectMetadata)[0] === 1,
  }
}

const ENODEV = 19
const EINVAL = 22

/** linux/rtnetlink.h, linux/neighbour.h, linux/if_link.h. */
const RTM_GETLINK = 18
const RTM_DELNEIGH = 29
const NDMSG_BYTES = 12
const IFLA_IFNAME = 3
const IFLA_LINKINFO = 18
const IFLA_INFO_KIND = 1
const IFLA_INFO_DATA = 2
const Vxlan = { group: 2, local: 4, group6: 16, local6: 17, collectMetadata: 25 } as const
/** RTEXT_FILTER_SKIP_STATS: counters are most of what the kernel says of a link. */
const IFLA_EXT_MASK = 29
const SKIP_STATISTICS = 8
/** struct ifinfomsg, and where in it the index is. */
const IFINFOMSG_BYTES = 16
const INDEX_OFFSET = 4
