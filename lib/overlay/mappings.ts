import { ADDRESS_BYTES, formatAddress } from '../base/address.js'
import { Event, LITTLE_ENDIAN, MappingTail, RecordReader, State, Tail } from '../kernel/records.js'
import type { Form } from './form.js'
import { PortSource } from './peers.js'
import type { Is } from './state.js'
import { claimant } from './spi-index.js'

/**
 * Where peers' packets come from, as the kernel tells it (XFRM_MSG_MAPPING) when that is another address or port than the
 * inbound SA has. It tells so after it has decrypted and authenticated the packet (esp_input_done2), so nobody without the
 * key can make it. But who has caught a packet can send it again from a port of his choice: without a replay window it is
 * authentic once more, and what we send goes there, encrypted and in vain, until the peer's next packet. So RFC 7296, 2.23
 * has ports followed safely only under replay protection. Where ports do not change they can be given, and then stay.
 *
 * An address is never followed: an SA's can't be changed in place, and its SPI derives from it.
 */
export interface Mapping {
  /** The address that the peer was added by. */
  readonly peer: string
  /** Where its packets come from now. */
  readonly address: string
  readonly port: number
  /**
   * Whether ESP to the peer goes there from now on. If not: another address, a port that was given, or VXLAN's. It does not
   * go there yet where the kernel refused the change: then the peer is degraded, until the kernel tells again.
   */
  readonly followed: boolean
}

/** What came of some mappings. */
export interface Learned {
  /** Slots of the peers whose SAs are to get another port. */
  readonly slots: readonly number[]
  /** One a peer, the last that was told. */
  readonly mappings: readonly Mapping[]
}

/** Takes in what the kernel told, as a socket's `hear` gives it: peers' ports are then what they should be. */
export function learn(records: Uint8Array, is: Is, form: Form): Learned {
  const { peers, claims } = is
  const slots = new Set<number>()
  const mappings = new Map<string, Mapping>()
  const reader = new RecordReader(records)
  while (reader.next()) {
    const tail = mappingOf(reader, form)
    if (tail === undefined) continue
    const port = new DataView(tail.buffer, tail.byteOffset).getUint16(MappingTail.port, LITTLE_ENDIAN)
    const owners = claims.claims(reader.u32(State.spi)).map(claimant)
    peers.load(tail, MappingTail.source)
    const sender = peers.find()
    const isKnown = owners.includes(sender)
    // Whose SA it is, if the address is nobody's: of two who share one it can't be told which.
    const slot = isKnown ? sender : owners[0]
    if (slot === undefined || peers.references[slot] === 0) continue
    const isGiven = peers.portSource[slot] === PortSource.given
    const isUsable = port !== 0 && port !== form.port
    if (isKnown && port === peers.port[slot]) {
      // An SA that two share has the address of one; and what was refused before is told again.
      if (peers.installedPort[slot] !== port) slots.add(slot)
      continue
    }
    const followed = isKnown && !isGiven && isUsable
    if (followed) {
      peers.port[slot] = port
      peers.portSource[slot] = PortSource.learned
      slots.add(slot)
    }
    const peer = peers.text(slot)
    mappings.set(peer, { peer, address: formatAddress(tail, MappingTail.source, peers.family), port, followed })
  }
  return { slots: [...slots], mappings: [...mappings.values()] }
}

/** The tail of a mapping of one of our SAs; undefined of whatever else was told. */
function mappingOf(record: RecordReader, { local, mark }: Form): Uint8Array | undefined {
  if (record.u8(State.operation) !== Event.mapping || record.u32(State.reqid) !== mark) return undefined
  if (record.u8(State.family) !== local.family) return undefined
  const destination = record.address(State.destination)
  for (let i = 0; i < ADDRESS_BYTES; i++) if (destination[i] !== local.bytes[i]) return undefined
  for (const [type, payload] of record.attributes()) if (type === Tail.mapping) return payload
  return undefined
}

/** How long a peer is shown so, in milliseconds, after the kernel last told: of packets from elsewhere it tells again and again. */
const SHOWN_MS = 60_000

/** What was last told of peers, the oldest first, for as long as it is shown. */
class Recent<T> {
  readonly #byPeer = new Map<string, { of: T; at: number }>()

  get size(): number {
    return this.#byPeer.size
  }

  get(peer: string): T | undefined {
    return this.#byPeer.get(peer)?.of
  }

  set(peer: string, of: T, at: number): void {
    this.#byPeer.delete(peer)
    this.#byPeer.set(peer, { of, at })
  }

  delete(peer: string): void {
    this.#byPeer.delete(peer)
  }

  forget(now: number): void {
    for (const [peer, { at }] of this.#byPeer) {
      if (now - at <= SHOWN_MS) return
      this.#byPeer.delete(peer)
    }
  }

  /** Of the last minute, and still wanted; forgets the others. */
  list(isWanted: (peer: string) => boolean, now: number): [peer: string, of: T][] {
    this.forget(now)
    for (const peer of this.#byPeer.keys()) if (!isWanted(peer)) this.#byPeer.delete(peer)
    return Array.from(this.#byPeer, ([peer, { of }]) => [peer, of])
  }
}

/** Peers whose packets come from where ESP to them does not go. */
export class Strays {
  readonly #recent = new Recent<Mapping>()

  /** How many are remembered. */
  get size(): number {
    return this.#recent.size
  }

  /** Takes in what was learned, and returns what of it is news. */
  note(mappings: readonly Mapping[], now: number): Mapping[] {
    this.#recent.forget(now)
    return mappings.filter((mapping) => {
      const { peer, address, port, followed } = mapping
      const before = this.#recent.get(peer)
      if (followed) this.#recent.delete(peer)
      else this.#recent.set(peer, mapping, now)
      return followed || before?.address !== address || before.port !== port
    })
  }

  /** Those of the last minute who are still wanted. */
  list(isWanted: (peer: string) => boolean, now: number): Mapping[] {
    return this.#recent.list(isWanted, now).map(([, mapping]) => mapping)
  }
}

/** How often in a row a port comes back that was left before, until it is no NAT's doing. */
const RETURNS = 3
/** How often a port changes in a minute, wherever it goes, until it is none. */
const CHANGES = 10

interface Changes {
  /** The last port but one and the last. */
  readonly ports: readonly [number, number]
  /** How often in a row it was one left within the minute before. */
  readonly returns: number
  /** When it changed, {@link CHANGES} times at most; the last one last. */
  readonly at: readonly number[]
}

/** Peers whose port goes to and fro between two, or changes all the time. */
export class Contested {
  readonly #recent = new Recent<Changes>()

  /** How many are remembered. */
  get size(): number {
    return this.#recent.size
  }

  /** Takes in what was learned. */
  note(mappings: readonly Mapping[], now: number): void {
    this.#recent.forget(now)
    for (const { peer, port, followed } of mappings) {
      const before = this.#recent.get(peer) ?? { ports: [0, 0], returns: 0, at: [] }
      const [left, last] = before.ports
      if (!followed || port === last) continue
      const returns = port === left ? before.returns + 1 : 0
      this.#recent.set(peer, { ports: [last, port], returns, at: [...before.at, now].slice(-CHANGES) }, now)
    }
  }

  /** Those of the last minute who are still wanted, with their last two ports, in order. */
  list(isWanted: (peer: string) => boolean, now: number): { peer: string; ports: [number, number] }[] {
    return this.#recent
      .list(isWanted, now)
      .filter(([, { returns, at }]) => returns >= RETURNS || isMany(at))
      .map(([peer, { ports }]) => ({ peer, ports: [Math.min(...ports), Math.max(...ports)] }))
  }
}

function isMany(at: readonly number[]): boolean {
  return at.length === CHANGES && at.at(-1)! - at[0]! <= SHOWN_MS
}
