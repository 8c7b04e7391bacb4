import { expect, test } from 'vitest'
import { Neighbour } from '../../lib/kernel/neighbour-records.js'
import { TransactionRecord } from '../../lib/kernel/nft-records.js'
import { AcquireTail, MappingTail, Policy, State } from '../../lib/kernel/records.js'
import { native } from '../../lib/native.js'

test('records have their fields where the compiler has them', () => {
  const { state, policy, transaction, neighbour, mapping, acquire } = native.layout()
  expect(State).toEqual(state)
  expect(Policy).toEqual(policy)
  expect(TransactionRecord).toEqual(transaction)
  expect(Neighbour).toEqual(neighbour)
  expect(MappingTail).toEqual(mapping)
  expect(AcquireTail).toEqual(acquire)
})
