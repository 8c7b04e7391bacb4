import { ADDRESS_BYTES, type Family } from '../base/address.js'
import { viewOf } from '../kernel/attributes.js'
import { attributeAt } from '../kernel/record-identity.js'
import { LITTLE_ENDIAN, Policy, State } from '../kernel/records.js'
import { DIRECTION_OUT, FLAG_ESN, IPPROTO_ESP, MODE_TUNNEL, XFRMA } from '../kernel/xfrm-names.js'
import { TemplateLayout } from '../kernel/xfrm-parts.js'
import type { Settings } from './settings.js'
import { Purpose, remoteKey } from './tunnels.js'

/** In place of a far end: of policies that are no node's. */
export const SHARED = 'shared'

/**
 * Tells what is ours, and whose: what has the form of ours, which is its reqid, tunnel mode, and an address of this node at
 * one end. Other tools use the same reqids.
 */
export class Belonging {
  readonly #settings: Settings
  /** Reqids of ours. */
  readonly purposes: readonly Purpose[]

  constructor(settings: Settings) {
    this.#settings = settings
    this.purposes = settings.local.overlay.size > 0 ? [Purpose.pods, Purpose.overlay] : [Purpose.pods]
  }

  /** Whether a state leads to this node. */
  isInbound(records: Uint8Array, at: number): boolean {
    return this.#isHere(records, at + State.destination, records[at + State.family]!)
  }

  /** The other end of a state of ours, as {@link remoteKey} has it; undefined: it is not ours. */
  ofState(records: Uint8Array, at: number): string | undefined {
    const view = viewOf(records)
    const isOurs =
      this.purposes.some((purpose) => purpose === view.getUint32(at + State.reqid, LITTLE_ENDIAN)) &&
      records[at + State.protocol] === IPPROTO_ESP &&
      records[at + State.mode] === MODE_TUNNEL &&
      (records[at + State.flags]! & FLAG_ESN) !== 0 &&
      // Larval: it stands for a packet that found none, and goes by itself.
      view.getUint32(at + State.spi, LITTLE_ENDIAN) !== 0 &&
      attributeAt(records, at, XFRMA.MARK) < 0 === (this.#settings.marks === false)
    return isOurs
      ? this.#far(records, at + State.source, at + State.destination, records[at + State.family]!)
      : undefined
  }

  /** The other end of the tunnel of a policy of ours, or {@link SHARED}; undefined: it is not ours. */
  ofPolicy(records: Uint8Array, at: number): string | undefined {
    const family = records[at + Policy.family]!
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
}

function isZero(bytes: Uint8Array, at: number): boolean {
  for (let i = 0; i < ADDRESS_BYTES; i++) if (bytes[at + i] !== 0) return false
  return true
}
