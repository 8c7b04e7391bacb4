import fc from 'fast-check'
import { expect, test } from 'vitest'
import { VniSet } from '../../lib/overlay/vni-set.js'

/** Some that meet in small tables, and the ends. */
const vni = fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 0xffffff }), fc.constant(0xffffff))
const change = fc.record({ name: fc.constantFrom('add', 'delete', 'clear'), vni })

test('agrees with a Set, whatever comes and goes, and is gone through in ascending order', () =>
  fc.assert(
    fc.property(fc.array(change, { maxLength: 300 }), (changes) => {
      const [ours, theirs] = [new VniSet(), new Set<number>()]
      for (const { name, vni: one } of changes) {
        if (name === 'add') expect(ours.add(one)).toBe(!theirs.has(one) && theirs.add(one).has(one))
        else if (name === 'delete') expect(ours.delete(one)).toBe(theirs.delete(one))
        else if (one % 8 === 0) [ours, theirs].forEach((set) => set.clear())
        expect(ours.has(one)).toBe(theirs.has(one))
        expect(ours.size).toBe(theirs.size)
      }
      expect([...ours]).toEqual([...theirs].sort((a, b) => a - b))
      for (let i = 0; i <= 40; i++) expect(ours.has(i)).toBe(theirs.has(i))
    }),
  ))

test('a copy goes its own way', () => {
  const set = new VniSet([1, 2])
  const copy = set.copy()
  set.add(3)
  copy.delete(1)
  copy.add(100_000)
  expect([[...set], [...copy]]).toEqual([
    [1, 2, 3],
    [2, 100_000],
  ])
  expect([...new VniSet().copy()]).toEqual([])
})

test('what is no VNI is in none, and refused', () => {
  const set = new VniSet([0, 0xffffff])
  for (const other of [-1, 0x1000000, 0xffffffff]) {
    expect(set.has(other)).toBe(false)
    expect(set.delete(other)).toBe(false)
    expect(() => set.add(other)).toThrow(RangeError)
  }
  for (const other of [2 ** 32 + 5, 1.5, Number.NaN]) expect(() => set.add(other)).toThrow(RangeError)
  expect([...set]).toEqual([0, 0xffffff])
})

test('holds some of each page', () => {
  const all = Array.from({ length: 4096 }, (_, i) => i * 4096 + (i % 4096))
  expect([...new VniSet(all)]).toEqual(all)
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
  expect(all.every((one) => set.delete(one))).toBe(true)
  expect(set.size).toBe(0)
})
