import { address } from '../../lib/base/address.js'
import { Event, LITTLE_ENDIAN, MappingTail, RecordWriter, State, Tail } from '../../lib/kernel/records.js'
import { deriveSpi } from '../../lib/overlay/spi.js'
import type { NatPort } from '../../lib/overlay/ports.js'
import { LOCAL } from './model.js'

/** What the kernel tells of packets that come from another address or port than the SA of a peer's has. */
export interface MappingFields {
  peer: string
  /** Where they come from. */
  from: string
  port: number
  tag?: number
  reqid?: number
  local?: string
}

/** The record of a mapping, as native/xfrm/events.cc makes it. */
export function mappingRecord(into: RecordWriter, fields: MappingFields): void {
  const { peer, from, port, tag = 1, reqid = 0x58464d, local = LOCAL } = fields
  const there = address(peer, 'peer')
  into.begin(Event.mapping)
  into.u8(State.family, there.family)
  into.u8(State.protocol, 50)
  into.bytes(State.destination, address(local, 'local').bytes)
  into.bytes(State.source, there.bytes)
  into.u32(State.spi, deriveSpi(peer, local, tag))
  into.u32(State.reqid, reqid)
  const tail = new Uint8Array(20)
  tail.set(address(from, 'from').bytes, MappingTail.source)
  new DataView(tail.buffer).setUint16(MappingTail.port, port, LITTLE_ENDIAN)
  into.attribute(Tail.mapping, tail)
}

export function mappings(...all: MappingFields[]): Uint8Array {
  const writer = new RecordWriter()
  for (const fields of all) mappingRecord(writer, fields)
  return writer.take()
}

/** The UDP socket of an overlay of a model: what is told, and to whom keepalives went. */
export class ModelNat implements NatPort {
  readonly descriptor = 7
  readonly mappings = new Heard()
  /** By second, the ports in order of peers. */
  readonly keptAlive: number[][] = []
  intact = true
  /** Which are refused. */
  failing = 0

  isIntact(): Promise<boolean> {
    return Promise.resolve(this.intact)
  }

  keepAlive(addresses: Uint8Array, ports: Uint16Array): Promise<{ sent: number; failed: number; errno: number }> {
    if (addresses.length !== ports.length * 16) throw new Error('an address for each port')
    this.keptAlive.push([...ports])
    return Promise.resolve({
      sent: ports.length - this.failing,
      failed: this.failing,
      errno: this.failing === 0 ? 0 : 101,
    })
  }
}

/** A source of events that a test fills. */
export class Heard {
  #waiting: ((records: Uint8Array) => void) | undefined
  readonly #queue: Uint8Array[] = []

  tell(...all: MappingFields[]): void {
    const records = mappings(...all)
    if (this.#waiting === undefined) this.#queue.push(records)
    else this.#waiting(records)
    this.#waiting = undefined
  }

  async hear(): Promise<{ records: Uint8Array; keys: Uint8Array[]; algorithms: string[] }> {
    const records = this.#queue.shift() ?? (await new Promise<Uint8Array>((resolve) => (this.#waiting = resolve)))
    return { records, keys: [], algorithms: [] }
  }
}
