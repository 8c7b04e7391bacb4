import { formatMac } from '../base/mac.js'
import { AttributeWriter, Attributes } from './netlink-attributes.js'
import { Cursor } from './netlink-cursor.js'
import { LITTLE_ENDIAN } from './records.js'

/** Network links in rtnetlink's messages: struct ifinfomsg, then attributes IFLA_* (linux/if_link.h), in host byte order. */

/** RTM_* (linux/rtnetlink.h). */
export const LinkMessage = { new: 16, delete: 17, get: 18 } as const

const IFINFOMSG_BYTES = 16
const INDEX = 4
const FLAGS = 8
const CHANGE = 12
const IFF_UP = 1

const Attribute = {
  address: 1,
  name: 3,
  mtu: 4,
  master: 10,
  info: 18,
  namespaceDescriptor: 28,
  extensions: 29,
  linkNamespace: 37,
  targetNamespace: 46,
} as const
/** IFLA_INFO_* */
const Info = { kind: 1, data: 2 } as const
/** RTEXT_FILTER_SKIP_STATS: counters are most of what the kernel says of a link. */
const SKIP_STATISTICS = 8

/** A link of any kind. */
export interface Link {
  readonly index: number
  readonly name: string
  /** Whether it is set up (IFF_UP), not whether it has a carrier. */
  readonly up: boolean
  readonly mtu: number
  /** Its Ethernet address, if it has one. */
  readonly mac: string | undefined
  /** Index of the bridge, bond, VRF that it belongs to. */
  readonly master: number | undefined
  /** As in `ip link add type KIND`; undefined for hardware, and what has none. */
  readonly kind: string | undefined
  /** What is special to its kind: IFLA_INFO_DATA. */
  readonly data: Attributes | undefined
  /**
   * Where what is beneath it is in another namespace: that one's id in the namespace that was asked. What lives there is
   * a VXLAN link's socket and device.
   */
  readonly linkNamespace: number | undefined
}

/** What a link is to be made with. What is left out is the kernel's choice. */
export interface NewLink {
  readonly name: string
  readonly kind: string
  /** Writes IFLA_INFO_DATA. */
  readonly data: (writer: AttributeWriter) => void
  readonly up: boolean
  readonly mtu: number | undefined
  readonly mac: Uint8Array | undefined
  /** Index of the bridge, in the namespace that the link comes to live in. */
  readonly master: number | undefined
  /** Descriptor of the namespace that it comes to live in; undefined: where it is made. */
  readonly namespace: number | undefined
}

/** The payload that makes a link, with all that is asked for, or none: one message. */
export function newLink(link: NewLink): Uint8Array {
  const writer = new AttributeWriter(LITTLE_ENDIAN)
  const head = writer.skip(IFINFOMSG_BYTES)
  if (link.up) {
    writer.view.setUint32(head + FLAGS, IFF_UP, LITTLE_ENDIAN)
    writer.view.setUint32(head + CHANGE, IFF_UP, LITTLE_ENDIAN)
  }
  writer.text(Attribute.name, link.name)
  if (link.mtu !== undefined) writer.u32(Attribute.mtu, link.mtu)
  if (link.mac !== undefined) writer.bytes(Attribute.address, link.mac)
  if (link.master !== undefined) writer.u32(Attribute.master, link.master)
  if (link.namespace !== undefined) writer.u32(Attribute.namespaceDescriptor, link.namespace)
  writer.nest(Attribute.info, (info) => info.text(Info.kind, link.kind).nest(Info.data, link.data))
  return writer.written
}

/** A link by its name (or an alternative name of it) or its index. */
export type LinkName = { readonly name: string } | { readonly index: number }

/** The payload that names a link, for RTM_GETLINK and RTM_DELLINK. */
export function linkNamed(link: LinkName, namespaceId?: number): Uint8Array {
  const writer = new AttributeWriter(LITTLE_ENDIAN)
  const head = writer.skip(IFINFOMSG_BYTES)
  if ('index' in link) writer.view.setInt32(head + INDEX, link.index, LITTLE_ENDIAN)
  else writer.text(Attribute.name, link.name)
  return filtered(writer, namespaceId)
}

/** The payload that lists links of a kind. Kernels that do not know the kind list all. */
export function linksOfKind(kind: string, namespaceId?: number): Uint8Array {
  const writer = new AttributeWriter(LITTLE_ENDIAN)
  writer.skip(IFINFOMSG_BYTES)
  writer.nest(Attribute.info, (info) => info.text(Info.kind, kind))
  return filtered(writer, namespaceId)
}

function filtered(writer: AttributeWriter, namespaceId: number | undefined): Uint8Array {
  writer.u32(Attribute.extensions, SKIP_STATISTICS)
  if (namespaceId !== undefined) writer.u32(Attribute.targetNamespace, namespaceId)
  return writer.written
}

/** @throws XfrmeshError ERR_XFRMESH_MALFORMED */
export function readLinks(messages: Uint8Array): Link[] {
  const links: Link[] = []
  for (const message = new Cursor(messages, IFINFOMSG_BYTES); message.nextMessage();) {
    if (message.type === LinkMessage.new) links.push(readLink(message))
  }
  return links
}

function readLink({ head, payload }: Cursor): Link {
  const attributes = new Attributes(payload, LITTLE_ENDIAN)
  const info = attributes.has(Attribute.info) ? attributes.nest(Attribute.info) : undefined
  return {
    index: head.getInt32(INDEX, LITTLE_ENDIAN),
    name: attributes.text(Attribute.name),
    up: (head.getUint32(FLAGS, LITTLE_ENDIAN) & IFF_UP) !== 0,
    mtu: attributes.u32(Attribute.mtu),
    mac: attributes.has(Attribute.address) ? formatMac(attributes.bytes(Attribute.address)) : undefined,
    master: attributes.has(Attribute.master) ? attributes.u32(Attribute.master) : undefined,
    kind: info?.has(Info.kind) === true ? info.text(Info.kind) : undefined,
    data: info?.has(Info.data) === true ? info.nest(Info.data) : undefined,
    linkNamespace: attributes.has(Attribute.linkNamespace) ? attributes.i32(Attribute.linkNamespace) : undefined,
  }
}
