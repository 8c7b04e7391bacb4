import type { Family } from '../base/address.js'
import { LITTLE_ENDIAN } from './records.js'
import { IPPROTO_ESP } from './xfrm-names.js'
import { TemplateLayout } from './xfrm-parts.js'

/** Parts of records that are encoded once and copied into many. */

export const ATTRIBUTE_HEAD = 4

/** struct nlattr and its payload, of a multiple of four bytes. */
export function attribute(type: number, payload: Uint8Array): Uint8Array {
  const head = new Uint8Array(Uint16Array.of(ATTRIBUTE_HEAD + payload.length, type).buffer)
  return joined(head, payload)
}

export function joined(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts))
}

/** Integers in host byte order. */
export function words(...values: number[]): Uint8Array {
  return new Uint8Array(new Uint32Array(values).buffer)
}

/** A template's fields, where they are not zero. Addresses are 16 bytes. */
export interface TemplateFields {
  readonly family: Family
  readonly reqid: number
  /** XFRM_MODE_* */
  readonly mode: number
  readonly source?: Uint8Array
  readonly destination?: Uint8Array
  readonly spi?: number
  readonly optional?: boolean
}

/** struct xfrm_user_tmpl of ESP, all algorithms allowed. */
export function espTemplate({ family, reqid, mode, source, destination, spi, optional }: TemplateFields): Uint8Array {
  const bytes = new Uint8Array(TemplateLayout.bytes)
  const view = new DataView(bytes.buffer)
  if (destination !== undefined) bytes.set(destination, TemplateLayout.destination)
  view.setUint32(TemplateLayout.spi, spi ?? 0)
  view.setUint8(TemplateLayout.protocol, IPPROTO_ESP)
  // AF_INET6 even where the addresses are zero: the kernel refuses a template whose family its policy's is not.
  view.setUint16(TemplateLayout.family, family, LITTLE_ENDIAN)
  if (source !== undefined) bytes.set(source, TemplateLayout.source)
  view.setUint32(TemplateLayout.reqid, reqid, LITTLE_ENDIAN)
  view.setUint8(TemplateLayout.mode, mode)
  view.setUint8(TemplateLayout.optional, optional === true ? 1 : 0)
  bytes.fill(0xff, TemplateLayout.authMask)
  return bytes
}
