import { readFile } from 'node:fs/promises'
import { address } from '../base/address.js'
import { boolean, integer, options as checkOptions } from '../base/check.js'
import { InvalidArgument, XfrmeshError } from '../base/errors.js'
import { Key } from '../base/key.js'

/** Ids of keys are 1 to this: Cilium's marks have four bits for them, and on its wire they are the SPI. */
export const LAST_KEY_ID = 15
/** The id of a key in a line of the older form, which has none. */
const FIRST_KEY_ID = 1
/** A derived key is cut from SHA-512. */
const LONGEST_KEY = 64
/** What Cilium lets pass, in bits. No AEAD of the kernel has 256. */
const ICV_BITS = [96, 128, 256]

/** An algorithm by the kernel's name, and its key. */
export interface Algorithm {
  readonly name: string
  /** 0 bytes for algorithms without a key: `digest_null`, `cipher_null`. */
  readonly key: Key
}

/** A key that all nodes share, of which those of each pair of nodes are derived. Either an AEAD, or the other two. */
export interface NodeKey {
  /** 1 to 15. */
  readonly id: number
  /** The key is for what this address sends, its canonical text; undefined: for all others. */
  readonly address: string | undefined
  readonly aead?: Algorithm & { readonly icvBits: number }
  readonly auth?: Algorithm
  readonly encryption?: Algorithm
}

/** What a key file says. */
export interface NodeKeys {
  /** In the order of their lines. */
  readonly keys: readonly NodeKey[]
  /** The id of the last line's key: the one to encrypt with. */
  readonly keyId: number
  /**
   * Bytes that authentication adds to a packet: of an AEAD its ICV, else at most the authentication key's length. While
   * keys of different ones are in use, the MTU of pods has to be low enough for the larger.
   */
  readonly overhead: number
  /** The number that Cilium has for it: for an authentication key the hex digits, twice the bytes. */
  readonly ciliumOverhead: number
}

export interface ParseOptions {
  /**
   * Refuse what Cilium took once and refuses today: a line without a key id (from 1.17 on; else it is key 1), a key of one
   * address (likewise), and one whose overhead is not that of the line before (from 1.18 on). Default: false.
   */
  strict?: boolean
  /** Ids that keys in use have, 1 to 15: a line with one of them is refused. Default: none. */
  inUse?: Iterable<number>
}

/** A key file that says nothing usable. The message names line and column, and shows no key. */
export class KeyFileError extends XfrmeshError {
  /** From 1. */
  readonly line: number
  /** From 1, in characters. */
  readonly column: number

  constructor(line: number, column: number, what: string, options?: ErrorOptions) {
    super('ERR_XFRMESH_KEY_FILE', `line ${line}, column ${column}: ${what}`, options)
    this.line = line
    this.column = column
  }
}

/**
 * Reads a file of keys as {@link parseKeys} does its text.
 * @throws KeyFileError; InvalidArgument; Node's own error where the file cannot be read
 */
export async function loadKeysFile(path: string, options?: ParseOptions): Promise<NodeKeys> {
  const bytes = await readFile(path)
  try {
    return parseKeys(bytes.toString(), options)
  } finally {
    bytes.fill(0)
  }
}

/**
 * Reads keys as Cilium's file has them, one a line, fields parted by one space:
 *
 *     key-id[+] rfc-aead-name hex-key icv-bits
 *     key-id[+] auth-name hex-key enc-name hex-key [IP]
 *
 * Hex may begin with `0x`; `""` is an empty key. The `+`, which once asked for ESN, says nothing any more: ESN is always
 * used. Stricter than Cilium in what it lets pass and can't use: no line at all, an empty field, a negative id or one that
 * comes back, what is no algorithm's name, a key longer than its hash.
 *
 * @throws KeyFileError naming line and column; InvalidArgument
 */
export function parseKeys(text: string, options: ParseOptions = {}): NodeKeys {
  if (typeof text !== 'string') throw new InvalidArgument('text', 'a string')
  const { strict = false, inUse = [] } = checkOptions<ParseOptions>(options, 'options', ['strict', 'inUse'])
  boolean(strict, 'options.strict')
  const used = idsOf(inUse)
  const made: Key[] = []
  try {
    return readLines(text, strict, used, made)
  } catch (error) {
    for (const key of made) key.wipe()
    throw error
  }
}

/** @throws InvalidArgument for what is no list of ids: a text's digits are none */
function idsOf(given: unknown): ReadonlySet<number> {
  const isIterable =
    typeof given === 'object' && typeof (given as Iterable<unknown> | null)?.[Symbol.iterator] === 'function'
  if (!isIterable) throw new InvalidArgument('options.inUse', 'an iterable of key ids, as in [3, 4]', given)
  const ids = Array.from(given as Iterable<unknown>)
  return new Set(ids.map((id, i) => integer(id, `options.inUse[${i}]`, 1, LAST_KEY_ID)))
}

/** @param made told each key that is made, as long as not all is read */
function readLines(text: string, strict: boolean, used: ReadonlySet<number>, made: Key[]): NodeKeys {
  const keys: NodeKey[] = []
  let overhead: Overhead | undefined
  const lines = text.split('\n')
  // What ends with a line's end has no line after it.
  if (lines.at(-1) === '') lines.pop()
  if (lines.length === 0) throw new KeyFileError(1, 1, 'there is no key')
  for (const [i, line] of lines.entries()) {
    const fields = new Fields(i + 1, line.replace(/\r$/, ''))
    const key = readKey(fields, strict, made)
    if (used.has(key.id)) throw fields.refuse(0, `key id ${key.id} is in use: increment the key id to change keys`)
    if (keys.some(({ id, address }) => id === key.id && address === key.address)) {
      throw fields.refuse(0, `key id ${key.id} is another line's already: increment the key id to change keys`)
    }
    keys.push(key)
    const before = overhead
    overhead = overheadOf(key)
    if (strict && before !== undefined && before.cilium !== overhead.cilium) {
      const place = key.aead === undefined ? AUTH_KEY : ICV
      throw fields.refuse(
        place,
        `the overhead must stay that of the line before, ${before.bytes} bytes: MTUs count on it`,
      )
    }
  }
  return { keys, keyId: keys.at(-1)!.id, overhead: overhead!.bytes, ciliumOverhead: overhead!.cilium }
}

/** Places of fields, from the key id on. */
const AUTH_KEY = 2
const ICV = 3
const ADDRESS = 5

/** A line's fields, by their place from the key id on; a line without one begins with field 1. */
class Fields {
  readonly #line: number
  readonly #fields: readonly string[]
  readonly #first: number

  constructor(line: number, text: string) {
    this.#line = line
    this.#fields = text.split(' ')
    this.#first = /^[+-]?\d+\+?$/.test(this.#fields[0]!) ? 0 : 1
  }

  get hasId(): boolean {
    return this.#first === 0
  }

  /** How many there would be with a key id. */
  get count(): number {
    return this.#fields.length + this.#first
  }

  at(place: number): string {
    return this.#fields[place - this.#first]!
  }

  /** An error of the field at that place; of the line, if there is none. */
  refuse(place: number, what: string): KeyFileError {
    const before = this.#fields.slice(0, Math.max(0, place - this.#first))
    return new KeyFileError(
      this.#line,
      before.reduce((column, field) => column + field.length + 1, 1),
      what,
    )
  }
}

const FORMS = "'key-id aead-name hex-key icv-bits' or 'key-id auth-name hex-key enc-name hex-key [IP]'"

function readKey(fields: Fields, strict: boolean, made: Key[]): NodeKey {
  if (!fields.hasId && strict) throw fields.refuse(0, `the first field must be a key id from 1 to ${LAST_KEY_ID}`)
  for (let place = fields.hasId ? 0 : 1; place < fields.count; place++) {
    if (fields.at(place) === '') throw fields.refuse(place, 'a field must not be empty: one space parts fields')
  }
  const id = fields.hasId ? keyId(fields) : FIRST_KEY_ID
  switch (fields.count) {
    case 4:
      return { id, address: undefined, aead: { ...algorithm(fields, 1, made), icvBits: icvBits(fields) } }
    case 6:
      if (strict) throw fields.refuse(ADDRESS, 'there must be no more: Cilium has no keys of one address any more')
      return { id, address: sender(fields), auth: algorithm(fields, 1, made), encryption: algorithm(fields, 3, made) }
    case 5:
      return { id, address: undefined, auth: algorithm(fields, 1, made), encryption: algorithm(fields, 3, made) }
    default:
      throw fields.refuse(0, `there must be ${FORMS}, not ${fields.count} fields`)
  }
}

function keyId(fields: Fields): number {
  const id = Number(fields.at(0).replace(/\+$/, ''))
  if (id >= 1 && id <= LAST_KEY_ID) return id
  throw fields.refuse(0, `a key id must be 1 to ${LAST_KEY_ID}`)
}

/** The name at `place` and the key after it. */
function algorithm(fields: Fields, place: number, made: Key[]): Algorithm {
  const name = fields.at(place)
  // What is no name may be a key gone astray.
  const isName = /^[a-z][\w-]*(\([\w(),-]+\))?$/i.test(name) && name.length < LONGEST_NAME
  if (!isName || /^[\da-f]{16,}$/i.test(name)) {
    throw fields.refuse(place, "there must be an algorithm's name, as in rfc4106(gcm(aes)) or hmac(sha256)")
  }
  if (fields.count === 4 && !name.startsWith('rfc')) {
    throw fields.refuse(place, "an AEAD's name must begin with rfc")
  }
  const own = key(fields, place + 1)
  made.push(own)
  return { name, key: own }
}

/** struct xfrm_algo's alg_name. */
const LONGEST_NAME = 64

function key(fields: Fields, place: number): Key {
  const text = fields.at(place)
  const digits = text === '""' ? '' : text.replace(/^0x/, '')
  if (!/^(?:[\da-f]{2})*$/i.test(digits)) {
    throw fields.refuse(place, 'a key must be hex digits, two a byte, or "" for none')
  }
  if (digits.length > LONGEST_KEY * 2) throw fields.refuse(place, `a key must be of at most ${LONGEST_KEY} bytes`)
  const bytes = new Uint8Array(new ArrayBuffer(digits.length / 2))
  for (let i = 0; i < bytes.length; i++) bytes[i] = Number.parseInt(digits.slice(i * 2, i * 2 + 2), 16)
  const held = new Key(bytes)
  bytes.fill(0)
  return held
}

function icvBits(fields: Fields): number {
  const text = fields.at(ICV)
  const bits = /^\+?\d+$/.test(text) ? Number(text) : NaN
  if (ICV_BITS.includes(bits)) return bits
  throw fields.refuse(ICV, `the ICV must be of ${ICV_BITS.join(', ')} bits`)
}

function sender(fields: Fields): string {
  try {
    return address(fields.at(ADDRESS), '').text
  } catch {
    throw fields.refuse(ADDRESS, 'there must be an IPv4 or IPv6 address, or nothing')
  }
}

interface Overhead {
  readonly bytes: number
  readonly cilium: number
}

function overheadOf({ aead, auth }: NodeKey): Overhead {
  if (aead !== undefined) return { bytes: aead.icvBits / 8, cilium: aead.icvBits / 8 }
  const { length } = auth!.key
  return { bytes: length, cilium: length * 2 }
}
