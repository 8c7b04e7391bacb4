import type { Address } from '../base/address.js'
import { viewOf } from '../kernel/attributes.js'
import { attributeAt, isPolicyRecord, sameIdentity, startsOf } from '../kernel/record-identity.js'
import { Policy, RecordWriter, State } from '../kernel/records.js'
import { DIRECTION_OUT, XFRMA } from '../kernel/xfrm-names.js'
import { TemplateLayout } from '../kernel/xfrm-parts.js'
import { type Belonging, isLarval } from './belonging.js'
import type { NodeKeyring } from './keyring.js'
import { ObjectWriter } from './objects.js'
import type { Remote, Settings } from './settings.js'
import { keyIdAt, keyIdOf, tunnelsTo } from './tunnels.js'

/** What should be in the kernel, given the keys: records of what all nodes share, and of each one's own. */
export class Wish {
  readonly #settings: Settings
  readonly #marked: boolean
  readonly #keyring: NodeKeyring
  readonly #belonging: Belonging
  readonly #writer: ObjectWriter

  constructor(settings: Settings, keyring: NodeKeyring, belonging: Belonging) {
    this.#settings = settings
    this.#marked = settings.marks !== false
    this.#keyring = keyring
    this.#belonging = belonging
    this.#writer = new ObjectWriter(settings, keyring)
  }

  /** The policies that drop what no other takes. */
  drops(): Uint8Array {
    const writer = new RecordWriter()
    this.#writer.drops(writer)
    return writer.take()
  }

  /** All that is no node's. */
  shared(): Uint8Array {
    const writer = new RecordWriter()
    this.#writer.drops(writer)
    this.#writer.shared(writer)
    return writer.take()
  }

  /**
   * All of a node's.
   * @param boots how often it was seen to have booted
   */
  of(node: Remote, boots: number): Uint8Array {
    const writer = new RecordWriter(2048)
    this.#writer.node(writer, node, boots, this.#outboundIds())
    return writer.take()
  }

  /**
   * Whether SAs that a node has under a key are of that key.
   * @param found what it has, with tokens in place of keys
   * @returns undefined if it has none
   */
  confirms(node: Remote, boots: number, found: Uint8Array, id: number): boolean | undefined {
    const wanted = this.of(node, boots)
    const places = startsOf(wanted).filter((at) => isStateUnder(wanted, at, id))
    const pairs = startsOf(found)
      .filter((at) => isStateUnder(found, at, id))
      .map((at) => [at, places.find((place) => sameIdentity(wanted, place, found, at))] as const)
      .filter((pair): pair is readonly [number, number] => pair[1] !== undefined)
    if (pairs.length === 0) return undefined
    return pairs.every(([at, place]) => Buffer.compare(keysAt(found, at), keysAt(wanted, place)) === 0)
  }

  /** Why a node can't have what it should; undefined if it can. */
  lack(node: Remote): string | undefined {
    const keyless = this.#writer.withoutKey(node)
    return keyless && `there is no key for what ${keyless.address} sends under key id ${keyless.id}`
  }

  /**
   * Why a node is not encrypted to, or not heard, under the key that encrypts, where that is an earlier process's and not
   * here, so that nothing can be put in place of what is missing.
   * @param boots how often it was seen to have booted
   * @param found what it has
   */
  deadness(node: Remote, boots: number, found: Uint8Array): string | undefined {
    const { current } = this.#keyring
    if (this.#keyring.has(current)) return undefined
    const advice = `key ${current}, under which an earlier process encrypts here, is not at hand: open with it, or prepare() and commit() the next`
    const tunnels = [...tunnelsTo(node, this.#settings)]
    // The keys of what is there derive from the boot before.
    if (boots > 1 && tunnels.length > 0) return `it booted anew, and ${advice}`
    const under = startsOf(found).filter((at) => isStateUnder(found, at, current))
    const has = (source: Address, destination: Address) =>
      under.some(
        (at) =>
          Buffer.compare(found.subarray(at + State.source, at + State.spi), source.bytes) === 0 &&
          Buffer.compare(found.subarray(at + State.destination, at + State.source), destination.bytes) === 0,
      )
    for (const { local, remote } of tunnels) {
      if (!has(local, remote) || !has(remote, local)) {
        return `between ${local.text} and ${remote.text} an SA is missing, and ${advice}`
      }
    }
    return undefined
  }

  /**
   * Whether an object stays that nobody asks for: it is of a key which is not here, since an earlier process had it; or, with
   * marks, of the next one, which a datapath may name already.
   * @param reclaim keys that stay, by their ids, where those do not that encrypt no more; undefined: all stay
   */
  keeps(records: Uint8Array, at: number, reclaim: ReadonlySet<number> | undefined): boolean {
    let id: number
    let mayStay = this.#marked
    if (isPolicyRecord(records, at)) {
      const template = attributeAt(records, at, XFRMA.TMPL)
      if (!this.#marked || records[at + Policy.direction] !== DIRECTION_OUT || template < 0) return false
      id = keyIdOf(viewOf(records).getUint32(template + TemplateLayout.spi))
    } else {
      id = keyIdAt(records, at)
      mayStay ||= this.#belonging.isInbound(records, at)
    }
    const { current, next } = this.#keyring
    if (this.#keyring.has(id)) return this.#marked && id === next
    return id === current || (mayStay && (reclaim === undefined || reclaim.has(id) || id === next))
  }

  /** Ids of the keys to encrypt with, the present one first. */
  #outboundIds(): number[] {
    const { current, old } = this.#keyring
    // A datapath may still mark packets for a key that was current until now.
    return this.#marked ? [current, ...old] : [current]
  }
}

/** Whether an object is an SA under a key, and not one that only stands for a packet that found none. */
export function isStateUnder(records: Uint8Array, at: number, id: number): boolean {
  if (isPolicyRecord(records, at) || isLarval(records, at)) return false
  return keyIdAt(records, at) === id
}

/** An SA's algorithms and keys. */
function keysAt(records: Uint8Array, at: number): Uint8Array {
  return records.subarray(at + State.cipher, at + State.reserved)
}
