import { Pace } from '../base/pace.js'
import { viewOf } from '../kernel/attributes.js'
import { appendPlain, detailsOf } from '../kernel/record-details.js'
import { identityKey, recordAt, sameIdentity, startsOf, u32 } from '../kernel/record-identity.js'
import { LITTLE_ENDIAN, NO_KEY, Policy, RecordWriter, State, WITHHELD_KEY } from '../kernel/records.js'
import { DIRECTION_OUT } from '../kernel/xfrm-names.js'
import { type Belonging, isLarval, selectionOf, SHARED } from './belonging.js'
import { type KeyDeriver, type StateKeys, wipe } from './derive.js'
import type { NodeKeyring } from './keyring.js'
import { appendGeneral } from './overlap.js'
import { inPlacesOf, readOne, type XfrmPort } from './port.js'
import { printOf, type Sequences } from './sequences.js'
import type { Remote } from './settings.js'
import { keyIdAt, remoteKey } from './tunnels.js'

/** What a look is taken with. */
export interface Lookout {
  readonly xfrm: XfrmPort
  readonly keyring: NodeKeyring
  readonly belonging: Belonging
  readonly deriver: KeyDeriver
  readonly sequences: Sequences
  /** Whether marks tell our states apart: then another's may be in their way. */
  readonly marked: boolean
}

/** So many states are read one by one; of more all are. */
const FEW = 64

/** Objects of one tunnel: where they start in what was read. */
interface Group {
  readonly states: number[]
  readonly policies: number[]
}

/**
 * What the kernel has of ours, as it was when it was read, sorted by the address at the other end: what is a node's is
 * taken as that node is known.
 */
export class Look {
  readonly #lookout: Lookout
  #states: Uint8Array = new Uint8Array(0)
  #policies: Uint8Array = new Uint8Array(0)
  readonly #keys: Uint8Array[] = []
  readonly #groups = new Map<string, Group>()
  /** Policies that are no node's. */
  readonly #shared: number[] = []
  /** Policies that are a node's if one at that end has the ranges that they select; else another's. */
  readonly #doubtful = new Map<string, number[]>()
  readonly #since = new Map<number, number>()
  #generals: Uint8Array = new Uint8Array(0)
  /** Of which far end each object is that no node had taken when this was first asked. */
  #places: Map<string, string> | undefined

  private constructor(lookout: Lookout) {
    this.#lookout = lookout
  }

  /** @param drops records of the policies that drop: they have no template, and so no reqid to be found by */
  static async read(lookout: Lookout, drops: Uint8Array): Promise<Look> {
    const look = new Look(lookout)
    try {
      // They tell which addresses this node had.
      await look.#readPolicies(drops)
      await look.#readStates()
      return look
    } catch (error) {
      look.wipe()
      throw error
    }
  }

  /** Reads no more than how far the sequence numbers of these SAs have come. */
  static async learn(lookout: Lookout, states: readonly Uint8Array[]): Promise<void> {
    const look = new Look(lookout)
    try {
      if (states.length > FEW) await look.#readStates()
      else for (const one of states) await look.#readState(one)
    } finally {
      look.wipe()
    }
  }

  /** Whether anything is left that no node has taken. */
  get isEmpty(): boolean {
    return this.#groups.size === 0 && this.#doubtful.size === 0
  }

  /** Policies that are no node's. */
  get shared(): Uint8Array {
    return copied(this.#policies, this.#shared)
  }

  /** States of whomever that the kernel may take for ours: see {@link appendGeneral}. */
  get generals(): Uint8Array {
    return this.#generals
  }

  /**
   * For each key that SAs lead out under, by its id, when the oldest of these was added, in seconds since 1970 by the clock
   * of then. The kernel remembers it, whatever became of the process that added it.
   */
  get encryptingSince(): ReadonlyMap<number, number> {
    return this.#since
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
        const { states, policies } = this.#groups.get(key) ?? { states: [], policies: [] }
        this.#groups.delete(key)
        for (const at of states) this.#tokenize(at, node, boots)
        parts.push(copied(this.#states, states), copied(this.#policies, [...policies, ...this.#known(key, node)]))
      }
    }
    return new Uint8Array(Buffer.concat(parts))
  }

  /**
   * Takes out what no node has taken, and has the place of what should be: of a node that had another address. No key is
   * taken for the right one.
   */
  takePlaces(should: Uint8Array): Uint8Array {
    this.#places ??= this.#placesOf()
    const found: Uint8Array[] = []
    for (const at of this.#places.size === 0 ? [] : startsOf(should)) {
      const key = identityKey(should, at)
      const far = this.#places.get(key)
      const group = far === undefined ? undefined : this.#groups.get(far)
      if (group === undefined) continue
      this.#places.delete(key)
      const isThere = (records: Uint8Array) => (start: number) => sameIdentity(records, start, should, at)
      const [state, policy] = [
        group.states.findIndex(isThere(this.#states)),
        group.policies.findIndex(isThere(this.#policies)),
      ]
      if (state >= 0) {
        const [start] = group.states.splice(state, 1)
        this.#setTokens(start!, 0)
        found.push(copied(this.#states, [start!]))
      }
      if (policy >= 0) found.push(copied(this.#policies, group.policies.splice(policy, 1)))
      if (group.states.length + group.policies.length === 0) this.#groups.delete(far!)
    }
    return new Uint8Array(Buffer.concat(found))
  }

  /** The far ends of tunnels by what each of their objects is to the kernel. */
  #placesOf(): Map<string, string> {
    const places = new Map<string, string>()
    for (const [far, { states, policies }] of this.#groups) {
      for (const at of states) places.set(identityKey(this.#states, at), far)
      for (const at of policies) places.set(identityKey(this.#policies, at), far)
    }
    return places
  }

  /** All that no node has taken. */
  rest(): Uint8Array {
    const groups = [...this.#groups.values()]
    const states = groups.flatMap((group) => group.states)
    const policies = groups.flatMap((group) => group.policies)
    return new Uint8Array(Buffer.concat([copied(this.#states, states), copied(this.#policies, policies)]))
  }

  /** Overwrites the keys that were read. Nothing can be taken any more. */
  wipe(): void {
    for (const key of this.#keys) key.fill(0)
    this.#groups.clear()
    this.#places = undefined
    this.#doubtful.clear()
  }

  async #readState(one: Uint8Array): Promise<void> {
    const { xfrm, keyring } = this.#lookout
    const query = { policies: false, one, reqid: 0, details: true, keys: [], algorithms: keyring.algorithms }
    const found = await readOne(xfrm, query)
    if (found === undefined) return
    // Asked for a mark, the kernel may show a state of another.
    if (sameIdentity(found.records, 0, one, 0)) this.#learn(found.records, 0, found.keys)
    for (const key of found.keys) key.fill(0)
  }

  async #readStates(): Promise<void> {
    const { xfrm, belonging, keyring, marked } = this.#lookout
    const [ours, generals] = [new RecordWriter(), new RecordWriter(1024)]
    const ends: string[] = []
    const pace = new Pace(8)
    for (const reqid of marked ? [0] : belonging.purposes) {
      const { algorithms } = keyring
      const found = await xfrm.read({ policies: false, reqid, details: true, keys: [], algorithms })
      for (const name of found.algorithms) keyring.algorithm(name)
      for (const at of startsOf(found.records)) {
        if (marked) appendGeneral(generals, found.records, at)
        const other = belonging.ofState(found.records, at)
        if (other === undefined) continue
        ends.push(other)
        appendPlain(ours, found.records, at)
        for (const offset of [State.cipherKey, State.authKey]) {
          const key = keyAt(found.records, at + offset, found.keys)
          if (key !== undefined) ours.u32(offset, this.#keys.push(key) - 1)
        }
        this.#learn(found.records, at, found.keys)
        if (pace.isDue) await pace.breathe()
      }
      const kept = new Set(this.#keys)
      for (const key of found.keys) if (!kept.has(key)) key.fill(0)
    }
    this.#generals = generals.take()
    this.#states = ours.take()
    for (const [i, at] of startsOf(this.#states).entries()) this.#group(ends[i]!).states.push(at)
  }

  async #readPolicies(drops: Uint8Array): Promise<void> {
    const { xfrm, belonging } = this.#lookout
    const query = { policies: true, details: false, keys: [], algorithms: [] }
    // Whatever has the place of one that drops is ours: it is to drop.
    const held = await inPlacesOf(drops, xfrm)
    const places = startsOf(drops)
    const dropping = startsOf(held).length
    const parts = [held]
    for (const reqid of belonging.purposes) parts.push((await xfrm.read({ ...query, reqid })).records)
    this.#policies = new Uint8Array(Buffer.concat(parts))
    const doubtful: [far: string, at: number][] = []
    const selections = new Set<string>()
    const isOut = (at: number) => this.#policies[at + Policy.direction] === DIRECTION_OUT
    for (const at of startsOf(this.#policies)) if (isOut(at)) belonging.ofPolicy(this.#policies, at)
    for (const [i, at] of startsOf(this.#policies).entries()) {
      if (i >= dropping && places.some((place) => sameIdentity(this.#policies, at, drops, place))) continue
      const owner = i < dropping ? { far: SHARED, isCertain: true } : belonging.ofPolicy(this.#policies, at)
      if (owner === undefined) continue
      if (owner.far === SHARED) this.#shared.push(at)
      else if (owner.isCertain) {
        this.#group(owner.far).policies.push(at)
        selections.add(selectionOf(this.#policies, at))
      } else doubtful.push([owner.far, at])
    }
    for (const [far, at] of doubtful) {
      if (selections.has(selectionOf(this.#policies, at, true))) this.#group(far).policies.push(at)
      else this.#doubtful.set(far, [...(this.#doubtful.get(far) ?? []), at])
    }
  }

  /** Takes out the doubtful policies that are a node's after all. */
  #known(key: string, node: Remote): number[] {
    const some = this.#doubtful.get(key) ?? []
    const isTheirs = (at: number) => this.#lookout.belonging.selectsFrom(node, this.#policies, at)
    const left = some.filter((at) => !isTheirs(at))
    if (left.length === 0) this.#doubtful.delete(key)
    else this.#doubtful.set(key, left)
    return some.filter(isTheirs)
  }

  /** What a state of ours says beside that it is there. */
  #learn(records: Uint8Array, at: number, keys: readonly Uint8Array[]): void {
    if (isLarval(records, at)) return
    const { belonging, sequences } = this.#lookout
    const { added, numbers } = detailsOf(records, at)
    const id = keyIdAt(records, at)
    sequences.met(id)
    if (!belonging.isInbound(records, at)) this.#since.set(id, Math.min(this.#since.get(id) ?? added, added))
    if (numbers.sent === 0n && numbers.received === 0n) return
    const [cipher, auth] = [State.cipherKey, State.authKey].map((offset) => keyAt(records, at + offset, keys))
    sequences.saw(records, at, printOf(cipher, auth), numbers)
  }

  #group(key: string): Group {
    let group = this.#groups.get(key)
    if (group === undefined) this.#groups.set(key, (group = { states: [], policies: [] }))
    return group
  }

  #tokenize(at: number, node: Remote, boots: number): void {
    const { keyring, deriver } = this.#lookout
    const view = viewOf(this.#states)
    const id = keyIdAt(this.#states, at)
    const expected = keyring.has(id) ? deriver.keysOf(this.#states, at, node) : undefined
    const right = expected !== undefined && this.#hasKeys(at, expected)
    this.#setTokens(at, right ? keyring.token(id, boots) : 0)
    if (expected !== undefined) wipe(expected)
    // The kernel says how it truncates where that was left to it, and takes a key that ends like the SPI for a salted one.
    view.setUint16(at + State.authTruncateBits, 0, LITTLE_ENDIAN)
    if (right) this.#states[at + State.salted] = 0
  }

  /** Has a state name its keys by a token. */
  #setTokens(at: number, token: number): void {
    const view = viewOf(this.#states)
    for (const offset of [State.cipherKey, State.authKey]) {
      if (view.getUint32(at + offset, LITTLE_ENDIAN) !== NO_KEY) view.setUint32(at + offset, token, LITTLE_ENDIAN)
    }
  }

  #hasKeys(at: number, { cipher, auth }: StateKeys): boolean {
    return (
      [
        [State.cipherKey, cipher],
        [State.authKey, auth],
      ] as const
    ).every(([offset, key]) => {
      const index = u32(this.#states, at + offset)
      // A kernel that is locked down shows no keys: unknown is not wrong.
      if (index === WITHHELD_KEY) return true
      if (index === NO_KEY || key === undefined) return index === NO_KEY && key === undefined
      return Buffer.compare(this.#keys[index]!, key) === 0
    })
  }
}

/** The key that a record names there; undefined where it has none, or shows none. */
function keyAt(records: Uint8Array, at: number, keys: readonly Uint8Array[]): Uint8Array | undefined {
  return keys[u32(records, at)]
}

function copied(records: Uint8Array, starts: readonly number[]): Uint8Array {
  return new Uint8Array(Buffer.concat(starts.map((at) => recordAt(records, at))))
}
