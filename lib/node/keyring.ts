import { array } from '../base/check.js'
import { InvalidArgument, InvalidState } from '../base/errors.js'
import { Key, reveal } from '../base/key.js'
import { NO_KEY } from '../kernel/records.js'
import { LAST_KEY_ID, type Algorithm, type NodeKey, type NodeKeys } from './keyfile.js'

/** The keys of one id: one for all addresses, others for those that have their own. */
interface Generation {
  readonly id: number
  /** A number that no other keys of this process have. */
  readonly epoch: number
  readonly keys: readonly NodeKey[]
}

const EPOCH_BITS = 11
const BOOT_BITS = 20

/**
 * The keys of a NodeEncryption by their ids, and what each is for: one encrypts; all decrypt; one may be prepared to
 * encrypt next. The one that encrypts may be known by its id alone, where an earlier process put it into the kernel; so
 * may the next one then, until it is prepared.
 */
export class NodeKeyring {
  readonly #generations = new Map<number, Generation>()
  /** Names of all algorithms ever seen: records name them by index. */
  readonly algorithms: string[] = []
  #current: number
  #next: number | undefined
  /** What decrypts under the next key is in place everywhere. */
  #isReady = false
  /** A key that came with the latest prepare(), as long as that is not done: nobody was told of it. */
  #unproven: number | undefined
  #epochs = 0

  /** @param argument what errors call the keys */
  constructor(keys: unknown, argument = 'options.keys') {
    const generation = this.#generationOf(keys, argument)
    this.#generations.set(generation.id, generation)
    this.#current = generation.id
  }

  /** The id of the key that encrypts. */
  get current(): number {
    return this.#current
  }

  /** The id of the key that is to encrypt next, if there is one. */
  get next(): number | undefined {
    return this.#next
  }

  /** Whether what decrypts under the next key is in place everywhere, so that it can be committed. */
  get isReady(): boolean {
    return this.#isReady
  }

  /** The ids of all keys that are here. */
  get ids(): number[] {
    return [...this.#generations.keys()].sort((a, b) => a - b)
  }

  /** Ids of the keys that are here and were to encrypt once. */
  get old(): number[] {
    return this.ids.filter((id) => id !== this.#current && id !== this.#next)
  }

  has(id: number): boolean {
    return this.#generations.has(id)
  }

  /**
   * The kernel encrypts under another key than the one given: that goes on. The given one is the next, and is nothing but
   * its id until it is prepared: the kernel may have other keys under that.
   */
  found(id: number): void {
    const given = this.#current
    if (id === given) return
    this.#forget(given)
    this.#next = given
    this.#current = id
  }

  /**
   * The given keys' current one is to encrypt next. One that was prepared before, and not to the end, is forgotten.
   * @throws InvalidArgument for other keys under an id in use
   */
  prepare(keys: unknown): void {
    const generation = this.#generationOf(keys, 'keys')
    const { id } = generation
    const known = this.#generations.get(id)
    if (known !== undefined && id !== this.#unproven && !equal(known, generation)) {
      wipe(generation)
      throw idInUse(id)
    }
    if (this.#unproven !== undefined) this.#forget(this.#unproven)
    if (this.#generations.has(id)) wipe(generation)
    else {
      this.#generations.set(id, generation)
      this.#unproven = id
    }
    this.#next = id === this.#current ? undefined : id
    this.#isReady = false
  }

  /** What decrypts under the next key is in place everywhere. */
  prepared(): void {
    this.#unproven = undefined
    this.#isReady = true
  }

  /** From here on the prepared key encrypts. @throws InvalidState if none was prepared to the end */
  commit(): void {
    if (!this.#isReady) throw new InvalidState('commit: no key was prepared on all nodes: prepare() first')
    if (this.#next !== undefined) this.#current = this.#next
    this.#next = undefined
  }

  /** Forgets the keys that encrypt no more. */
  forgetOld(): void {
    for (const id of this.old) this.#forget(id)
  }

  wipe(): void {
    for (const generation of this.#generations.values()) wipe(generation)
  }

  /** The key for what an address sends, by its canonical text; undefined if there is none. */
  key(id: number, sender: string): NodeKey | undefined {
    const keys = this.#generations.get(id)?.keys
    return keys?.find(({ address }) => address === sender) ?? keys?.find(({ address }) => address === undefined)
  }

  /**
   * What stands for a derived key where there is none at hand: two are the same if the keys are.
   * @param boots how often the other node was seen to have booted
   */
  token(id: number, boots: number): number {
    const { epoch } = this.#generations.get(id)!
    return (((epoch % (1 << EPOCH_BITS)) << BOOT_BITS) | (boots % (1 << BOOT_BITS))) >>> 0
  }

  algorithm(name: string): number {
    const index = this.algorithms.indexOf(name)
    return index < 0 ? this.algorithms.push(name) - 1 : index
  }

  #forget(id: number): void {
    wipe(this.#generations.get(id)!)
    this.#generations.delete(id)
    if (this.#unproven === id) this.#unproven = undefined
    if (this.#next === id) this.#next = undefined
  }

  #generationOf(given: unknown, argument: string): Generation {
    const { keys, keyId } = (typeof given === 'object' && given !== null ? given : {}) as Partial<NodeKeys>
    const expected = 'what loadKeysFile() or parseKeys() gave'
    const isId = typeof keyId === 'number' && Number.isInteger(keyId) && keyId >= 1 && keyId <= LAST_KEY_ID
    if (!isId || !Array.isArray(keys)) throw new InvalidArgument(argument, expected)
    const own = (array(keys, argument) as readonly NodeKey[]).filter(({ id }) => id === keyId)
    // All is checked before anything is copied.
    if (own.length === 0 || !own.every(isWhole)) throw new InvalidArgument(argument, expected)
    return { id: keyId, epoch: ++this.#epochs, keys: own.map(copied) }
  }
}

/**
 * @param by whose it is, and what may be done about that
 * @param or what else may be
 */
export function idInUse(id: number, by = 'by other keys', or = ''): InvalidArgument {
  const which = `key id ${id} is in use ${by}`
  return new InvalidArgument(
    'keys',
    `of an id that is not in use: ${which}: increment the key id, or reclaim() it first${or}`,
  )
}

/** The algorithm's key as records name it before it is derived. */
export function keyToken({ key }: Algorithm, token: number): number {
  return key.length === 0 ? NO_KEY : token
}

function isWhole({ aead, auth, encryption }: NodeKey): boolean {
  const algorithms = aead === undefined ? [auth, encryption] : [aead]
  return algorithms.every((algorithm) => algorithm?.key instanceof Key)
}

function copied({ id, address, aead, auth, encryption }: NodeKey): NodeKey {
  const own = (algorithm: Algorithm) => ({ ...algorithm, key: new Key(reveal(algorithm.key)) })
  if (aead !== undefined) return { id, address, aead: { ...own(aead), icvBits: aead.icvBits } }
  return { id, address, auth: own(auth!), encryption: own(encryption!) }
}

function equal(one: Generation, other: Generation): boolean {
  const same = (a: Algorithm | undefined, b: Algorithm | undefined) =>
    a?.name === b?.name && (a === undefined || a.key.length + b!.key.length === 0 || a.key.equals(b!.key))
  return (
    one.keys.length === other.keys.length &&
    one.keys.every((key) => {
      const match = other.keys.find(({ address }) => address === key.address)
      return (
        match !== undefined &&
        same(key.aead, match.aead) &&
        key.aead?.icvBits === match.aead?.icvBits &&
        same(key.auth, match.auth) &&
        same(key.encryption, match.encryption)
      )
    })
  )
}

function wipe({ keys }: Generation): void {
  for (const { aead, auth, encryption } of keys) {
    for (const algorithm of [aead, auth, encryption]) algorithm?.key.wipe()
  }
}
