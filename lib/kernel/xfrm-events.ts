import { formatAddress } from '../base/address.js'
import { AcquireTail, Event, LITTLE_ENDIAN, MappingTail, State as S, Tail } from './records.js'
import { viewOf } from './attributes.js'
import { DumpReader, selector } from './xfrm-decode.js'
import { nameOf, policyTypes, shownProtocols, XFRMA } from './xfrm-names.js'
import type { AcquireEvent, MappingEvent, XfrmEvent } from './xfrm-types.js'

/** In a flush, all protocols: none said, or IPSEC_PROTO_ANY (xfrm_id_proto_match). */
const anyProtocol: readonly number[] = [0, 255]

const changes = { 1: 'added', 2: 'updated', 3: 'deleted', 4: 'added', 5: 'updated', 6: 'deleted' } as const

/** Reads events, as a socket's `hear` gives them. */
export class EventReader extends DumpReader {
  /** The present record. */
  event(): XfrmEvent {
    const { record } = this
    const event = record.u8(S.operation)
    switch (event) {
      case Event.stateAdded:
      case Event.stateUpdated:
      case Event.stateDeleted:
        return { type: 'sa', change: changes[event], state: this.state() }
      case Event.policyAdded:
      case Event.policyUpdated:
      case Event.policyDeleted:
        return { type: 'policy', change: changes[event], policy: this.policy() }
      case Event.statesFlushed: {
        const protocol = record.u8(S.protocol)
        return {
          type: 'sa',
          change: 'flushed',
          protocol: anyProtocol.includes(protocol) ? 'any' : nameOf(protocol, shownProtocols),
        }
      }
      case Event.policiesFlushed:
        return {
          type: 'policy',
          change: 'flushed',
          policyType: nameOf(this.#tail(XFRMA.POLICY_TYPE)[0] ?? 0, policyTypes),
        }
      case Event.stateExpired:
        return { type: 'expire', hard: this.#hard(), state: this.state() }
      case Event.policyExpired:
        return { type: 'expire', hard: this.#hard(), policy: this.policy() }
      case Event.mapping:
        return this.#mapping()
      case Event.acquire:
        return this.#acquire()
      default:
        return { type: 'lost' }
    }
  }

  #hard(): boolean {
    return viewOf(this.#tail(Tail.hard)).getUint32(0, LITTLE_ENDIAN) !== 0
  }

  #mapping(): MappingEvent {
    const { record } = this
    const family = record.u8(S.family)
    const tail = this.#tail(Tail.mapping)
    const view = viewOf(tail)
    return {
      type: 'mapping',
      destination: formatAddress(record.address(S.destination), 0, family),
      spi: record.u32(S.spi),
      protocol: nameOf(record.u8(S.protocol), shownProtocols),
      reqid: record.u32(S.reqid),
      source: formatAddress(record.address(S.source), 0, family),
      sourcePort: view.getUint16(MappingTail.knownPort, LITTLE_ENDIAN),
      newSource: formatAddress(tail, MappingTail.source, family),
      newSourcePort: view.getUint16(MappingTail.port, LITTLE_ENDIAN),
    }
  }

  #acquire(): AcquireEvent {
    const tail = this.#tail(Tail.acquire)
    const view = viewOf(tail)
    const flow = this.#tail(Tail.selector)
    const policy = this.policy()
    // Not the policy's: a tunnel may be of the other.
    const family = view.getUint16(AcquireTail.family, LITTLE_ENDIAN)
    return {
      type: 'acquire',
      source: formatAddress(tail, AcquireTail.source, family),
      destination: formatAddress(tail, AcquireTail.destination, family),
      protocol: nameOf(view.getUint16(AcquireTail.protocol, LITTLE_ENDIAN), shownProtocols),
      selector: selector(viewOf(flow), flow),
      policy,
      sequence: view.getUint32(AcquireTail.sequence, LITTLE_ENDIAN),
    }
  }

  /** The attribute of that type; empty if there is none. */
  #tail(type: number): Uint8Array {
    for (const [found, payload] of this.record.attributes()) if (found === type) return payload
    return new Uint8Array(0)
  }
}
