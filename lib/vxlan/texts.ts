import { familyOf, KEY_WORDS, keyText } from '../base/address-key.js'
import { formatMac } from '../base/packed-mac.js'
import { MAC_OFFSET, MAC_WORDS } from '../kernel/neighbour-records.js'

/** Rows of packed columns as text, for people. */

export function addressAt(keys: Uint32Array, row: number): string {
  const at = row * KEY_WORDS
  return keyText(new Uint8Array(keys.buffer), at * 4, familyOf(keys, at))
}

export function macAt(macs: Uint32Array, row: number): string {
  return formatMac(new Uint8Array(macs.buffer), row * MAC_WORDS * 4 + MAC_OFFSET)
}
