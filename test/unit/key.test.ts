import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import { InvalidArgument } from '../../lib/base/errors.js'
import { Key, ownBytes, reveal } from '../../lib/base/key.js'
import { offHeapBytes } from './off-heap.js'

const secret = Uint8Array.from({ length: 16 }, (_, i) => 0xa0 + i)

test('a key shows its length and none of its bytes', () => {
  const key = new Key(secret)
  const shown = [
    inspect(key, { showHidden: true, depth: 9 }),
    inspect({ nested: [key] }, { showHidden: true, depth: 9 }),
    JSON.stringify({ key }),
    String(key),
    JSON.stringify(structuredClone(key)),
    Object.getOwnPropertyNames(key).join(),
    JSON.stringify(Object.entries(key)),
  ].join('\n')
  expect(shown).toContain('Key(16 bytes)')
  const hex = Buffer.from(secret).toString('hex')
  for (const form of [
    hex.slice(0, 6),
    'a0, a1',
    '160,161',
    '160, 161',
    Buffer.from(secret).toString('base64').slice(0, 6),
  ]) {
    expect(shown).not.toContain(form)
  }
})

test('a key is a copy of what it was made of', () => {
  const bytes = secret.slice()
  const key = new Key(bytes)
  bytes.fill(0)
  expect(reveal(key)).toEqual(secret)
  expect(key.length).toBe(16)
})

test.each([[32], [undefined], [null], ['00112233445566778899aabbccddeeff'], [[1, 2, 3]], [new ArrayBuffer(16)]])(
  'a key is made of bytes alone, not of %j',
  (value) => {
    const make = () => new Key(value as unknown as Uint8Array)
    expect(make).toThrow(InvalidArgument)
    expect(make).toThrow(/^bytes must be a Uint8Array$/)
  },
)

test('short keys lie where wiping leaves no copy of them', () => {
  const count = 10_000
  const keys = () => Array.from({ length: count }, () => new Key(secret))
  expect(offHeapBytes(keys)).toBeGreaterThanOrEqual(count * secret.length)
})

test('bytes of its own are no view of a Buffer, nor of its pool', () => {
  const bytes = Buffer.from(secret)
  const own = ownBytes(bytes, 12)
  bytes.fill(0)
  expect(own).toEqual(secret.slice(0, 12))
  expect(own.buffer.byteLength).toBe(12)
})

test('keys equal by their bytes, other keys and bytes alike', () => {
  const key = new Key(secret)
  expect(key.equals(new Key(secret))).toBe(true)
  expect(key.equals(secret)).toBe(true)
  expect(key.equals(secret.slice(1))).toBe(false)
  const other = secret.slice()
  other[15]! ^= 1
  expect(key.equals(other)).toBe(false)
})

test('a wiped key is zero for all who hold a view of it, and equals nothing', () => {
  const key = new Key(secret)
  const view = reveal(key)
  key.wipe()
  expect(view).toEqual(new Uint8Array(16))
  expect(key.length).toBe(0)
  expect(reveal(key)).toHaveLength(0)
  expect(key.equals(new Uint8Array(0))).toBe(false)
  expect(key.equals(key)).toBe(false)
})
