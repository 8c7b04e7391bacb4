/** The window of sequence numbers in which packets may arrive late (RFC 4303, 3.4.3), as the kernel has it of an SA. */

/** XFRMA_REPLAY_ESN_MAX: bits of the largest bitmap. */
export const WIDEST_WINDOW = 4096
/** Bits of struct xfrm_replay_state's bitmap. A wider one, and ESN, need struct xfrm_replay_state_esn. */
export const OLD_WINDOW = 32

/** struct xfrm_replay_state_esn before its bitmap. */
const HEAD_WORDS = 6
const WINDOW_WORD = 5

/** struct xfrm_replay_state_esn of an SA that has sent and received nothing; `window` is in packets. */
export function replayState(window: number): Uint8Array {
  const bitmapWords = Math.ceil(window / 32)
  const words = new Uint32Array(HEAD_WORDS + bitmapWords)
  words[0] = bitmapWords
  words[WINDOW_WORD] = window
  return new Uint8Array(words.buffer)
}
