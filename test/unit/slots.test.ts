import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Slots } from '../../lib/overlay/slots.js'

test('slots are listed once, in the order in which they came', () => {
  const slot = fc.oneof(fc.nat(70), fc.constantFrom(2047, 2048, 2049, 99_999, 2 ** 20))
  fc.assert(
    fc.property(fc.array(slot, { maxLength: 300, size: 'max' }), (all) => {
      const slots = new Slots()
      for (const each of all) slots.add(each)
      expect(slots.list()).toEqual([...new Set(all)])
    }),
  )
})
