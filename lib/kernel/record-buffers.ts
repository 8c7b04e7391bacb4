import { setTimeout } from 'node:timers'
import { native } from '../native.js'

/**
 * Buffers for records, of zeros, that are written in again. To touch new memory is dear: 4 KiB of it cost a quarter of a
 * microsecond natively, and twelve in some virtual machines, where writing them takes one.
 */

/** Bytes that are kept, all in all, and for how long, from when the first of them was given back. */
const MOST_BYTES = 32 << 20
const IDLE_MS = 60_000

/** By their lengths, which are powers of two. */
const free = new Map<number, Uint8Array[]>()
let bytes = 0
let timer: NodeJS.Timeout | undefined

/** A buffer of zeros of at least so many bytes, a multiple of eight. */
export function takeBuffer(least: number): Uint8Array {
  const length = 2 ** Math.max(3, Math.ceil(Math.log2(least)))
  const buffer = free.get(length)?.pop()
  if (buffer === undefined) return new Uint8Array(length)
  bytes -= length
  return buffer
}

/** Takes back a buffer of {@link takeBuffer}'s, by what was used of it, from its begin: nobody needs that any more. */
export function giveBack(used: Uint8Array): void {
  const buffer = new Uint8Array(used.buffer)
  const { length } = buffer
  const isOurs = used.byteOffset === 0 && length > 0 && (length & (length - 1)) === 0
  if (!isOurs || bytes + length > MOST_BYTES) return
  used.fill(0)
  const alike = free.get(length)
  if (alike === undefined) free.set(length, [buffer])
  else alike.push(buffer)
  bytes += length
  timer ??= setTimeout(drop, IDLE_MS).unref()
}

function drop(): void {
  native.dropUsedMemory()
  free.clear()
  bytes = 0
  timer = undefined
}
