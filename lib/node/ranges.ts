import { ADDRESS_BYTES, AF_INET, type Family } from '../base/address.js'
import { type Prefix, widthOf } from '../base/prefix.js'
import type { ElementOptions } from '../kernel/nft.js'

/** Addresses from `start` up to, not including, `end`, as numbers. */
export interface Interval {
  readonly start: bigint
  readonly end: bigint
}

export function intervalOf({ bytes, family, length }: Prefix): Interval {
  const start = numberAt(bytes.subarray(0, bytesOf(family)))
  return { start, end: start + (1n << BigInt(widthOf(family) - length)) }
}

/** The same addresses in order, each once, in as few intervals as there can be: sets of nftables take no others. */
export function merged(intervals: readonly Interval[]): Interval[] {
  const sorted = [...intervals].sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0))
  const found: Interval[] = []
  for (const { start, end } of sorted) {
    const last = found.at(-1)
    if (last === undefined || start > last.end) found.push({ start, end })
    else if (end > last.end) found[found.length - 1] = { start: last.start, end }
  }
  return found
}

/** Those of the first that are not among the second. */
export function without(intervals: readonly Interval[], others: readonly Interval[]): Interval[] {
  const known = new Set(others.map(textOf))
  return intervals.filter((interval) => !known.has(textOf(interval)))
}

export function sameIntervals(one: readonly Interval[], other: readonly Interval[]): boolean {
  return one.length === other.length && without(one, other).length === 0
}

/** As elements of a set: where each begins, and where it ends if there are addresses after it. */
export function elementsOf(intervals: readonly Interval[], family: Family): ElementOptions[] {
  const bound = 1n << BigInt(widthOf(family))
  return intervals.flatMap(({ start, end }) => [
    { key: bytesAt(start, family) },
    ...(end === bound ? [] : [{ key: bytesAt(end, family), intervalEnd: true }]),
  ])
}

/** What a set holds whose intervals are {@link merged}, by the keys of its elements in any order. */
export function intervalsOf(keys: readonly Uint8Array[], family: Family): Interval[] {
  const numbers = keys.map(numberAt).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
  const found: Interval[] = []
  for (let i = 0; i < numbers.length; i += 2) {
    found.push({ start: numbers[i]!, end: numbers[i + 1] ?? 1n << BigInt(widthOf(family)) })
  }
  return found
}

/** The addresses of one family that are in none of the others. */
export function outside(intervals: readonly Interval[], others: readonly Interval[]): Interval[] {
  let left = [...intervals]
  for (const other of others) {
    left = left.flatMap(({ start, end }) => {
      const before = { start, end: end < other.start ? end : other.start }
      const after = { start: start > other.end ? start : other.end, end }
      return [before, after].filter((part) => part.start < part.end)
    })
  }
  return left
}

function textOf({ start, end }: Interval): string {
  return `${start} ${end}`
}

function bytesOf(family: Family): number {
  return family === AF_INET ? 4 : ADDRESS_BYTES
}

function numberAt(bytes: Uint8Array): bigint {
  return bytes.reduce((number, byte) => (number << 8n) | BigInt(byte), 0n)
}

function bytesAt(number: bigint, family: Family): Uint8Array {
  const bytes = new Uint8Array(bytesOf(family))
  for (let i = bytes.length - 1; i >= 0; i--, number >>= 8n) bytes[i] = Number(number & 0xffn)
  return bytes
}
