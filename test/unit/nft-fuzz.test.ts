/**
 * Whatever the kernel answers, reading it ends in a value or in an error of ours, and looks at nothing but the answer.
 * Answers are the captured ones, damaged: bytes of them, and their structure, with lengths that still hold.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { XfrmeshError } from '../../lib/base/errors.js'
import { eachAttribute, viewOf } from '../../lib/kernel/attributes.js'
import { readElements, readKeys } from '../../lib/kernel/nft-element-list.js'
import { readChains, readCounters, readGeneration, readSets, readTables } from '../../lib/kernel/nft-lists.js'
import { Message } from '../../lib/kernel/nft-names.js'
import { readRules } from '../../lib/kernel/nft-rule-list.js'
import { LITTLE_ENDIAN } from '../../lib/kernel/records.js'
import { captures, isAnswer, joined, receivedBy } from './nft-wire.js'

const HEADERS = 20
const table = { family: 'inet', table: 'xfrmesh_58464d' } as const

const readers: [type: number, name: string, read: (messages: Uint8Array) => unknown][] = [
  [Message.newTable, 'tables', readTables],
  [Message.newChain, 'chains', readChains],
  [Message.newRule, 'rules', (messages) => readRules(messages, table, { expressions: true, counters: true })],
  [Message.newSet, 'sets', readSets],
  [Message.newElements, 'elements', readElements],
  [Message.newElements, 'keys', readKeys],
  [Message.newObject, 'counters', readCounters],
  [Message.newGeneration, 'generation', readGeneration],
]

/** An attribute, and those in it if its payload can be read as such. */
interface Node {
  type: number
  payload: Uint8Array
  nodes: Node[] | undefined
}

function nodesIn(bytes: Uint8Array): Node[] | undefined {
  if (bytes.length < 4) return undefined
  try {
    return Array.from(eachAttribute(bytes), ([type, payload]) => ({ type, payload, nodes: nodesIn(payload) }))
  } catch {
    return undefined
  }
}

function bytesOf(nodes: readonly Node[]): Uint8Array {
  return Buffer.concat(
    nodes.map(({ type, payload, nodes }) => {
      const whole = nodes === undefined ? payload : bytesOf(nodes)
      const header = new Uint8Array(4)
      viewOf(header).setUint16(0, 4 + whole.length, LITTLE_ENDIAN)
      viewOf(header).setUint16(2, type, LITTLE_ENDIAN)
      return Buffer.concat([header, whole, new Uint8Array(-whole.length & 3)])
    }),
  )
}

/** Lists that attributes stand in: at the top, and in each that has some. */
function listsOf(nodes: Node[]): Node[][] {
  return [nodes, ...nodes.flatMap(({ nodes: inner }) => (inner === undefined ? [] : listsOf(inner)))]
}

/** What is done to an attribute: `by` says how, where there is a choice. */
const changes: ((list: Node[], at: number, by: number) => void)[] = [
  (list, at) => void list.splice(at, 1),
  (list, at) => void list.push(list[at]!),
  (list) => void list.reverse(),
  (list, at, by) => void (list[at] = { ...list[at]!, type: by % 48 }),
  (list, at, by) => {
    const { type, payload } = list[at]!
    list[at] = { type, payload: payload.subarray(0, by % (payload.length + 1)), nodes: undefined }
  },
  (list, at, by) => {
    const { type, payload } = list[at]!
    list[at] = { type, payload: Buffer.concat([payload, new Uint8Array(by % 80).fill(by)]), nodes: undefined }
  },
  // It holds what another holds, itself among others.
  (list, at, by) => void (list[at] = { ...list[by % list.length]!, type: list[at]!.type }),
  (list, at) => void (list[at] = { ...list[at]!, nodes: [list[at]!] }),
]

interface Change {
  readonly list: number
  readonly at: number
  readonly how: number
  readonly by: number
}
const change: fc.Arbitrary<Change> = fc.record({
  list: fc.nat(),
  at: fc.nat(),
  how: fc.nat(changes.length - 1),
  by: fc.nat(0xffff),
})

/** A message whose attributes were changed, with lengths that hold. */
function rebuilt(message: Uint8Array, made: readonly Change[]): Uint8Array {
  const nodes = nodesIn(message.subarray(HEADERS)) ?? []
  for (const { list, at, how, by } of made) {
    const lists = listsOf(nodes).filter(({ length }) => length > 0)
    const one = lists[list % (lists.length || 1)]
    if (one !== undefined) changes[how]!(one, at % one.length, by)
  }
  const whole = Buffer.concat([message.subarray(0, HEADERS), bytesOf(nodes)])
  whole.writeUInt32LE(whole.length)
  return whole
}

/** What came of reading bytes that lie among others. */
function outcome(read: (messages: Uint8Array) => unknown, bytes: Uint8Array, around: number): unknown {
  const MARGIN = 256
  const buffer = new Uint8Array(MARGIN + bytes.length + MARGIN).fill(around)
  buffer.set(bytes, MARGIN)
  try {
    return { value: read(buffer.subarray(MARGIN, MARGIN + bytes.length)) }
  } catch (error) {
    expect(error).toBeInstanceOf(XfrmeshError)
    expect(error).toHaveProperty('code', 'ERR_XFRMESH_MALFORMED')
    return { error: String(error) }
  }
}

const all = captures.flatMap(receivedBy)
const bytes = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 })
const structure = fc.array(change, { maxLength: 3 })

describe.each(readers)('message %i, %s', (type, _, read) => {
  const known = all.filter((message) => isAnswer(message, type))
  // A message of another kind now and then.
  const messages = fc.oneof(
    { weight: 4, arbitrary: fc.array(fc.constantFrom(...known), { minLength: 1, maxLength: 3 }) },
    { weight: 1, arbitrary: fc.array(fc.constantFrom(...all)) },
  )
  const property = (damaged: (whole: readonly Uint8Array[]) => fc.Arbitrary<Uint8Array>) =>
    fc.assert(
      fc.property(messages.chain(damaged), (some) => {
        expect(outcome(read, some, 0xff)).toEqual(outcome(read, some, 0))
      }),
      { numRuns: 3_000 },
    )

  test('with bytes changed, and cut off', () =>
    property((whole) =>
      fc.tuple(bytes, fc.nat()).map(([changed, cut]) => {
        const damaged = joined(whole)
        for (const [at, value] of changed) if (damaged.length > 0) damaged[at % damaged.length] = value
        return cut % 3 === 0 ? damaged.subarray(0, cut % (damaged.length + 1)) : damaged
      }),
    ))

  test('with attributes changed', () =>
    property((whole) =>
      fc
        .array(structure, { minLength: whole.length, maxLength: whole.length })
        .map((made) => joined(whole.map((message, i) => rebuilt(message, made[i]!)))),
    ))
})
