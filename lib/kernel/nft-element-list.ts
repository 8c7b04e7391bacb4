import { powerOfTwo } from '../base/packed-index.js'
import { malformed } from './attributes.js'
import { Attributes } from './netlink-attributes.js'
import { Cursor } from './netlink-cursor.js'
import { sameBytes } from './record-identity.js'
import { readVerdict } from './nft-expression-codec.js'
import type { Verdict } from './nft-expressions.js'
import { DataAttribute, ElementAttribute, ElementsAttribute, INTERVAL_END } from './nft-names.js'
import { firstCounter, readCounter, type Counted } from './nft-rule-list.js'
import { readComment } from './nft-userdata.js'

/** An element as the kernel has it: what it was made with, and what became of it. */
export interface NftElement {
  readonly key: Uint8Array
  /** In a verdict map, what it holds; undefined in another, and if it is none that we know. */
  readonly verdict: Verdict | undefined
  /** In a map of data, what it holds. */
  readonly data: Uint8Array | undefined
  /** In a set of intervals: the key is the first one after a range. */
  readonly intervalEnd: boolean
  readonly comment: string | undefined
  /** If it counts. */
  readonly counter: Counted | undefined
  /** How long it stays, where the kernel says so: 6.18 does not if it is as long as the set's own. */
  readonly timeoutMs: number | undefined
  /** How much of that is left. */
  readonly expiresMs: number | undefined
}

/** Goes through the elements in a dump: `element` stands on each in turn. */
function eachElement(messages: Uint8Array, take: (element: Cursor) => void): void {
  const message = new Cursor(messages)
  const attribute = new Cursor(messages)
  const element = new Cursor(messages)
  while (message.nextMessage()) {
    attribute.enter(message)
    while (attribute.next()) {
      if (attribute.type !== ElementsAttribute.elements) continue
      element.enter(attribute)
      while (element.next()) take(element)
    }
  }
}

/**
 * Whether an element comes twice in a dump. Then others may be missing: for each part of a dump the kernel goes through the
 * hash table from its begin, passing over as many as it has told (nft_rhash_walk of net/netfilter/nft_set_hash.c), and a
 * table that grows meanwhile has them in another order. It tells no fewer than there are: if none comes twice, none is
 * missing. In a set of intervals, which is no hash table, one may end where the next begins.
 */
export function comesTwice(messages: Uint8Array): boolean {
  const starts: number[] = []
  const ends: number[] = []
  const field = new Cursor(messages)
  let rangeEnds = 0
  eachElement(messages, (element) => {
    field.enter(element)
    while (field.next()) {
      if (field.type === ElementAttribute.flags) rangeEnds += field.u32() & INTERVAL_END
      if (field.type !== ElementAttribute.key) continue
      starts.push(field.start)
      ends.push(field.end)
    }
  })
  if (rangeEnds > 0) return false
  // Open addressing, linear probing: an element's number + 1, 0 for none. Never more than half full.
  const table = new Uint32Array(powerOfTwo(2 * starts.length + 1))
  const mask = table.length - 1
  for (let i = 0; i < starts.length; i++) {
    const [start, end] = [starts[i]!, ends[i]!]
    let at = hashOf(messages, start, end) & mask
    for (let other = table[at]!; other !== 0; other = table[at]!) {
      const from = starts[other - 1]!
      if (ends[other - 1]! - from === end - start && sameBytes(messages, from, messages, start, 0, end - start))
        return true
      at = (at + 1) & mask
    }
    table[at] = i + 1
  }
  return false
}

function hashOf(bytes: Uint8Array, start: number, end: number): number {
  let hash = 0
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ bytes[i]!, 0x9e3779b1) ^ (hash >>> 15)
  return hash ^ (hash >>> 16)
}

/** The keys alone, as parts of the messages. */
export function readKeys(messages: Uint8Array): Uint8Array[] {
  const keys: Uint8Array[] = []
  const field = new Cursor(messages)
  const value = new Cursor(messages)
  eachElement(messages, (element) => {
    field.enter(element)
    while (field.next()) {
      if (field.type !== ElementAttribute.key) continue
      toValue(value.enter(field))
      keys.push(value.payload)
      return
    }
    throw malformed('an element without a key')
  })
  return keys
}

export function readElements(messages: Uint8Array): NftElement[] {
  const elements: NftElement[] = []
  let latest: { readonly verdict: Verdict | undefined; readonly start: number; readonly end: number } | undefined
  const field = new Cursor(messages)
  const value = new Cursor(messages)
  eachElement(messages, (element) => {
    let key: Uint8Array | undefined
    let verdict: Verdict | undefined
    let data: Uint8Array | undefined
    let intervalEnd = false
    let comment: string | undefined
    let counter: Counted | undefined
    let timeoutMs: number | undefined
    let expiresMs: number | undefined
    field.enter(element)
    while (field.next()) {
      switch (field.type) {
        case ElementAttribute.key:
          toValue(value.enter(field))
          key = value.copy()
          break
        case ElementAttribute.data:
          // Many elements of a verdict map hold the same.
          if (latest?.verdict !== undefined && field.repeats(latest.start, latest.end)) verdict = latest.verdict
          else {
            const attributes = new Attributes(field.payload)
            if (attributes.has(DataAttribute.verdict)) verdict = readVerdict(attributes)
            else data = new Uint8Array(attributes.bytes(DataAttribute.value))
            latest = { verdict, start: field.start, end: field.end }
          }
          break
        case ElementAttribute.flags:
          intervalEnd = (field.u32() & INTERVAL_END) !== 0
          break
        case ElementAttribute.userdata:
          comment = readComment(field.buffer, field.start, field.end)
          break
        case ElementAttribute.timeout:
          timeoutMs = field.u64()
          break
        case ElementAttribute.expiration:
          expiresMs = field.u64()
          break
        case ElementAttribute.expression:
          counter = readCounter(field.payload)
          break
        case ElementAttribute.expressions:
          counter = firstCounter(field.payload)
          break
      }
    }
    if (key === undefined) throw malformed('an element without a key')
    elements.push({ key, verdict, data, intervalEnd, comment, counter, timeoutMs, expiresMs })
  })
  return elements
}

/** Goes on to the bytes of a key: NFTA_DATA_VALUE. */
function toValue(cursor: Cursor): void {
  while (cursor.next()) if (cursor.type === DataAttribute.value) return
  throw malformed('an element whose key is no value')
}
