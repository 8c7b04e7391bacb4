import { formatAddress } from '../base/address.js'
import { reveal } from '../base/key.js'
import { viewOf } from '../kernel/attributes.js'
import { LITTLE_ENDIAN, NO_KEY, State } from '../kernel/records.js'
import type { TableBuilder } from '../kernel/xfrm-keys.js'
import type { Belonging } from './belonging.js'
import type { Algorithm } from './keyfile.js'
import type { NodeKeyring } from './keyring.js'
import { pairKey } from './pair-key.js'
import { printOf } from './sequences.js'
import type { Remote, Settings } from './settings.js'
import { keyIdAt } from './tunnels.js'

/** The derived keys of a state's algorithms, 16 to 64 bytes each; the holder wipes them. */
export interface StateKeys {
  readonly cipher: Uint8Array | undefined
  readonly auth: Uint8Array | undefined
}

/** Derives the keys of SAs from what their records say. */
export class KeyDeriver {
  readonly #settings: Settings
  readonly #keyring: NodeKeyring
  readonly #belonging: Belonging

  constructor(settings: Settings, keyring: NodeKeyring, belonging: Belonging) {
    this.#settings = settings
    this.#keyring = keyring
    this.#belonging = belonging
  }

  /** The keys of a state between this node and another; undefined if the shared key is not here. */
  keysOf(records: Uint8Array, at: number, node: Remote): StateKeys | undefined {
    const family = records[at + State.family]!
    const source = records.subarray(at + State.source, at + State.spi)
    const id = keyIdAt(records, at)
    const key = this.#keyring.key(id, formatAddress(source, 0, family))
    if (key === undefined) return undefined
    const [sender, receiver] = this.#belonging.isInbound(records, at)
      ? [node.bootId, this.#settings.local.bootId]
      : [this.#settings.local.bootId, node.bootId]
    const ends = {
      family,
      source,
      destination: records.subarray(at + State.destination, at + State.source),
      sourceBootId: sender,
      destinationBootId: receiver,
    }
    const derived = (algorithm: Algorithm | undefined) =>
      algorithm === undefined || algorithm.key.length === 0 ? undefined : pairKey(reveal(algorithm.key), ends)
    return { cipher: derived(key.aead ?? key.encryption), auth: derived(key.auth) }
  }

  /**
   * Puts derived keys into the tables, and their indices into a state's record in place of tokens.
   * @returns what tells the keys from others
   */
  fill(records: Uint8Array, at: number, node: Remote, tables: TableBuilder): string {
    const keys = this.keysOf(records, at, node)!
    const view = viewOf(records)
    for (const [offset, key] of [
      [State.cipherKey, keys.cipher],
      [State.authKey, keys.auth],
    ] as const) {
      view.setUint32(at + offset, key === undefined ? NO_KEY : tables.key(key, key.length), LITTLE_ENDIAN)
    }
    const print = printOf(keys.cipher, keys.auth)
    wipe(keys)
    return print
  }
}

export function wipe({ cipher, auth }: StateKeys): void {
  cipher?.fill(0)
  auth?.fill(0)
}
