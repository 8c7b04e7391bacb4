import { LITTLE_ENDIAN } from './records.js'

/** The window of sequence numbers in which packets may arrive late (RFC 4303, 3.4.3), as the kernel has it of an SA. */

/** XFRMA_REPLAY_ESN_MAX: bits of the largest bitmap. */
export const WIDEST_WINDOW = 4096
/** Bits of struct xfrm_replay_state's bitmap. A wider one, and ESN, need struct xfrm_replay_state_esn. */
export const OLD_WINDOW = 32

/** Words of struct xfrm_replay_state_esn before its bitmap. */
const Word = { bitmapWords: 0, sentLow: 1, receivedLow: 2, sentHigh: 3, receivedHigh: 4, window: 5, bitmap: 6 } as const

/** How far the sequence numbers of an SA have come: the last one sent, and the highest received. */
export interface SequenceNumbers {
  readonly sent: bigint
  readonly received: bigint
}

/**
 * struct xfrm_replay_state_esn of an SA that has come as far as these numbers, or has sent and received nothing; `window`
 * is in packets. None of those up to the last one received is taken again.
 */
export function replayState(
  window: number,
  { sent, received }: SequenceNumbers = { sent: 0n, received: 0n },
): Uint8Array {
  const bitmapWords = Math.ceil(window / 32)
  const words = new Uint32Array(Word.bitmap + bitmapWords)
  words[Word.bitmapWords] = bitmapWords
  words[Word.window] = window
  words[Word.sentLow] = Number(sent & LOW)
  words[Word.sentHigh] = Number(sent >> 32n)
  words[Word.receivedLow] = Number(received & LOW)
  words[Word.receivedHigh] = Number(received >> 32n)
  if (received > 0n) words.fill(0xffffffff, Word.bitmap)
  return new Uint8Array(words.buffer)
}

/** The numbers in a struct xfrm_replay_state_esn that starts there. */
export function sequenceNumbers(bytes: Uint8Array, at: number): SequenceNumbers {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at)
  const number = (low: number, high: number) =>
    (BigInt(view.getUint32(high * 4, LITTLE_ENDIAN)) << 32n) | BigInt(view.getUint32(low * 4, LITTLE_ENDIAN))
  return { sent: number(Word.sentLow, Word.sentHigh), received: number(Word.receivedLow, Word.receivedHigh) }
}

/** The window, in packets, of a struct xfrm_replay_state_esn that starts there. */
export function replayWindow(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset + at).getUint32(Word.window * 4, LITTLE_ENDIAN)
}

/** The same structure of an SA that has sent and received nothing. */
export function unusedReplay(payload: Uint8Array): Uint8Array {
  const still = new Uint8Array(payload.length)
  for (const word of [Word.bitmapWords, Word.window]) still.set(payload.subarray(word * 4, word * 4 + 4), word * 4)
  return still
}

const LOW = 0xffffffffn
