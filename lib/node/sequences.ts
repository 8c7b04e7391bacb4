import { createHash } from 'node:crypto'
import { attributeAt } from '../kernel/record-identity.js'
import { State } from '../kernel/records.js'
import { XFRMA } from '../kernel/xfrm-names.js'
import { replayState, type SequenceNumbers } from '../kernel/xfrm-replay.js'
import { keyIdAt } from './tunnels.js'

/** Packets that may come late, as in Cilium. */
export const REPLAY_WINDOW = 1024

/** Packets a second that one SA may have sent since it was last looked at: more than any one does. */
const FASTEST = 2 ** 20
/** The most that a sender leaps at once, whatever it may have sent. */
const FARTHEST = 2 ** 31 - 2 * REPLAY_WINDOW
/**
 * The receiver learns the upper half of a number from the lower one (RFC 4304): one that is further ahead than this of the
 * highest it has received, less its window, is taken for another, and its packet for forged.
 */
const REACH = BigInt(2 ** 32 - 2 * REPLAY_WINDOW)
/** Where a sender begins of whom nothing is known but that it may have sent before: ahead of all up to there. */
const HALFWAY = 2n ** 31n

interface Known {
  readonly keyId: number
  /** As of when it was last seen to have gone on. */
  readonly numbers: SequenceNumbers
  /** The last of the numbers that an SA put back since was begun at; the one sent, if none was. */
  readonly begun: bigint
  /** When that was so, by the monotonic clock, in milliseconds. */
  readonly at: number
}

/**
 * Remembers how far the sequence numbers of SAs have come, so that one which went away goes on where it was when it is put
 * back under the same keys. From zero its packets would be taken for old ones at the other end, until it had sent as many
 * as before; and old ones that somebody kept would be taken for new here.
 *
 * What it knows is what was seen at the last look, or a new SA: a sender goes on from there by as much as it may have sent
 * meanwhile. Leaps without a look between them add up, to no more than the receiver can follow.
 */
export class Sequences {
  /** By what names the SA, and its keys: another tool's in its place has others. */
  readonly #known = new Map<string, Known>()
  /** Ids of keys under which SAs were made here first, and of those under which the kernel had some by then. */
  readonly #own = new Set<number>()
  readonly #met = new Set<number>()
  readonly #now: () => number

  constructor(now = () => performance.now()) {
    this.#now = now
  }

  /** The kernel has SAs under a key: unless it is new here, an earlier process may have sent under it to whomever. */
  met(keyId: number): void {
    if (!this.#own.has(keyId)) this.#met.add(keyId)
  }

  /** A state was found so. */
  saw(records: Uint8Array, at: number, print: string, numbers: SequenceNumbers): void {
    const name = nameOf(records, at, print)
    const before = this.#known.get(name)
    const now = { keyId: keyIdAt(records, at), at: this.#now() }
    // Where it was put back and has sent nothing since, the receiver is where it was before.
    const isStill = before !== undefined && before.begun > 0n && before.begun === numbers.sent
    this.#known.set(
      name,
      isStill
        ? { ...before, ...now }
        : { ...now, numbers: before === undefined ? proven(numbers) : numbers, begun: numbers.sent },
    )
  }

  /**
   * Sets where the numbers of a state begin that is to be added: `records` is changed.
   * @returns whether the receiver can follow, as far as is known
   */
  start(records: Uint8Array, at: number, print: string, isInbound: boolean): boolean {
    const name = nameOf(records, at, print)
    const [keyId, now] = [keyIdAt(records, at), this.#now()]
    if (!this.#met.has(keyId)) this.#own.add(keyId)
    const before = this.#known.get(name)
    const numbers = before?.numbers ?? NONE
    const wanted = isInbound ? 0n : before === undefined ? this.#first(keyId) : this.#onward(before)
    const farthest = numbers.sent + REACH
    const begun = wanted > farthest ? farthest : wanted
    this.#known.set(name, { keyId, numbers, begun, at: now })
    const next = isInbound ? { sent: 0n, received: numbers.received } : { sent: begun, received: 0n }
    if (next.sent > 0n || next.received > 0n)
      records.set(replayState(REPLAY_WINDOW, next), attributeAt(records, at, XFRMA.REPLAY_ESN_VAL))
    return wanted <= farthest
  }

  /** Forgets SAs under keys that are no more. */
  forget(isGone: (keyId: number) => boolean): void {
    for (const [name, { keyId }] of this.#known) if (isGone(keyId)) this.#known.delete(name)
    for (const ids of [this.#own, this.#met]) for (const keyId of ids) if (isGone(keyId)) ids.delete(keyId)
  }

  #first(keyId: number): bigint {
    return this.#met.has(keyId) ? HALFWAY : 0n
  }

  #onward({ begun, at }: Known): bigint {
    const sent = Math.ceil(((this.#now() - at) / 1000) * FASTEST) + REPLAY_WINDOW
    return begun + BigInt(Math.min(FARTHEST, sent))
  }
}

/** What may have been sent is not all that was received: an earlier process may have leapt there. */
function proven({ sent, received }: SequenceNumbers): SequenceNumbers {
  return { sent: sent > HALFWAY ? sent - HALFWAY : 0n, received }
}

/** Without its mark: the other end does not see that. */
function nameOf(records: Uint8Array, at: number, print: string): string {
  return Buffer.from(records.subarray(at + State.destination, at + State.reqid)).toString('latin1') + print
}

const NONE: SequenceNumbers = { sent: 0n, received: 0n }

/** Of the keys of an SA, what tells them from others' and not what they are. */
export function printOf(cipher: Uint8Array | undefined, auth: Uint8Array | undefined): string {
  const hash = createHash('sha256')
  for (const key of [cipher, auth]) if (key !== undefined) hash.update(key)
  return hash.digest('base64').slice(0, 16)
}
