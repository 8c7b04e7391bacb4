import { viewOf } from '../kernel/attributes.js'
import { attributeAt, isPolicyRecord, startsOf } from '../kernel/record-identity.js'
import { LITTLE_ENDIAN, Policy, RecordWriter, State } from '../kernel/records.js'
import { DIRECTION_OUT, XFRMA } from '../kernel/xfrm-names.js'
import { TemplateLayout } from '../kernel/xfrm-parts.js'
import { type Belonging, isLarval } from './belonging.js'
import type { NodeKeyring } from './keyring.js'
import { ObjectWriter } from './objects.js'
import type { Remote, Settings } from './settings.js'
import { keyIdOf } from './tunnels.js'

/** What should be in the kernel, given the keys: records of what all nodes share, and of each one's own. */
export class Wish {
  readonly #marked: boolean
  readonly #keyring: NodeKeyring
  readonly #belonging: Belonging
  readonly #writer: ObjectWriter

  constructor(settings: Settings, keyring: NodeKeyring, belonging: Belonging) {
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
   * @param installed what it has
   */
  of(node: Remote, boots: number, installed: Uint8Array): Uint8Array {
    const writer = new RecordWriter(2048)
    this.#writer.node(writer, node, boots, this.#outboundIds(installed))
    return writer.take()
  }

  /** Why a node can't have what it should; undefined if it can. */
  lack(node: Remote): string | undefined {
    const keyless = this.#writer.withoutKey(node)
    return keyless && `there is no key for what ${keyless.address} sends under key id ${keyless.id}`
  }

  /** Whether an object stays that is of a key which is not here: an earlier process had it. */
  keeps(records: Uint8Array, at: number, reclaim: boolean): boolean {
    let id: number
    let mayStay = this.#marked
    if (isPolicyRecord(records, at)) {
      const template = attributeAt(records, at, XFRMA.TMPL)
      if (!this.#marked || records[at + Policy.direction] !== DIRECTION_OUT || template < 0) return false
      id = keyIdOf(viewOf(records).getUint32(template + TemplateLayout.spi))
    } else {
      id = keyIdOf(viewOf(records).getUint32(at + State.spi, LITTLE_ENDIAN))
      mayStay ||= this.#belonging.isInbound(records, at)
    }
    if (this.#keyring.has(id)) return false
    return id === this.#keyring.current || (mayStay && !reclaim)
  }

  /** Ids of the keys to encrypt with for a node, the present one first. */
  #outboundIds(installed: Uint8Array): number[] {
    const { current, next, old } = this.#keyring
    const has = this.#keyring.has(current) || this.#encryptsUnder(installed, current)
    const first = has ? current : next!
    // A datapath may still mark packets for a key that was current until now.
    return this.#marked ? [first, ...old] : [first]
  }

  #encryptsUnder(records: Uint8Array, id: number): boolean {
    const view = viewOf(records)
    return startsOf(records).some(
      (at) =>
        !isPolicyRecord(records, at) &&
        !isLarval(records, at) &&
        !this.#belonging.isInbound(records, at) &&
        keyIdOf(view.getUint32(at + State.spi, LITTLE_ENDIAN)) === id,
    )
  }
}
