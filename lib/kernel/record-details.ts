import { viewOf } from './attributes.js'
import { attributeAt, recordLength } from './record-identity.js'
import { HEAD_BYTES, LITTLE_ENDIAN, type RecordWriter, State, Tail } from './records.js'
import { XFRMA } from './xfrm-names.js'
import { type SequenceNumbers, sequenceNumbers, unusedReplay } from './xfrm-replay.js'

/** What a record of a state, read with details, has beside what was asked for: it changes by itself. */

export interface StateDetails {
  /** When the SA was added, in seconds since 1970, by the clock of then. */
  readonly added: number
  /** Zeros where it has none that are 64 bits wide. */
  readonly numbers: SequenceNumbers
}

export function detailsOf(records: Uint8Array, at: number): StateDetails {
  const current = attributeAt(records, at, Tail.current)
  const replay = attributeAt(records, at, XFRMA.REPLAY_ESN_VAL)
  return {
    added: current < 0 ? 0 : Number(viewOf(records).getBigUint64(current + ADDED, LITTLE_ENDIAN)),
    numbers: replay < 0 ? { sent: 0n, received: 0n } : sequenceNumbers(records, replay),
  }
}

/** Of struct xfrm_lifetime_cur: after bytes and packets. */
const ADDED = 16

/**
 * Appends the record without details, as it is in a dump that has none: fit to be compared with one that was written to
 * be added. With `andNumbers` its replay state stays: fit to be added itself, in place of one that went.
 */
export function appendPlain(into: RecordWriter, records: Uint8Array, at: number, andNumbers = false): void {
  into.begin(records[at + State.operation]!)
  into.bytes(State.operation, records.subarray(at + State.operation, at + HEAD_BYTES))
  const view = viewOf(records)
  const end = at + recordLength(records, at)
  for (let place = at + HEAD_BYTES; place + 4 <= end;) {
    const [length, type] = [view.getUint16(place, LITTLE_ENDIAN), view.getUint16(place + 2, LITTLE_ENDIAN)]
    if (length < 4) return
    const payload = records.subarray(place + 4, place + length)
    if (type === XFRMA.REPLAY_ESN_VAL && !andNumbers) into.attribute(type, unusedReplay(payload))
    else if (!moving.has(type) && (type !== XFRMA.REPLAY_VAL || andNumbers)) into.attribute(type, payload)
    place += (length + 3) & ~3
  }
}

const moving: ReadonlySet<number> = new Set([XFRMA.LASTUSED, Tail.current, Tail.statistics, Tail.sequence])
