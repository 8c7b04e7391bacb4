import fc from 'fast-check'
import { expect, test } from 'vitest'
import { VniSet } from '../../lib/overlay/vni-set.js'

/** Some that meet in a page, or in its neighbours, and the ends. */
const vni = fc.oneof(
  fc.integer({ min: 0, max: 40 }),
  fc.integer({ min: 4090, max: 4100 }),
  fc.integer({ min: 0, max: 0xffffff }),
  fc.constant(0xffffff),
)
const vnis = fc.array(vni, { maxLength: 100 })
const ascending = (set: Iterable<number>) => [...set].sort((a, b) => a - b)

test('agrees with a Set, and is gone through in ascending order', () =>
  fc.assert(
    fc.property(vnis, vnis, (list, others) => {
      const [ours, theirs] = [new VniSet(list), new Set(list)]
      expect(ours.size).toBe(theirs.size)
      expect([...ours]).toEqual(ascending(theirs))
      for (const one of [...list, ...others]) expect(ours.has(one)).toBe(theirs.has(one))
    }),
  ))

test('what is made of two agrees with what is made of Sets, and leaves both as they are', () =>
  fc.assert(
    fc.property(vnis, vnis, vnis, (same, list, others) => {
      const [a, b] = [new Set([...same, ...list]), new Set([...same, ...others])]
      const [one, other] = [new VniSet(a), new VniSet(b)]
      const agree = (ours: VniSet, theirs: Iterable<number>) => {
        expect([...ours]).toEqual(ascending(theirs))
        expect(ours.size).toBe([...theirs].length)
      }
      agree(one.union(other), new Set([...a, ...b]))
      agree(
        one.minus(other),
        [...a].filter((each) => !b.has(each)),
      )
      agree(
        one.and(other),
        [...a].filter((each) => b.has(each)),
      )
      agree(
        one.minus(other).union(other).minus(one),
        [...b].filter((each) => !a.has(each)),
      )
      agree(one, a)
      agree(other, b)
    }),
  ))

test('what is no VNI is in none, and refused', () => {
  const set = new VniSet([0, 0xffffff])
  for (const other of [-1, 0x1000000, 0xffffffff]) expect(set.has(other)).toBe(false)
  for (const other of [-1, 0x1000000, 0xffffffff, 2 ** 32 + 5, 1.5, Number.NaN]) {
    expect(() => new VniSet([0, other])).toThrow(RangeError)
  }
})

test('holds some of each page', () => {
  const all = Array.from({ length: 4096 }, (_, i) => i * 4096 + (i % 4096))
  const set = new VniSet(all)
  expect([...set]).toEqual(all)
  expect([...set.minus(new VniSet(all.slice(1)))]).toEqual([0])
})

test('two of other networks are not equal', () => {
  expect(new VniSet([1, 2])).toEqual(new VniSet([2, 1]))
  expect({ networks: new VniSet([1, 2]) }).not.toMatchObject({ networks: new VniSet([1, 3]) })
  expect({ networks: new VniSet([1, 2]) }).not.toMatchObject({ networks: new VniSet([1]) })
})

test('holds 100,000', () => {
  const all = Array.from({ length: 100_000 }, (_, i) => i * 167)
  const set = new VniSet(all)
  expect([...set]).toEqual(all)
  expect(set.size).toBe(100_000)
  expect(set.minus(set).size).toBe(0)
})

test('a set is not made again of itself', () => {
  const set = new VniSet([1])
  expect(VniSet.of(set)).toBe(set)
  expect([...VniSet.of([2, 1])]).toEqual([1, 2])
})
