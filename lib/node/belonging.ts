import { ADDRESS_BYTES, type Family } from '../base/address.js'
import { U16 } from '../base/check.js'
import { type Prefix, widthOf } from '../base/prefix.js'
import { viewOf } from '../kernel/attributes.js'
import { attributeAt, attributeTypes, u16, u32 } from '../kernel/record-identity.js'
import { ATTRIBUTE_HEAD } from '../kernel/record-parts.js'
import { Cipher, NO_ALGORITHM, Policy, State, Tail } from '../kernel/records.js'
import {
  DIRECTION_FWD,
  DIRECTION_IN,
  DIRECTION_OUT,
  FLAG_ESN,
  IPPROTO_ESP,
  IPPROTO_UDP,
  MODE_TUNNEL,
  XFRMA,
} from '../kernel/xfrm-names.js'
import { TemplateLayout } from '../kernel/xfrm-parts.js'
import { replayWindow } from '../kernel/xfrm-replay.js'
import { FORWARD_PRIORITY } from './objects.js'
import { REPLAY_WINDOW } from './sequences.js'
import type { Remote, Settings } from './settings.js'
import {
  decryptMark,
  inboundMark,
  keyIdOf,
  type Mark,
  NODE_ID_SHIFT,
  outboundMark,
  proxyMark,
  Purpose,
  remoteKey,
  spiOf,
} from './tunnels.js'

/** In place of a far end: of policies that are no node's. */
export const SHARED = 'shared'

/** Whose a policy is. */
export interface Ownership {
  /** The other end of its tunnel, as {@link remoteKey} has it, or {@link SHARED}. */
  readonly far: string
  /**
   * Whether it says so by itself. One that lets in what a tunnel brought, where no marks are, has no SPI that would: it is
   * ours if the way out of the same ranges is, or if a node has just those.
   */
  readonly isCertain: boolean
}

/**
 * Tells what is ours, and whose. Other tools use the same reqids, between the same addresses, so that is not enough: ours
 * has an SPI that derives from its source, ESN and our window, marks that agree with the key, the priority and the kind of
 * selector that we give. What has all but one of these is another's: it stays as it is.
 */
export class Belonging {
  readonly #settings: Settings
  /** Reqids of ours: also of what these options do not ask for, which an earlier process may have been told to. */
  readonly purposes: readonly Purpose[] = Object.values(Purpose)
  /**
   * Addresses that this node had: policies lead out from them whose SPI derives from them. By purpose, as
   * {@link remoteKey} has them. With marks none is known.
   */
  readonly #former = new Set<string>()

  constructor(settings: Settings) {
    this.#settings = settings
  }

  /** Whether a state leads to this node. */
  isInbound(records: Uint8Array, at: number): boolean {
    return this.purposes.some((purpose) => this.#leads(records, at, purpose) === 'in')
  }

  /** What a state does for this node. An address that it had may be another node's now: its own come first. */
  #leads(records: Uint8Array, at: number, purpose: Purpose): 'in' | 'out' | undefined {
    const family = records[at + State.family]!
    for (const isOne of [this.#isHere, this.#wasHere]) {
      if (isOne.call(this, records, at + State.destination, family, purpose)) return 'in'
      if (isOne.call(this, records, at + State.source, family, purpose)) return 'out'
    }
    return undefined
  }

  /** The other end of a state of ours, as {@link remoteKey} has it; undefined: it is not ours. */
  ofState(records: Uint8Array, at: number): string | undefined {
    const purpose = this.#purpose(u32(records, at + State.reqid))
    const isTunnel = records[at + State.protocol] === IPPROTO_ESP && records[at + State.mode] === MODE_TUNNEL
    if (purpose === undefined || !isTunnel || foreign.some((type) => attributeAt(records, at, type) >= 0)) {
      return undefined
    }
    const family = records[at + State.family]!
    const way = this.#leads(records, at, purpose)
    if (way === undefined) return undefined
    const inbound = way === 'in'
    if (isLarval(records, at) ? inbound : !isOurKind(records, at)) return undefined
    const spi = u32(records, at + State.spi)
    if (!this.#derives(spi, records, at + State.source)) return undefined
    const mark = markOf(records, at)
    const isMarked =
      this.#settings.marks === false ? mark === undefined : inbound ? isInboundMark(mark) : isOutboundMark(mark, spi)
    return isMarked ? farOf(records, at + (inbound ? State.source : State.destination), family) : undefined
  }

  /**
   * Whose a policy is; undefined: it is not ours. By one that leads out from an address which this node has no more it
   * learns that it had it: what leads in there is told only after that.
   */
  ofPolicy(records: Uint8Array, at: number): Ownership | undefined {
    const template = attributeAt(records, at, XFRMA.TMPL)
    if (template < 0 || !isPlain(records, at)) return undefined
    const purpose = this.#purpose(u32(records, template + TemplateLayout.reqid))
    const isTunnel =
      u16(records, template - ATTRIBUTE_HEAD) === ATTRIBUTE_HEAD + TemplateLayout.bytes &&
      records[template + TemplateLayout.protocol] === IPPROTO_ESP &&
      records[template + TemplateLayout.mode] === MODE_TUNNEL
    if (purpose === undefined || !isTunnel) return undefined
    const [source, destination] = [template + TemplateLayout.source, template + TemplateLayout.destination]
    const outbound = records[at + Policy.direction] === DIRECTION_OUT
    const family = records[at + Policy.family]!
    const spi = viewOf(records).getUint32(template + TemplateLayout.spi)
    const local = outbound ? source : destination
    const isHere = this.#isHere(records, local, family, purpose)
    if (outbound ? !this.#derives(spi, records, source) : spi !== 0) return undefined
    // With marks the SPI says nothing of the address.
    const mayBeFormer = outbound ? this.#settings.marks === false : this.#wasHere(records, local, family, purpose)
    if (!isHere && !mayBeFormer) return undefined
    const far = farOf(records, outbound ? destination : source, family)
    const ownership =
      this.#settings.marks === false
        ? this.#chosenByRanges(records, at, purpose, far)
        : this.#chosenByMark(records, at, purpose, far, spi)
    if (ownership !== undefined && !isHere) this.#former.add(`${purpose} ${farOf(records, local, family)}`)
    return ownership
  }

  /** Whether a policy that lets in selects what comes from a node to here. */
  selectsFrom(node: Remote, records: Uint8Array, at: number): boolean {
    const { local } = this.#settings
    const has = (ranges: readonly Prefix[], address: number, length: number) =>
      ranges.some((range) => isRange(records, at + address, at + length, range))
    const isHost = (ends: ReadonlyMap<Family, { bytes: Uint8Array }>, address: number, length: number) => {
      const family = records[at + Policy.family] as Family
      const end = ends.get(family)
      return end !== undefined && isRange(records, at + address, at + length, { ...end, length: widthOf(family) })
    }
    return records[at + Policy.protocol] === IPPROTO_UDP
      ? isHost(node.overlay, Policy.source, Policy.sourcePrefix) &&
          isHost(local.overlay, Policy.destination, Policy.destinationPrefix)
      : has(node.subnets, Policy.source, Policy.sourcePrefix) &&
          has(local.subnets, Policy.destination, Policy.destinationPrefix)
  }

  #chosenByRanges(records: Uint8Array, at: number, purpose: Purpose, far: string): Ownership | undefined {
    const port = (offset: number) => u16(records, at + offset)
    // Of an earlier process the port may have been another.
    const isSelector =
      purpose === Purpose.pods
        ? selectsAllPorts(records, at)
        : records[at + Policy.protocol] === IPPROTO_UDP &&
          port(Policy.destinationPortMask) === U16 &&
          port(Policy.sourcePortMask) === 0
    if (!isSelector || priorityOf(records, at) !== 0 || markOf(records, at) !== undefined) return undefined
    return { far, isCertain: records[at + Policy.direction] === DIRECTION_OUT }
  }

  #chosenByMark(records: Uint8Array, at: number, purpose: Purpose, far: string, spi: number): Ownership | undefined {
    if (!selectsAllPorts(records, at)) return undefined
    const [direction, priority, mark] = [records[at + Policy.direction], priorityOf(records, at), markOf(records, at)]
    const ours = { far, isCertain: true }
    if (direction === DIRECTION_OUT) return priority === 0 && isOutboundMark(mark, spi) ? ours : undefined
    if (purpose === Purpose.overlay) {
      return direction === DIRECTION_IN && priority === 0 && isMark(mark, decryptMark) ? ours : undefined
    }
    const isForAll =
      far === farOf(nowhere, 0, records[at + Policy.family]!) &&
      records[at + Policy.sourcePrefix] === 0 &&
      records[at + Policy.destinationPrefix] === 0
    const isShared =
      direction === DIRECTION_FWD
        ? mark === undefined && priority === FORWARD_PRIORITY
        : (isMark(mark, decryptMark) && priority <= 1) || (isMark(mark, proxyMark) && priority === 0)
    return isForAll && isShared ? { far: SHARED, isCertain: true } : undefined
  }

  #purpose(reqid: number): Purpose | undefined {
    return this.purposes.find((purpose) => purpose === reqid)
  }

  /** Whether an SPI is one of those of what the address there sends. */
  #derives(spi: number, records: Uint8Array, source: number): boolean {
    const id = keyIdOf(spi)
    return id !== 0 && spi === spiOf(records.subarray(source, source + ADDRESS_BYTES), id, this.#settings)
  }

  #isHere(records: Uint8Array, at: number, family: number, purpose: Purpose): boolean {
    const { addresses, overlay } = this.#settings.local
    const here = (purpose === Purpose.pods ? addresses : overlay).get(family as Family)
    return here !== undefined && Buffer.compare(here.bytes, records.subarray(at, at + ADDRESS_BYTES)) === 0
  }

  #wasHere(records: Uint8Array, at: number, family: number, purpose: Purpose): boolean {
    return this.#former.size > 0 && this.#former.has(`${purpose} ${farOf(records, at, family)}`)
  }
}

/** What a policy selects, as a text: that of one way, or of the way back, is the same for both. */
export function selectionOf(records: Uint8Array, at: number, isBack = false): string {
  const text = (from: number, to: number) => Buffer.from(records.subarray(at + from, at + to)).toString('latin1')
  const ends = [
    text(Policy.source, Policy.source + ADDRESS_BYTES) + text(Policy.sourcePrefix, Policy.sourcePrefix + 1),
    text(Policy.destination, Policy.source) + text(Policy.destinationPrefix, Policy.sourcePrefix),
  ]
  if (isBack) ends.reverse()
  const more = [
    text(Policy.family, Policy.family + 1),
    text(Policy.protocol, Policy.protocol + 1),
    text(Policy.destinationPort, Policy.sourcePort),
  ]
  return [...ends, ...more].join('|')
}

const nowhere = new Uint8Array(ADDRESS_BYTES)

/**
 * Whether a state stands for a packet that found none: where anybody listens for `acquire` the kernel makes one as the
 * policy's template asks for it, SPI and all, which keeps ours from being added for as long as it lasts, 30 seconds. It has
 * no algorithm; all that ESP works with have one.
 */
export function isLarval(records: Uint8Array, at: number): boolean {
  const auth = u16(records, at + State.authAlgorithm)
  return records[at + State.cipher] === Cipher.none && auth === NO_ALGORITHM
}

/** What no state of ours has. */
const foreign = [XFRMA.IF_ID, XFRMA.ENCAP]
/** All that a policy of ours has. */
const known: ReadonlySet<number> = new Set([XFRMA.TMPL, XFRMA.MARK])

/** Whether an SA has ESN, our window, and no selector of its own. */
function isOurKind(records: Uint8Array, at: number): boolean {
  const replay = attributeAt(records, at, XFRMA.REPLAY_ESN_VAL)
  const hasEsn = (records[at + State.flags]! & FLAG_ESN) !== 0 && replay >= 0
  return hasEsn && replayWindow(records, replay) === REPLAY_WINDOW && attributeAt(records, at, Tail.selector) < 0
}

/** Whether a policy allows, and has nothing beside its selector, template, mark and priority. */
function isPlain(records: Uint8Array, at: number): boolean {
  return (
    records[at + Policy.action] === 0 &&
    records[at + Policy.flags] === 0 &&
    u32(records, at + Policy.interfaceIndex) === 0 &&
    attributeTypes(records, at).every((type) => known.has(type))
  )
}

function selectsAllPorts(records: Uint8Array, at: number): boolean {
  return (
    records[at + Policy.protocol] === 0 &&
    u16(records, at + Policy.destinationPortMask) === 0 &&
    u16(records, at + Policy.sourcePortMask) === 0
  )
}

function isRange(
  records: Uint8Array,
  address: number,
  length: number,
  range: Pick<Prefix, 'bytes' | 'length'>,
): boolean {
  return (
    records[length] === range.length &&
    Buffer.compare(range.bytes, records.subarray(address, address + ADDRESS_BYTES)) === 0
  )
}

function priorityOf(records: Uint8Array, at: number): number {
  return u32(records, at + Policy.priority)
}

function farOf(records: Uint8Array, at: number, family: number): string {
  return remoteKey(records.subarray(at, at + ADDRESS_BYTES), family as Family)
}

function markOf(records: Uint8Array, at: number): Mark | undefined {
  const mark = attributeAt(records, at, XFRMA.MARK)
  if (mark < 0) return undefined
  return { value: u32(records, mark), mask: u32(records, mark + 4) }
}

function isMark(found: Mark | undefined, { value, mask }: Mark): boolean {
  return found?.value === value && found.mask === mask
}

/** Whether it is the mark of what is to be encrypted for any node under a key. */
function isOutboundMark(found: Mark | undefined, keyId: number): boolean {
  return found !== undefined && nodeIdOf(found) !== 0 && isMark(found, outboundMark(nodeIdOf(found), keyId))
}

/** Whether it is the mark of what came from any node. */
function isInboundMark(found: Mark | undefined): boolean {
  return found !== undefined && nodeIdOf(found) !== 0 && isMark(found, inboundMark(nodeIdOf(found)))
}

function nodeIdOf({ value }: Mark): number {
  return value >>> NODE_ID_SHIFT
}
