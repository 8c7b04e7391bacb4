import { createHash } from 'node:crypto'
import { viewOf } from '../kernel/attributes.js'
import { attributeAt, identityKey } from '../kernel/record-identity.js'
import { LITTLE_ENDIAN, State } from '../kernel/records.js'
import { XFRMA } from '../kernel/xfrm-names.js'
import { replayState, type SequenceNumbers } from '../kernel/xfrm-replay.js'
import { keyIdOf } from './tunnels.js'

/** Packets that may come late, as in Cilium. */
export const REPLAY_WINDOW = 1024

/** Packets a second that one SA may have sent since it was last looked at: more than any one does. */
const FASTEST = 2 ** 20
/**
 * The receiver learns the upper half of a number from the lower one (RFC 4304): a sender that went on by half of what that
 * spans is still understood.
 */
const FARTHEST = 2 ** 31

interface Known {
  readonly keyId: number
  /** A hash of the SA's keys: with others its numbers start anew. */
  readonly print: string
  readonly numbers: SequenceNumbers
  /** When that was so, by the monotonic clock, in milliseconds. */
  readonly at: number
}

/**
 * Remembers how far the sequence numbers of SAs have come, so that one which somebody deleted goes on where it was when it
 * is put back under the same keys. From zero its packets would be taken for old ones at the other end, until it had sent as
 * many as before; and old ones that somebody kept would be taken for new here.
 *
 * What it knows is what was seen at the last look, or a new SA: a sender goes on from there by as much as it may have sent
 * meanwhile.
 */
export class Sequences {
  readonly #known = new Map<string, Known>()
  readonly #now: () => number

  constructor(now = () => performance.now()) {
    this.#now = now
  }

  /** A state was found so. */
  saw(records: Uint8Array, at: number, print: string, numbers: SequenceNumbers): void {
    this.#known.set(identityKey(records, at), { keyId: keyIdAt(records, at), print, numbers, at: this.#now() })
  }

  /** Sets where the numbers of a state begin that is to be added: `records` is changed. */
  start(records: Uint8Array, at: number, print: string, isInbound: boolean): void {
    const identity = identityKey(records, at)
    const before = this.#known.get(identity)
    const numbers = before?.print === print ? this.#onward(before, isInbound) : NONE
    this.#known.set(identity, { keyId: keyIdAt(records, at), print, numbers, at: this.#now() })
    if (numbers !== NONE)
      records.set(replayState(REPLAY_WINDOW, numbers), attributeAt(records, at, XFRMA.REPLAY_ESN_VAL))
  }

  /** An inbound SA was taken away on purpose: whoever comes back may have forgotten how far it had come. */
  ended(records: Uint8Array, at: number): void {
    this.#known.delete(identityKey(records, at))
  }

  /** Forgets SAs under keys that are no more. */
  forget(isGone: (keyId: number) => boolean): void {
    for (const [identity, { keyId }] of this.#known) if (isGone(keyId)) this.#known.delete(identity)
  }

  #onward({ numbers, at }: Known, isInbound: boolean): SequenceNumbers {
    if (isInbound) return { sent: 0n, received: numbers.received }
    const leap = Math.min(FARTHEST, Math.ceil(((this.#now() - at) / 1000) * FASTEST) + REPLAY_WINDOW)
    return { sent: numbers.sent + BigInt(leap), received: 0n }
  }
}

function keyIdAt(records: Uint8Array, at: number): number {
  return keyIdOf(viewOf(records).getUint32(at + State.spi, LITTLE_ENDIAN))
}

const NONE: SequenceNumbers = { sent: 0n, received: 0n }

/** Of the keys of an SA, what tells them from others' and not what they are. */
export function printOf(cipher: Uint8Array | undefined, auth: Uint8Array | undefined): string {
  const hash = createHash('sha256')
  for (const key of [cipher, auth]) if (key !== undefined) hash.update(key)
  return hash.digest('base64').slice(0, 16)
}
