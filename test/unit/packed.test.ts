import fc from 'fast-check'
import { expect, test } from 'vitest'
import { AF_INET, AF_INET6 } from '../../lib/base/address.js'
import { familyOf, keyText, parseKey, unpackKey } from '../../lib/base/address-key.js'
import { InvalidArgument } from '../../lib/base/errors.js'
import { PackedIndex } from '../../lib/base/packed-index.js'
import { formatMac, isUnicast, packHostMac, parseMac } from '../../lib/base/packed-mac.js'

test('a packed index agrees with a Map, whatever comes and goes, for keys of any width', () => {
  const operation = fc.tuple(fc.boolean(), fc.nat({ max: 60 }))
  fc.assert(
    fc.property(fc.constantFrom(1, 2, 4), fc.array(operation, { maxLength: 300, size: 'max' }), (width, operations) => {
      const rows = 64
      const keys = new Uint32Array(rows * width)
      const index = new PackedIndex(width)
      index.rebuild(keys, rows, [])
      const model = new Map<number, number>()
      // A row of its own for each key, and keys that differ in one word alone.
      const keyOf = (n: number) => Uint32Array.from({ length: width }, (_, i) => (i === n % width ? n : 0))
      for (const [adds, n] of operations) {
        const found = model.get(n)
        expect(index.find(keyOf(n))).toBe(found ?? -1)
        if (adds && found === undefined) {
          keys.set(keyOf(n), n * width)
          index.add(n)
          model.set(n, n)
        } else if (!adds && found !== undefined) {
          index.remove(n)
          model.delete(n)
        }
      }
      index.rebuild(keys.slice(), rows * 2, model.values())
      for (let n = 0; n <= 60; n++) expect(index.find(keyOf(n))).toBe(model.get(n) ?? -1)
    }),
    { numRuns: 200 },
  )
})

test('keys of both families are apart, and come back as their addresses', () => {
  const words = new Uint32Array(8)
  const bytes = new Uint8Array(words.buffer)
  const back = new Uint8Array(16)
  for (const [text, family, canonical] of [
    ['10.0.0.1', AF_INET, '10.0.0.1'],
    ['::ffff:10.0.0.1', AF_INET, '10.0.0.1'],
    ['a00:1::', AF_INET6, 'a00:1::'],
    ['2001:DB8::0:1', AF_INET6, '2001:db8::1'],
    ['::', AF_INET6, '::'],
  ] as const) {
    expect(parseKey(text, bytes, 16)).toBe(family)
    expect(familyOf(words, 4)).toBe(family)
    expect(keyText(bytes, 16, family)).toBe(canonical)
    unpackKey(bytes, 16, family, back, 0)
    if (family === AF_INET) expect([...back]).toEqual([10, 0, 0, 1, ...new Array<number>(12).fill(0)])
    else expect([...back]).toEqual([...bytes.subarray(16)])
  }
  expect(parseKey('10.0.0', bytes, 0)).toBe(0)
})

test('Ethernet addresses are read in either case, and written in lower', () => {
  const bytes = new Uint8Array(8)
  expect(parseMac('02:42:0A:fF:00:09', bytes, 2)).toBe(true)
  expect([...bytes]).toEqual([0, 0, 2, 0x42, 10, 255, 0, 9])
  expect(formatMac(bytes, 2)).toBe('02:42:0a:ff:00:09')
  expect(isUnicast(bytes, 2)).toBe(true)
})

test.each([
  '',
  '02:42:0a:00:00',
  '02:42:0a:00:00:0',
  '02-42-0a-00-00-01',
  '02:42:0a:00:00:0g',
  '02420a000001',
  7,
  null,
])('%o is no Ethernet address', (value) => {
  expect(() => packHostMac(value, 'mac', new Uint8Array(6), 0)).toThrow(InvalidArgument)
  expect(() => packHostMac(value, 'mac', new Uint8Array(6), 0)).toThrow(/^mac must be an Ethernet address/)
})

test.each([
  ['00:00:00:00:00:00', 'zero'],
  ['01:00:5e:00:00:01', "a group's"],
  ['ff:ff:ff:ff:ff:ff', "a group's"],
])("%s is no host's", (value, why) => {
  expect(() => packHostMac(value, 'mac', new Uint8Array(6), 0)).toThrow(`of one host; ${value} is ${why}`)
})
