import fc from 'fast-check'
import { expect, test } from 'vitest'
import { claim, claimant, claimedKey, SpiIndex } from '../../lib/overlay/spi-index.js'

test('a claim packs a peer and a key', () => {
  for (const [peer, key] of [
    [0, 0],
    [5, 31],
    [2 ** 27 - 1, 31],
  ] as const) {
    expect([claimant(claim(peer, key)), claimedKey(claim(peer, key))]).toEqual([peer, key])
  }
})

test('several may claim one SPI; who came first is first until it leaves', () => {
  const index = new SpiIndex()
  index.add(7000, 1, 0)
  index.add(7000, 2, 0)
  index.add(7000, 2, 0)
  index.add(7000, 3, 4)
  expect([index.size, index.shared, index.count(7000)]).toEqual([1, 1, 3])
  expect(index.claims(7000)).toEqual([claim(1, 0), claim(2, 0), claim(3, 4)])
  index.remove(7000, 1, 0)
  expect(index.first(7000)).toBe(claim(2, 0))
  index.remove(7000, 1, 0)
  index.remove(7000, 3, 4)
  expect([index.size, index.shared]).toEqual([1, 0])
  index.remove(7000, 2, 1)
  expect(index.count(7000)).toBe(1)
  index.remove(7000, 2, 0)
  expect([index.size, index.first(7000), index.count(7000)]).toEqual([0, -1, 0])
  expect(index.claims(7000)).toEqual([])
})

test('agrees with a Map of Sets', () => {
  // Few SPIs, so that they are claimed several times and probes run into each other; some that hash alike by their low bits.
  const spi = fc.oneof(
    fc.integer({ min: 256, max: 300 }),
    fc.integer({ min: 1, max: 40 }).map((n) => (n << 20) >>> 0),
    fc.constant(0xffffffff),
  )
  const operation = fc.tuple(fc.boolean(), spi, fc.integer({ min: 0, max: 4 }), fc.integer({ min: 0, max: 2 }))
  fc.assert(
    fc.property(fc.array(operation, { minLength: 100, maxLength: 600, size: 'max' }), (operations) => {
      const index = new SpiIndex()
      const model = new Map<number, Set<number>>()
      for (const [adds, of, peer, key] of operations) {
        const claims = model.get(of) ?? new Set()
        if (adds) {
          index.add(of, peer, key)
          model.set(of, claims.add(claim(peer, key)))
        } else {
          index.remove(of, peer, key)
          claims.delete(claim(peer, key))
          if (claims.size === 0) model.delete(of)
        }
        expect([...index.claims(of)].sort()).toEqual([...(model.get(of) ?? [])].sort())
      }
      expect(index.size).toBe(model.size)
      expect(index.shared).toBe([...model.values()].filter((claims) => claims.size > 1).length)
      for (const [of, claims] of model) expect(index.count(of)).toBe(claims.size)
      index.clear()
      for (const of of model.keys()) expect(index.first(of)).toBe(-1)
    }),
    { numRuns: 200 },
  )
})

test('grows', () => {
  const index = new SpiIndex()
  for (let i = 0; i < 50_000; i++) index.add(Math.imul(i, 0x9e3779b1) >>> 0 || 1, i, i & 31)
  for (let i = 1; i < 50_000; i += 2) index.remove(Math.imul(i, 0x9e3779b1) >>> 0, i, i & 31)
  expect(index.size).toBe(25_000)
  for (let i = 2; i < 50_000; i++) {
    expect(index.first(Math.imul(i, 0x9e3779b1) >>> 0)).toBe(i % 2 === 0 ? claim(i, i & 31) : -1)
  }
})

test('what gave back its memory is empty, and what takes that memory finds nothing in it', () => {
  const index = new SpiIndex()
  for (let spi = 256; spi < 1256; spi++) index.add(spi, spi, 1)
  index.add(256, 7, 2)
  index.release()
  expect([index.size, index.shared, index.count(256)]).toEqual([0, 0, 0])
  const other = new SpiIndex()
  other.reserve(1000)
  for (const each of [index, other]) {
    each.add(300, 1, 0)
    expect([each.size, each.first(300), each.first(301)]).toEqual([1, claim(1, 0), -1])
  }
})
