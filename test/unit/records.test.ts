import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { giveBack, takeBuffer } from '../../lib/kernel/record-buffers.js'
import { HEAD_BYTES, Operation, Policy, RecordReader, RecordWriter, State } from '../../lib/kernel/records.js'

// Fake timers are the global ones.
vi.mock('node:timers', () => ({ setTimeout: (call: () => void, ms: number) => globalThis.setTimeout(call, ms) }))
beforeAll(() => void vi.useFakeTimers())
afterAll(() => void vi.useRealTimers())

function all(buffer: Uint8Array): { start: number; length: number; operation: number; tail: [number, number[]][] }[] {
  const reader = new RecordReader(buffer)
  const found = []
  while (reader.next()) {
    const tail = [...reader.attributes()].map(([type, payload]): [number, number[]] => [type, [...payload]])
    found.push({ start: reader.start, length: reader.length, operation: reader.u8(State.operation), tail })
  }
  return found
}

test('what is written is read', () => {
  const writer = new RecordWriter()
  const address = new Uint32Array([1, 2, 0xffffffff, 4, 5, 6, 7, 8])
  writer.begin(Operation.addState)
  writer.u8(State.mode, 255)
  writer.u16(State.icvBits, 0xabcd)
  writer.u32(State.spi, 0xfffffffe)
  writer.address(State.source, address, 4)
  writer.begin(Operation.addPolicy)
  writer.u32(Policy.interfaceIndex, -7)
  writer.bytes(Policy.destination, Uint8Array.of(10, 0, 0, 1))
  expect(writer.count).toBe(2)
  const reader = new RecordReader(writer.take())
  expect(reader.next()).toBe(true)
  expect(reader.length).toBe(HEAD_BYTES)
  expect(reader.u8(State.operation)).toBe(Operation.addState)
  expect(reader.u8(State.mode)).toBe(255)
  expect(reader.u16(State.icvBits)).toBe(0xabcd)
  expect(reader.u32(State.spi)).toBe(0xfffffffe)
  expect(reader.address(State.source)).toEqual(new Uint8Array(address.slice(4).buffer))
  expect(reader.address(State.destination)).toEqual(new Uint8Array(16))
  expect(reader.next()).toBe(true)
  expect(reader.u8(Policy.operation)).toBe(Operation.addPolicy)
  expect(reader.i32(Policy.interfaceIndex)).toBe(-7)
  expect([...reader.address(Policy.destination)].slice(0, 4)).toEqual([10, 0, 0, 1])
  expect(reader.next()).toBe(false)
})

test('records of any tails come back whole, begin at eight bytes, and grow the buffer', () => {
  const attribute = fc.tuple(fc.integer({ min: 1, max: 0x1005 }), fc.uint8Array({ maxLength: 90 }))
  const record = fc.tuple(fc.constantFrom(...Object.values(Operation)), fc.array(attribute, { maxLength: 4 }))
  fc.assert(
    fc.property(fc.array(record, { maxLength: 60 }), fc.integer({ min: 8, max: 100 }), (records, capacity) => {
      const writer = new RecordWriter(capacity)
      for (const [operation, attributes] of records) {
        writer.begin(operation)
        for (const [type, payload] of attributes) writer.attribute(type, payload)
      }
      const found = all(writer.take())
      expect(found.map(({ operation, tail }) => ({ operation, tail }))).toEqual(
        records.map(([operation, tail]) => ({ operation, tail: tail.map(([type, payload]) => [type, [...payload]]) })),
      )
      for (const { start, length } of found) expect([start % 8, length % 8]).toEqual([0, 0])
    }),
  )
})

test('fields set after a tail are set in the same record', () => {
  const writer = new RecordWriter(8)
  writer.begin(Operation.addState)
  writer.begin(Operation.addState)
  writer.attribute(5, new Uint8Array(3).fill(9))
  writer.u32(State.spi, 77)
  const reader = new RecordReader(writer.take())
  reader.next()
  expect(reader.u32(State.spi)).toBe(0)
  reader.next()
  expect(reader.u32(State.spi)).toBe(77)
  expect([...reader.attributes()]).toEqual([[5, Uint8Array.of(9, 9, 9)]])
})

test('a tail encoded before is the same as attributes one by one', () => {
  const one = new RecordWriter(8)
  one.begin(Operation.addPolicy)
  one.attribute(5, new Uint8Array(64).fill(1))
  one.attribute(21, new Uint8Array(8).fill(2))
  const expected = one.take()
  const other = new RecordWriter(8)
  other.begin(Operation.addPolicy)
  other.tail(expected.subarray(HEAD_BYTES, HEAD_BYTES + 80))
  expect(other.take()).toEqual(expected)
})

describe('record', () => {
  test('takes a whole record of a dump under another operation', () => {
    const first = new RecordWriter()
    first.begin(Operation.addState)
    first.u32(State.spi, 4711)
    first.attribute(21, Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8))
    const dump = first.take()
    const writer = new RecordWriter(8)
    writer.begin(Operation.addState)
    writer.record(dump, Operation.deleteState)
    writer.begin(Operation.addPolicy)
    const [, copied] = all(writer.take())
    expect(copied).toMatchObject({ operation: Operation.deleteState, tail: [[21, [1, 2, 3, 4, 5, 6, 7, 8]]] })
    expect(new RecordReader(dump).next()).toBe(true)
    expect(dump[State.operation]).toBe(Operation.addState)
  })
})

test('take() leaves a writer that shares nothing with what was taken', () => {
  const writer = new RecordWriter()
  writer.begin(Operation.addState)
  writer.u32(State.spi, 1)
  const taken = writer.take()
  expect(writer.count).toBe(0)
  expect(writer.take()).toHaveLength(0)
  writer.begin(Operation.addState)
  writer.u32(State.spi, 2)
  const reader = new RecordReader(taken)
  reader.next()
  expect(reader.u32(State.spi)).toBe(1)
})

function recordOf(operation: number, spi: number, records = 1): Uint8Array {
  const writer = new RecordWriter(1024)
  for (let i = 0; i < records; i++) {
    writer.begin(operation)
    writer.u32(State.spi, spi)
  }
  return writer.take()
}

function spisOf(records: Uint8Array): number[] {
  const reader = new RecordReader(records)
  const spis: number[] = []
  while (reader.next()) spis.push(reader.u32(State.spi))
  return spis
}

test('a buffer that is given back is written in again by whoever comes next, and holds nothing of before', () => {
  const first = recordOf(Operation.addState, 1, 3)
  giveBack(first)
  const second = recordOf(Operation.deleteState, 2)
  expect(second.buffer).toBe(first.buffer)
  expect(spisOf(second)).toEqual([2])
  expect(new Uint8Array(second.buffer, second.length).every((byte) => byte === 0)).toBe(true)
  expect(recordOf(Operation.addState, 3).buffer).not.toBe(second.buffer)
  expect(spisOf(second)).toEqual([2])
})

test('a buffer that was outgrown is given back too', () => {
  const large = recordOf(Operation.addState, 7, 1000)
  expect(spisOf(large)).toEqual(Array.from({ length: 1000 }, () => 7))
  const small = recordOf(Operation.addState, 8)
  expect(new Uint8Array(small.buffer, small.length).every((byte) => byte === 0)).toBe(true)
  expect(spisOf(small)).toEqual([8])
})

test('buffers are let go of in the end, and never more than 32 MiB are kept', () => {
  const { buffer } = takeBuffer(1 << 20)
  giveBack(new Uint8Array(buffer))
  expect(takeBuffer(1 << 20).buffer).toBe(buffer)
  giveBack(new Uint8Array(buffer))
  vi.advanceTimersByTime(60_000)
  expect(takeBuffer(1 << 20).buffer).not.toBe(buffer)
  const all = Array.from({ length: 5 }, () => takeBuffer(8 << 20))
  for (const each of all) giveBack(each)
  const again = new Set(Array.from(all, () => takeBuffer(8 << 20).buffer))
  expect(all.filter((each) => again.has(each.buffer))).toHaveLength(4)
})
