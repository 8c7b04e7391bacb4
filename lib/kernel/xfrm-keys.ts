import { InvalidArgument } from '../base/errors.js'
import { Key, ownBytes, reveal } from '../base/key.js'
import { NO_ALGORITHM } from './records.js'
import type { SideTables } from './xfrm-channel.js'

/** Longest key taken, in bytes. No algorithm of the kernel's comes near it. */
const KEY_BYTES = 512
/** At the end of a key of a combined-mode cipher (RFC 4106, 4; RFC 7634, 2). */
export const SALT_BYTES = 4
/** struct xfrm_algo's alg_name, without its zero. */
const NAME_BYTES = 63

/** The side tables of a batch: each key and each algorithm's name once, with an index. The keys are copies, to be wiped. */
export class TableBuilder implements SideTables {
  readonly keys: Uint8Array[] = []
  readonly algorithms: string[] = []
  /** Indices by hash of the bytes: what the caller's array holds may have changed since it was last here. */
  readonly #keyIndices = new Map<number, number[]>()
  readonly #nameIndices = new Map<string, number>()
  #latest = 0

  /** The index of a key's first `length` bytes. */
  key(bytes: Uint8Array, length: number): number {
    const { keys } = this
    if (this.#latest < keys.length && startsWith(bytes, length, keys[this.#latest]!)) return this.#latest
    const hash = hashOf(bytes, length)
    const candidates = this.#keyIndices.get(hash)
    const known = candidates?.find((index) => startsWith(bytes, length, keys[index]!))
    if (known !== undefined) return (this.#latest = known)
    this.#latest = keys.push(ownBytes(bytes, length)) - 1
    if (candidates === undefined) this.#keyIndices.set(hash, [this.#latest])
    else candidates.push(this.#latest)
    return this.#latest
  }

  /** The index of an algorithm's name. @throws InvalidArgument */
  algorithm(name: unknown, argument: string): number {
    const known = this.#nameIndices.get(name as string)
    if (known !== undefined) return known
    if (typeof name !== 'string' || name === '' || name.includes('\0') || Buffer.byteLength(name) > NAME_BYTES) {
      throw new InvalidArgument(argument, `the kernel's name of an algorithm, 1 to ${NAME_BYTES} bytes`, name)
    }
    if (this.algorithms.length === NO_ALGORITHM) {
      throw new InvalidArgument(argument, `one of at most ${NO_ALGORITHM} names in a batch`, name)
    }
    const index = this.algorithms.push(name) - 1
    this.#nameIndices.set(name, index)
    return index
  }

  /** Overwrites the keys. */
  wipe(): void {
    for (const key of this.keys) key.fill(0)
    this.keys.length = 0
    this.#keyIndices.clear()
  }
}

/** The bytes of a key option. @throws InvalidArgument */
export function keyBytes(key: unknown, argument: string, least: 0 | 1): Uint8Array {
  const bytes = key instanceof Key ? reveal(key) : key
  if (!(bytes instanceof Uint8Array) || bytes.length < least || bytes.length > KEY_BYTES) {
    throw new InvalidArgument(argument, `a Uint8Array or Key of ${least} to ${KEY_BYTES} bytes`, bytes)
  }
  return bytes
}

function startsWith(bytes: Uint8Array, length: number, known: Uint8Array): boolean {
  if (known.length !== length) return false
  for (let i = 0; i < length; i++) if (bytes[i] !== known[i]) return false
  return true
}

/** FNV-1a. */
function hashOf(bytes: Uint8Array, length: number): number {
  let hash = 0x811c9dc5 ^ length
  for (let i = 0; i < length; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193)
  return hash
}
