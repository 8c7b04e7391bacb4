import { types } from 'node:util'
import { array, integer, options, U32 } from '../base/check.js'
import { InvalidArgument, InvalidState } from '../base/errors.js'
import { Key, reveal } from '../base/key.js'
import type { Suite } from './suites.js'

/** A key as callers give it. `value` is copied. */
export interface KeyInput {
  /** Its name in the mesh, an unsigned 32-bit integer: SPIs derive from it. */
  tag: number
  /** Its bytes, without salt; how many, the suite says. */
  value: Uint8Array
}

/** A change of keys: any of the three, all at once. */
export interface KeyUpdate {
  /** A new key; it decrypts. */
  add?: KeyInput
  /** Tag of the key that is to encrypt from now on; it may be the one added. */
  primary?: number
  /** Tag of the key to drop. */
  prune?: number
}

/** Most keys that a caller may have at once: half the slots, so that an entirely different list fits while both live. */
export const MAX_KEYS = 16
const SLOTS = 32

interface Entry {
  readonly tag: number
  readonly key: Key
}

/**
 * The keys of an Overlay, as a value: a change makes another Keyring.
 *
 * Each key has a slot, 0 to 31, for as long as it lives, so that a peer's SAs are bits of a mask. A key that is wanted
 * no more is retired: it keeps its slot, its SPIs can still be derived, until {@link forget} says that its SAs are gone.
 */
export class Keyring {
  readonly suite: Suite
  /** Slots of the keys wanted, in order: the first is primary. */
  readonly slots: readonly number[]
  /** Mask of the slots of all keys wanted. */
  readonly all: number
  /** Mask of the slots of retired keys. */
  readonly retired: number
  readonly #entries: readonly (Entry | undefined)[]
  readonly #indices: readonly number[]

  private constructor(suite: Suite, entries: readonly (Entry | undefined)[], slots: readonly number[]) {
    this.suite = suite
    this.slots = slots
    this.#entries = entries
    this.all = slots.reduce((mask, slot) => mask | (1 << slot), 0) >>> 0
    const living = entries.reduce((mask, entry, slot) => (entry ? mask | (1 << slot) : mask), 0)
    this.#indices = entries.map((entry) => entries.findIndex((other) => entry && other?.key.equals(entry.key)))
    this.retired = (living & ~this.all) >>> 0
  }

  /** No keys, of that suite. */
  static empty(suite: Suite): Keyring {
    return new Keyring(suite, [], [])
  }

  /** How many keys are wanted. */
  get size(): number {
    return this.slots.length
  }

  /** Slot of the key that encrypts; -1 if there are no keys. */
  get primary(): number {
    return this.slots[0] ?? -1
  }

  /** Tags of the keys wanted, primary first. */
  get tags(): number[] {
    return this.slots.map((slot) => this.tag(slot))
  }

  /** Slot of the wanted key with that tag, or -1. */
  find(tag: number): number {
    return this.slots.find((slot) => this.tag(slot) === tag) ?? -1
  }

  /** Tag of the key in a slot that is in use, wanted or retired. */
  tag(slot: number): number {
    return this.#entries[slot]!.tag
  }

  /** The key in a slot that is in use, wanted or retired. */
  key(slot: number): Key {
    return this.#entries[slot]!.key
  }

  /**
   * What a record names the key in that slot by: the lowest slot with the same bytes, as a dump names it. That is the slot
   * itself, but where two tags have one value.
   */
  index(slot: number): number {
    return this.#indices[slot]!
  }

  /** Key bytes by slot, empty where there is none: the side table that goes with {@link index}. Not a copy. */
  sideTable(): Uint8Array[] {
    return Array.from(this.#entries, (entry) => (entry ? reveal(entry.key) : NOTHING))
  }

  /**
   * These keys and no others, the first one primary. Those that are here already keep their slots; those missing retire.
   *
   * @param keys an array of {@link KeyInput}, 1 to {@link MAX_KEYS} of them
   * @throws InvalidArgument naming `keys[2].value` and the like
   * @throws InvalidState if retired keys hold the slots needed
   */
  set(keys: unknown): Keyring {
    const list = array(veiled(keys), 'keys')
    if (list.length < 1 || list.length > MAX_KEYS) {
      throw new InvalidArgument('keys', `an array of 1 to ${MAX_KEYS} keys`, keys)
    }
    const checked = list.map((key, i) => this.#check(key, `keys[${i}]`))
    for (const [i, { tag }] of checked.entries()) {
      const first = checked.findIndex((other) => other.tag === tag)
      if (first < i) throw new InvalidArgument(`keys[${i}].tag`, `another tag than keys[${first}] has`, tag)
    }
    const entries = [...this.#entries]
    const kept = new Set(checked.map(({ tag }) => tag))
    const slots = checked.map((key) => place(entries, key, kept))
    return new Keyring(this.suite, entries, slots)
  }

  /**
   * Adds a key, makes one primary, prunes one: any combination of {@link KeyUpdate}. Adding what is there already, with
   * the same value, changes nothing.
   *
   * @throws InvalidArgument naming `add.tag`, `primary` and the like
   * @throws InvalidState if no keys were set yet, or retired keys hold the slot needed
   */
  update(change: unknown): Keyring {
    const { add, primary, prune } = options<KeyUpdate>(veiled(change), 'update', ['add', 'primary', 'prune'])
    if (this.size === 0) throw new InvalidState('there are no keys to update yet: call setKeys() first')
    if (add === undefined && primary === undefined && prune === undefined) {
      throw new InvalidArgument('update', "an object with at least one of 'add', 'primary', 'prune'")
    }
    const added = add === undefined ? undefined : this.#check(add, 'add')
    const before = this.tags
    const isNew = added !== undefined && !before.includes(added.tag)
    const after = isNew ? [...before, added.tag] : before

    const first = primary === undefined ? before[0]! : tagIn(primary, 'primary', after)
    const gone = prune === undefined ? undefined : tagIn(prune, 'prune', after)
    if (gone !== undefined) {
      if (after.length === 1) throw new InvalidArgument('prune', `left out: key ${gone} is the last one`)
      if (gone === added?.tag) throw new InvalidArgument('prune', `another tag than 'add' has`, gone)
      if (gone === first) {
        throw new InvalidArgument(
          'prune',
          primary === undefined
            ? `the tag of a key that is not primary, or come with the tag of another as 'primary': key ${gone} is the one that encrypts`
            : `another tag than 'primary'`,
          gone,
        )
      }
    }
    const order = [first, ...after.filter((tag) => tag !== first && tag !== gone)]
    if (order.length > MAX_KEYS) {
      throw new InvalidArgument(
        'add',
        `left out, or come with a tag to prune: there are ${MAX_KEYS} keys, as many as there may be`,
      )
    }
    const entries = [...this.#entries]
    if (isNew) place(entries, added, new Set(after))
    return new Keyring(
      this.suite,
      entries,
      order.map((tag) => entries.findIndex((entry) => entry?.tag === tag)),
    )
  }

  /**
   * Frees the slots of retired keys whose SAs are gone, and wipes these keys, for older Keyrings too. Slots of wanted
   * keys in `mask` stay as they are.
   */
  forget(mask: number): Keyring {
    const entries = [...this.#entries]
    for (let left = mask & this.retired; left !== 0; left &= left - 1) {
      const slot = 31 - Math.clz32(left & -left)
      entries[slot]?.key.wipe()
      entries[slot] = undefined
    }
    return new Keyring(this.suite, entries, this.slots)
  }

  /** Wipes all keys, at the end of all use, for older Keyrings too. */
  wipe(): void {
    for (const entry of this.#entries) entry?.key.wipe()
  }

  /** A key that could be added: a tag and bytes of a length that the suite takes, and no other value under that tag. */
  #check(input: unknown, argument: string): KeyInput {
    const { tag, value } = options<KeyInput>(veiled(input), argument, ['tag', 'value'])
    integer(veiled(tag), `${argument}.tag`, 0, U32)
    const { name, keyBytes } = this.suite
    const takes = `a Uint8Array of ${keyBytes.join(', ').replace(/, (\d+)$/, ' or $1')} bytes, as ${name} takes`
    if (!types.isUint8Array(value)) throw new InvalidArgument(`${argument}.value`, takes, veiled(value))
    if (!keyBytes.includes(value.length)) throw new InvalidArgument(`${argument}.value`, takes, value)
    const living = this.#entries.find((entry) => entry?.tag === tag)
    if (living && !living.key.equals(value)) {
      const where = this.find(tag) < 0 ? ', in SAs that are not all gone yet' : ''
      throw new InvalidArgument(
        `${argument}.value`,
        `the value that tag ${tag} stands for already${where} (the same tag means the same SPIs): give another value another tag`,
      )
    }
    return { tag, value }
  }
}

const NOTHING = new Uint8Array(0)

/** Slot of that key among the entries, made if it has none. `wanted` is for the message alone. */
function place(entries: (Entry | undefined)[], { tag, value }: KeyInput, wanted: ReadonlySet<number>): number {
  const living = entries.findIndex((entry) => entry?.tag === tag)
  if (living >= 0) return living
  for (let slot = 0; slot < SLOTS; slot++) {
    if (entries[slot] !== undefined) continue
    entries[slot] = { tag, key: new Key(value) }
    return slot
  }
  const holders = entries.flatMap((entry) => (entry && !wanted.has(entry.tag) ? [entry.tag] : []))
  throw new InvalidState(
    `no room for key ${tag}: ${SLOTS} keys may live at once, and SAs of keys ${holders.join(', ')} are not all gone yet; reconcile() removes them`,
  )
}

/** What stands in the wrong place may be a key, as hex say: an error must show nothing of it. Numbers are too short. */
function veiled(value: unknown): unknown {
  return typeof value === 'string' || typeof value === 'bigint' ? undefined : value
}

/** A tag out of those there are. */
function tagIn(value: unknown, argument: string, tags: readonly number[]): number {
  const tag = integer(veiled(value), argument, 0, U32)
  if (!tags.includes(tag)) throw new InvalidArgument(argument, `the tag of a key: ${tags.join(', ')}`, tag)
  return tag
}
