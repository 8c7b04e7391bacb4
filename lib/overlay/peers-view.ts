import { ADDRESS_BYTES } from '../base/address.js'
import type { Keyring } from './keyring.js'
import { type PeerTable, PortSource } from './peers.js'
import type { SpiDeriver } from './spi.js'

export type PortOrigin = keyof typeof PortSource

/** By the number of {@link PortSource}. */
const origins = Object.keys(PortSource) as PortOrigin[]

/** One peer, as it is now. */
export interface PeerStatus {
  /** Canonical text. */
  readonly address: string
  /** How often it was added and not removed, and how many endpoints are at it. */
  readonly references: number
  /** 'degraded': it lacks some of what it should have; `reconcile()`, or adding it again, tries again. It fails closed. */
  readonly state: 'active' | 'degraded'
  /** With `nat`, the UDP port that ESP goes to: assumed to be as our own, given, or learned from the peer's packets. */
  readonly port?: { readonly number: number; readonly from: PortOrigin }
  /** By key, the primary first: the SPI of the SA that leads to the peer under it, and of the one that comes from it. */
  readonly spis: readonly { readonly tag: number; readonly forward: number; readonly reverse: number }[]
}

/** The peers wanted. */
export interface Peers extends Iterable<PeerStatus> {
  readonly size: number
  /** The peer of that address, in any form of it; undefined if it was not added. */
  get(address: string): PeerStatus | undefined
}

export class PeersView implements Peers {
  readonly #mesh: { readonly peers: PeerTable; readonly keyring: Keyring }
  readonly #spis: SpiDeriver

  constructor(mesh: { readonly peers: PeerTable; readonly keyring: Keyring }, spis: SpiDeriver) {
    this.#mesh = mesh
    this.#spis = spis
  }

  get size(): number {
    return this.#mesh.peers.wanted
  }

  get(address: string): PeerStatus | undefined {
    const { peers } = this.#mesh
    const slot = peers.lookup(address)
    return slot >= 0 && peers.references[slot]! > 0 ? this.#status(slot) : undefined
  }

  *[Symbol.iterator](): Generator<PeerStatus> {
    const { peers } = this.#mesh
    for (const slot of peers.slots()) if (peers.references[slot]! > 0) yield this.#status(slot)
  }

  #status(slot: number): PeerStatus {
    const { peers, keyring } = this.#mesh
    const at = slot * ADDRESS_BYTES
    return {
      address: peers.text(slot),
      references: peers.references[slot]!,
      state: peers.degraded[slot] === 1 ? 'degraded' : 'active',
      ...(peers.port[slot] !== 0 && { port: { number: peers.port[slot]!, from: origins[peers.portSource[slot]!]! } }),
      spis: keyring.tags.map((tag) => ({
        tag,
        forward: this.#spis.forward(tag, peers.bytes, at),
        reverse: this.#spis.reverse(tag, peers.bytes, at),
      })),
    }
  }
}
