import { ADDRESS_BYTES, type Family } from '../base/address.js'
import { recordLength, startsOf } from '../kernel/record-identity.js'
import { LITTLE_ENDIAN, NO_KEY, Operation, Policy, RecordWriter, State, Tail, WITHHELD_KEY } from '../kernel/records.js'
import { viewOf } from '../kernel/attributes.js'
import { NetlinkError } from '../base/errors.js'
import { attributeAt, sameIdentity } from '../kernel/record-identity.js'
import { ACTION_BLOCK, DIRECTION_OUT, FLAG_ESN, IPPROTO_ESP, MODE_TUNNEL, XFRMA } from '../kernel/xfrm-names.js'
import { TemplateLayout } from '../kernel/xfrm-parts.js'
import { type KeyDeriver, type StateKeys, wipe } from './derive.js'
import type { XfrmPort } from './executor.js'
import type { NodeKeyring } from './keyring.js'
import type { Remote, Settings } from './settings.js'
import { keyIdOf, Purpose, remoteKey } from './tunnels.js'

const ENOENT = 2
/** Of struct xfrm_lifetime_cur: after bytes and packets. */
const ADD_TIME = 16

/** Objects of one tunnel: where they start in what was read. */
interface Group {
  readonly states: number[]
  readonly policies: number[]
}

/**
 * What the kernel has of ours, as it was when it was read, sorted by the address at the other end: what is a node's is
 * taken as that node is known. Ours is what has the form of ours: reqid, tunnel mode, and an address of this node at one
 * end. Other tools use the same reqids.
 */
export class Look {
  readonly #settings: Settings
  readonly #keyring: NodeKeyring
  readonly #deriver: KeyDeriver
  readonly #states: Uint8Array
  readonly #policies: Uint8Array
  readonly #keys: readonly Uint8Array[]
  readonly #groups = new Map<string, Group>()
  /** Policies that are no node's. */
  readonly #shared: number[] = []

  private constructor(
    settings: Settings,
    keyring: NodeKeyring,
    deriver: KeyDeriver,
    read: { states: Uint8Array; policies: Uint8Array; keys: readonly Uint8Array[] },
  ) {
    this.#settings = settings
    this.#keyring = keyring
    this.#deriver = deriver
    this.#states = read.states
    this.#policies = read.policies
    this.#keys = read.keys
    for (const at of startsOf(this.#states)) {
      const other = this.#otherEnd(at)
      if (other !== undefined) this.#group(other).states.push(at)
    }
    for (const at of startsOf(this.#policies)) {
      const other = this.#otherEndOfPolicy(at)
      if (other === SHARED) this.#shared.push(at)
      else if (other !== undefined) this.#group(other).policies.push(at)
    }
  }

  /** @param drops records of the policies that drop: they have no template, and so no reqid to be found by */
  static async read(
    xfrm: XfrmPort,
    settings: Settings,
    keyring: NodeKeyring,
    deriver: KeyDeriver,
    drops: Uint8Array,
  ): Promise<Look> {
    const tables = { keys: [], algorithms: keyring.algorithms }
    const reqids = settings.local.overlay.size > 0 ? [Purpose.pods, Purpose.overlay] : [Purpose.pods]
    const [states, policies] = [new RecordWriter(), new RecordWriter()]
    const keys: Uint8Array[] = []
    for (const reqid of reqids) {
      const found = await xfrm.read({ ...tables, policies: false, reqid, details: false })
      for (const name of found.algorithms) keyring.algorithm(name)
      append(states, found.records, keys.length)
      keys.push(...found.keys)
      append(policies, (await xfrm.read({ ...tables, policies: true, reqid, details: false })).records, 0)
    }
    for (const at of startsOf(drops)) {
      const one = drops.subarray(at, at + recordLength(drops, at))
      const found = await unlessAbsent(xfrm.read({ ...tables, policies: true, one, reqid: 0, details: false }))
      // Asked for a mark, the kernel may show a policy of another.
      if (found !== undefined && sameIdentity(found.records, 0, one, 0)) append(policies, found.records, 0)
    }
    return new Look(settings, keyring, deriver, { states: states.take(), policies: policies.take(), keys })
  }

  /**
   * When the oldest SA that leads out under a key was added, in seconds since 1970; undefined if there is none. The kernel
   * remembers it, whatever became of the process that added it.
   */
  static async oldestOutbound(
    xfrm: XfrmPort,
    settings: Settings,
    deriver: KeyDeriver,
    keyId: number,
  ): Promise<number | undefined> {
    const purposes = settings.local.overlay.size > 0 ? [Purpose.pods, Purpose.overlay] : [Purpose.pods]
    let oldest: number | undefined
    for (const reqid of purposes) {
      const { records, keys } = await xfrm.read({ policies: false, reqid, details: true, keys: [], algorithms: [] })
      for (const key of keys) key.fill(0)
      const view = viewOf(records)
      for (const at of startsOf(records)) {
        const current = attributeAt(records, at, Tail.current)
        if (current < 0 || deriver.isInbound(records, at)) continue
        if (keyIdOf(view.getUint32(at + State.spi, LITTLE_ENDIAN)) !== keyId) continue
        const added = Number(view.getBigUint64(current + ADD_TIME, LITTLE_ENDIAN))
        oldest = Math.min(oldest ?? added, added)
      }
    }
    return oldest
  }

  /** Whether anything is left that no node has taken. */
  get isEmpty(): boolean {
    return this.#groups.size === 0
  }

  /** Policies that are no node's. */
  get shared(): Uint8Array {
    return this.#copy(this.#policies, this.#shared)
  }

  /** Ids of keys that SAs lead out under. */
  outboundIds(): Set<number> {
    const view = viewOf(this.#states)
    const ids = new Set<number>()
    for (const { states } of this.#groups.values()) {
      for (const at of states) {
        if (this.#deriver.isInbound(this.#states, at)) continue
        ids.add(keyIdOf(view.getUint32(at + State.spi, LITTLE_ENDIAN)))
      }
    }
    return ids
  }

  /**
   * Takes out what is a node's, with tokens in place of keys: a key that is not the one that should be has none.
   * @param boots as of {@link NodeKeyring.token}
   */
  take(node: Remote, boots: number): Uint8Array {
    const parts: Uint8Array[] = []
    for (const ends of [node.addresses, node.overlay]) {
      for (const { bytes, family } of ends.values()) {
        const key = remoteKey(bytes, family)
        const group = this.#groups.get(key)
        if (group === undefined) continue
        this.#groups.delete(key)
        for (const at of group.states) this.#tokenize(at, node, boots)
        parts.push(this.#copy(this.#states, group.states), this.#copy(this.#policies, group.policies))
      }
    }
    return new Uint8Array(Buffer.concat(parts))
  }

  /** All that no node has taken. */
  rest(): Uint8Array {
    const groups = [...this.#groups.values()]
    return new Uint8Array(
      Buffer.concat([
        this.#copy(
          this.#states,
          groups.flatMap(({ states }) => states),
        ),
        this.#copy(
          this.#policies,
          groups.flatMap(({ policies }) => policies),
        ),
      ]),
    )
  }

  /** Overwrites the keys that were read. Nothing can be taken any more. */
  wipe(): void {
    for (const key of this.#keys) key.fill(0)
    this.#groups.clear()
  }

  #group(key: string): Group {
    let group = this.#groups.get(key)
    if (group === undefined) this.#groups.set(key, (group = { states: [], policies: [] }))
    return group
  }

  #otherEnd(at: number): string | undefined {
    const records = this.#states
    const isOurs =
      records[at + State.protocol] === IPPROTO_ESP &&
      records[at + State.mode] === MODE_TUNNEL &&
      (records[at + State.flags]! & FLAG_ESN) !== 0 &&
      // Larval: it stands for a packet that found none, and goes by itself.
      viewOf(records).getUint32(at + State.spi, LITTLE_ENDIAN) !== 0 &&
      attributeAt(records, at, XFRMA.MARK) < 0 === (this.#settings.marks === false)
    return isOurs
      ? this.#far(records, at + State.source, at + State.destination, records[at + State.family]!)
      : undefined
  }

  #otherEndOfPolicy(at: number): string | undefined {
    const records = this.#policies
    const family = records[at + Policy.family]!
    if (records[at + Policy.action] === ACTION_BLOCK) return SHARED
    const template = attributeAt(records, at, XFRMA.TMPL)
    if (template < 0 || records[template + TemplateLayout.mode] !== MODE_TUNNEL) return undefined
    const outbound = records[at + Policy.direction] === DIRECTION_OUT
    const marked = attributeAt(records, at, XFRMA.MARK) >= 0
    // Those for what goes on have none.
    if (marked && this.#settings.marks === false) return undefined
    if (outbound && !marked && this.#settings.marks !== false) return undefined
    const [source, destination] = [template + TemplateLayout.source, template + TemplateLayout.destination]
    if (!outbound && isZero(records, source)) {
      return this.#settings.marks !== false && this.#isHere(records, destination, family) ? SHARED : undefined
    }
    return this.#far(records, source, destination, family)
  }

  /** The end that is not this node's; undefined if neither is. */
  #far(records: Uint8Array, source: number, destination: number, family: number): string | undefined {
    const far = this.#isHere(records, destination, family)
      ? source
      : this.#isHere(records, source, family)
        ? destination
        : undefined
    return far === undefined ? undefined : remoteKey(records.subarray(far, far + ADDRESS_BYTES), family as Family)
  }

  #isHere(records: Uint8Array, at: number, family: number): boolean {
    const { addresses, overlay } = this.#settings.local
    return [addresses, overlay].some((ends) => {
      const here = ends.get(family as Family)
      return here !== undefined && Buffer.compare(here.bytes, records.subarray(at, at + ADDRESS_BYTES)) === 0
    })
  }

  #tokenize(at: number, node: Remote, boots: number): void {
    const view = viewOf(this.#states)
    const id = keyIdOf(view.getUint32(at + State.spi, LITTLE_ENDIAN))
    const expected = this.#keyring.has(id) ? this.#deriver.keysOf(this.#states, at, node) : undefined
    const right = expected !== undefined && this.#hasKeys(at, expected)
    for (const offset of [State.cipherKey, State.authKey]) {
      const named = view.getUint32(at + offset, LITTLE_ENDIAN) !== NO_KEY
      if (named) view.setUint32(at + offset, right ? this.#keyring.token(id, boots) : 0, LITTLE_ENDIAN)
    }
    if (expected !== undefined) wipe(expected)
    // The kernel says how it truncates where that was left to it, and takes a key that ends like the SPI for a salted one.
    view.setUint16(at + State.authTruncateBits, 0, LITTLE_ENDIAN)
    if (right) this.#states[at + State.salted] = 0
  }

  #hasKeys(at: number, { cipher, auth }: StateKeys): boolean {
    const view = viewOf(this.#states)
    return (
      [
        [State.cipherKey, cipher],
        [State.authKey, auth],
      ] as const
    ).every(([offset, key]) => {
      const index = view.getUint32(at + offset, LITTLE_ENDIAN)
      // A kernel that is locked down shows no keys: unknown is not wrong.
      if (index === WITHHELD_KEY) return true
      if (index === NO_KEY || key === undefined) return index === NO_KEY && key === undefined
      return Buffer.compare(this.#keys[index]!, key) === 0
    })
  }

  #copy(records: Uint8Array, starts: readonly number[]): Uint8Array {
    return new Uint8Array(Buffer.concat(starts.map((at) => records.subarray(at, at + recordLength(records, at)))))
  }
}

/** In place of an address. */
const SHARED = 'shared'

/** Appends records whose keys are named from `keys` on. */
function append(into: RecordWriter, records: Uint8Array, keys: number): void {
  for (const at of startsOf(records)) {
    const record = records.slice(at, at + recordLength(records, at))
    if (keys > 0) {
      const view = viewOf(record)
      for (const offset of [State.cipherKey, State.authKey]) {
        const index = view.getUint32(offset, LITTLE_ENDIAN)
        if (index < WITHHELD_KEY) view.setUint32(offset, index + keys, LITTLE_ENDIAN)
      }
    }
    into.record(record, record[State.operation] ?? Operation.addState)
  }
}

function isZero(bytes: Uint8Array, at: number): boolean {
  for (let i = 0; i < ADDRESS_BYTES; i++) if (bytes[at + i] !== 0) return false
  return true
}

async function unlessAbsent<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading
  } catch (error) {
    if (error instanceof NetlinkError && error.errno === ENOENT) return undefined
    throw error
  }
}
