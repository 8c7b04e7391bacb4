import { AttributeWriter, Attributes } from './netlink-attributes.js'
import { Cursor } from './netlink-cursor.js'
import { LITTLE_ENDIAN } from './records.js'

/** The numbers by which one network namespace knows others (linux/net_namespace.h); `ip netns list-id` shows them. */

/** RTM_GETNSID (linux/rtnetlink.h). */
export const GET_NAMESPACE_ID = 90

/** struct rtgenmsg: a family, padded. */
const RTGENMSG_BYTES = 4
const Attribute = { id: 1, descriptor: 3 } as const

/** The payload that asks for the id of a namespace by a descriptor; with none, for all there are. */
export function namespaceIdOf(descriptor?: number): Uint8Array {
  const writer = new AttributeWriter(LITTLE_ENDIAN)
  writer.skip(RTGENMSG_BYTES)
  if (descriptor !== undefined) writer.u32(Attribute.descriptor, descriptor)
  return writer.written
}

/** One that has none yet is left out. @throws XfrmeshError ERR_XFRMESH_MALFORMED */
export function readNamespaceIds(messages: Uint8Array): number[] {
  const ids: number[] = []
  for (const message = new Cursor(messages, RTGENMSG_BYTES); message.nextMessage();) {
    const id = new Attributes(message.payload, LITTLE_ENDIAN).i32(Attribute.id)
    if (id >= 0) ids.push(id)
  }
  return ids
}
