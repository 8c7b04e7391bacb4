import type { Address, Family } from '../base/address.js'
import type { Prefix } from '../base/prefix.js'
import { u32 } from '../kernel/record-identity.js'
import { State } from '../kernel/records.js'
import { type Ends, FAMILIES, type Remote, type Settings } from './settings.js'

/** What a tunnel is for: its number is the reqid of its SAs and templates, as in Cilium. */
export const Purpose = { pods: 1, overlay: 2 } as const
export type Purpose = (typeof Purpose)[keyof typeof Purpose]

/** Two addresses between which ESP in tunnel mode runs, one SA each way and key. */
export interface Tunnel {
  readonly purpose: Purpose
  readonly family: Family
  readonly local: Address
  readonly remote: Address
  /** Ranges of either side in that family; of overlay traffic there are none. */
  readonly localSubnets: readonly Prefix[]
  readonly remoteSubnets: readonly Prefix[]
}

/** The tunnels to another node: of the families that both have, and those alone that anything would go through. */
export function* tunnelsTo(remote: Remote, { local, marks }: Settings): Generator<Tunnel> {
  for (const family of FAMILIES) {
    const [here, there] = [local.addresses.get(family), remote.addresses.get(family)]
    const subnets = { localSubnets: ofFamily(local, family), remoteSubnets: ofFamily(remote, family) }
    const chosen = marks !== false || (subnets.localSubnets.length > 0 && subnets.remoteSubnets.length > 0)
    if (here && there && chosen) yield { purpose: Purpose.pods, family, local: here, remote: there, ...subnets }
  }
  for (const family of FAMILIES) {
    const [here, there] = [local.overlay.get(family), remote.overlay.get(family)]
    const none = { localSubnets: [], remoteSubnets: [] }
    if (here && there) yield { purpose: Purpose.overlay, family, local: here, remote: there, ...none }
  }
}

function ofFamily({ subnets }: Ends, family: Family): Prefix[] {
  return subnets.filter((range) => range.family === family)
}

const KEY_ID_BITS = 4

/**
 * The SPI of what `sender` sends under a key. With marks it is the key's id, as on Cilium's wire: the mark tells the
 * senders apart. The kernel finds an inbound SA by destination and SPI and does not look at its source, so without marks
 * the sender must be in the SPI: the upper 28 bits are the lower ones of its address, folded, and the last hex digit is
 * the key's id. Addresses given out in order never meet; two that do are refused by name.
 */
export function spiOf(sender: Uint8Array, keyId: number, { marks }: Settings): number {
  return marks === false ? ((folded(sender) << KEY_ID_BITS) | keyId) >>> 0 : keyId
}

/** The id of the key that an SPI is of. */
export function keyIdOf(spi: number): number {
  return spi & ((1 << KEY_ID_BITS) - 1)
}

/** The id of the key that a state's SPI names. */
export function keyIdAt(records: Uint8Array, at: number): number {
  return keyIdOf(u32(records, at + State.spi))
}

/** The address's words one over the other; what does not fit into 28 bits over the lower ones. */
function folded(bytes: Uint8Array): number {
  let word = 0
  for (let at = 0; at < 16; at += 4) {
    word ^= (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!
  }
  return (word ^ (word >>> 28)) & 0x0fffffff
}

/** Marks of Cilium's datapath (pkg/datapath/linux/linux_defaults): node id, key id, and what is to be done, each in its bits. */
const ENCRYPT = 0xe00
const DECRYPT = 0xd00
const DECRYPTED_OVERLAY = 0x1d00
const TO_PROXY = 0x200
const ACTION_MASK = 0xf00
/** Where the node id stands in a mark, in bits. */
export const NODE_ID_SHIFT = 16
const KEY_ID_SHIFT = 12
export const OUTBOUND_MASK = 0xffffff00
export const INBOUND_MASK = 0xffff0f00

export interface Mark {
  readonly value: number
  readonly mask: number
}

/** All that is to be encrypted: what the policy that drops goes by. */
export const encryptMark: Mark = { value: ENCRYPT, mask: ACTION_MASK }
export const decryptMark: Mark = { value: DECRYPT, mask: ACTION_MASK }
export const proxyMark: Mark = { value: TO_PROXY, mask: ACTION_MASK }

/** What is to be encrypted for a node under a key: of its outbound SAs and policies. */
export function outboundMark(nodeId: number, keyId: number): Mark {
  return { value: ((nodeId << NODE_ID_SHIFT) | (keyId << KEY_ID_SHIFT) | ENCRYPT) >>> 0, mask: OUTBOUND_MASK }
}

/** What came from a node: of its inbound SAs. */
export function inboundMark(nodeId: number): Mark {
  return { value: ((nodeId << NODE_ID_SHIFT) | DECRYPT) >>> 0, mask: INBOUND_MASK }
}

const OUTPUT_MASK = 0xffffff00

/** The mark that packets have behind an SA. Node and key id go. */
export function outputMark(inbound: boolean, purpose: Purpose, zero: boolean): Mark {
  if (!inbound) return { value: ENCRYPT, mask: OUTPUT_MASK }
  if (zero) return { value: 0, mask: OUTPUT_MASK }
  return { value: purpose === Purpose.overlay ? DECRYPTED_OVERLAY : DECRYPT, mask: OUTPUT_MASK }
}

/** The remote address and family as one text: what tells tunnels apart. */
export function remoteKey(bytes: Uint8Array, family: Family): string {
  const hex = (at: number) => u32(bytes, at).toString(36)
  return `${family} ${hex(0)} ${hex(4)} ${hex(8)} ${hex(12)}`
}
