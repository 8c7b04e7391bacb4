import { AF_INET, AF_INET6, type Family } from '../base/address.js'
import { NETLINK_ROUTE, type NativeOutcome } from '../native.js'
import { eachAttribute, HEADER_BYTES, viewOf } from './attributes.js'
import { Channel, type ChannelOptions } from './channel.js'
import { AF_BRIDGE } from './neighbour-records.js'
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
  const text = Buffer.from(`${name}\0`)
  const payload = new Uint8Array(IFINFOMSG_BYTES + HEADER_BYTES + text.length)
  const view = viewOf(payload)
  view.setUint16(IFINFOMSG_BYTES, HEADER_BYTES + text.length, LITTLE_ENDIAN)
  view.setUint16(IFINFOMSG_BYTES + 2, IFLA_IFNAME, LITTLE_ENDIAN)
  payload.set(text, IFINFOMSG_BYTES + HEADER_BYTES)
  return payload
}

/** The link in an RTM_NEWLINK. */
function viewOfLink(message: Uint8Array): LinkView {
  const view = viewOf(message)
  const index = view.getInt32(MESSAGE_BYTES + INDEX_OFFSET, LITTLE_ENDIAN)
  const attributes = message.subarray(MESSAGE_BYTES + IFINFOMSG_BYTES, view.getUint32(0, LITTLE_ENDIAN))
  const info = within(within(attributes).get(IFLA_LINKINFO))
  const data = within(info.get(IFLA_INFO_DATA))
  const isIpv6 = data.has(Vxlan.group6) || data.has(Vxlan.local6)
  const isIpv4 = data.has(Vxlan.group) || data.has(Vxlan.local)
  return {
    index,
    kind: text(info.get(IFLA_INFO_KIND)),
    family: isIpv6 ? AF_INET6 : isIpv4 ? AF_INET : undefined,
    isExternal: data.get(Vxlan.collectMetadata)?.[0] === 1,
  }
}

function within(nest: Uint8Array | undefined): Map<number, Uint8Array> {
  return new Map(nest && eachAttribute(nest))
}

function text(bytes: Uint8Array | undefined): string | undefined {
  return bytes && Buffer.from(bytes).toString('latin1').replace(/\0.*$/, '')
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
/** struct nlmsghdr, struct ifinfomsg, and where in that the index is. */
const MESSAGE_BYTES = 16
const IFINFOMSG_BYTES = 16
const INDEX_OFFSET = 4
