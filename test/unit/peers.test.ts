import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { address, AF_INET, AF_INET6 } from '../../lib/base/address.js'
import { PeerTable, POLICY_DIFFERS } from '../../lib/overlay/peers.js'

function insert(table: PeerTable, text: string): number {
  expect(table.parse(text)).toBe(table.family)
  return table.insert()
}

test('a new peer has no references and nothing installed', () => {
  const table = new PeerTable(AF_INET)
  const slot = insert(table, '10.0.0.2')
  expect(table.lookup('10.0.0.2')).toBe(slot)
  expect(table.text(slot)).toBe('10.0.0.2')
  expect([...table.bytes.subarray(slot * 16, slot * 16 + 16)]).toEqual([10, 0, 0, 2, ...new Array<number>(12).fill(0)])
  expect(table.isGone(slot)).toBe(true)
  expect([table.size, table.wanted]).toEqual([1, 0])
  expect(insert(table, '10.0.0.2')).toBe(slot)
  expect(table.size).toBe(1)
})

test('lookup finds neither strangers, nor the other family, nor what is no address', () => {
  const table = new PeerTable(AF_INET)
  insert(table, '10.0.0.0')
  // As 16 bytes it is that very IPv4 address.
  expect(table.lookup('a00::')).toBe(-1)
  expect(table.lookup('10.0.0.1')).toBe(-1)
  expect(table.lookup('10.0.0')).toBe(-1)
  expect(table.lookup('::ffff:10.0.0.0')).toBe(0)
})

test('packed bytes find a peer too', () => {
  const table = new PeerTable(AF_INET6)
  const slot = insert(table, '2001:db8::5')
  const packed = new Uint8Array(24)
  packed.set(address('2001:db8::5', 'peer').bytes, 8)
  table.load(packed, 8)
  expect(table.find()).toBe(slot)
})

describe('references', () => {
  test('are counted, and never below zero', () => {
    const table = new PeerTable(AF_INET)
    const slot = insert(table, '10.0.0.2')
    expect(table.retain(slot)).toBe(1)
    expect(table.retain(slot)).toBe(2)
    expect(table.wanted).toBe(1)
    expect(table.drop(slot)).toBe(2)
    expect(table.wanted).toBe(1)
    expect(table.drop(slot)).toBe(1)
    expect(table.drop(slot)).toBe(0)
    expect([table.references[slot], table.wanted]).toEqual([0, 0])
  })

  test('of callers and of endpoints are counted apart', () => {
    const table = new PeerTable(AF_INET)
    const slot = insert(table, '10.0.0.2')
    expect(table.retain(slot, 'endpoints')).toBe(1)
    expect(table.drop(slot)).toBe(0)
    expect(table.retain(slot)).toBe(2)
    expect(table.drop(slot, 'endpoints')).toBe(1)
    expect(table.drop(slot, 'endpoints')).toBe(0)
    expect([table.references[slot], table.wanted]).toEqual([1, 1])
    table.retain(slot, 'endpoints')
    table.release(slot)
    expect(table.drop(insert(table, '10.0.0.2'), 'endpoints')).toBe(0)
    table.retain(slot, 'endpoints')
    table.dropAll()
    expect([table.drop(slot, 'endpoints'), table.references[slot], table.wanted]).toEqual([0, 0, 0])
  })
})

test('a peer is swept once nothing of it is left', () => {
  const table = new PeerTable(AF_INET)
  const slots = [1, 2, 3, 4, 5].map((i) => insert(table, `10.0.0.${i}`))
  table.retain(slots[0]!)
  table.inbound[slots[1]!] = 1
  table.outbound[slots[2]!] = 0x80000000
  table.policy[slots[3]!] = POLICY_DIFFERS
  expect(table.sweep()).toBe(1)
  expect(table.lookup('10.0.0.5')).toBe(-1)
  expect(table.keysInUse()).toBe(0x80000001)
  table.policy[slots[3]!] = 8
  expect(table.keysInUse()).toBe(0x80000081)
  table.policy[slots[3]!] = 0
  expect(table.sweep([slots[3]!, slots[0]!])).toBe(1)
  expect([...table.slots()]).toEqual([slots[0], slots[1], slots[2]])
})

test('a slot that is used again bears nothing of who had it', () => {
  const table = new PeerTable(AF_INET)
  const slot = insert(table, '10.0.0.2')
  table.retain(slot)
  table.inbound[slot] = table.outbound[slot] = 0xffffffff
  table.policy[slot] = table.degraded[slot] = 1
  table.release(slot)
  expect([table.size, table.wanted, table.has(slot)]).toEqual([0, 0, false])
  expect(insert(table, '192.0.2.9')).toBe(slot)
  expect(table.text(slot)).toBe('192.0.2.9')
  expect(table.isGone(slot)).toBe(true)
  expect(table.degraded[slot]).toBe(0)
})

test('agrees with a Map, whatever comes and goes', () => {
  const text = (family: number, i: number) =>
    family === AF_INET ? `10.${i & 3}.0.${i >> 2}` : `2001:db8:${i & 7}::${i >> 3}`
  const operation = fc.tuple(fc.constantFrom('add', 'add', 'remove', 'lookup'), fc.integer({ min: 0, max: 400 }))
  fc.assert(
    fc.property(
      fc.constantFrom(AF_INET, AF_INET6),
      fc.array(operation, { maxLength: 800, size: 'max' }),
      (family, operations) => {
        const table = new PeerTable(family)
        const model = new Map<string, number>()
        for (const [what, i] of operations) {
          const name = text(family, i)
          const slot = table.lookup(name)
          const before = model.get(name) ?? 0
          expect(slot >= 0 ? table.references[slot] : 0).toBe(before)
          if (what === 'add') {
            table.retain(insert(table, name))
            model.set(name, before + 1)
          } else if (what === 'remove' && slot >= 0) {
            table.drop(slot)
            if (before === 1) model.delete(name)
            else model.set(name, before - 1)
            table.sweep([slot])
          }
        }
        expect(table.size).toBe(model.size)
        expect(table.wanted).toBe(model.size)
        const found = new Map(
          [...table.slots()].map((slot) => [address(table.text(slot), 'peer').text, table.references[slot]!]),
        )
        expect(found).toEqual(new Map([...model].map(([name, count]) => [address(name, 'peer').text, count])))
      },
    ),
    { numRuns: 200 },
  )
})

test('100,000 peers are found again, and take under 300 bytes each', () => {
  const table = new PeerTable(AF_INET)
  const before = process.memoryUsage()
  for (let i = 0; i < 100_000; i++) table.retain(insertFast(table, i))
  const after = process.memoryUsage()
  expect((after.arrayBuffers - before.arrayBuffers) / table.size).toBeLessThan(300)
  for (let i = 0; i < 100_000; i += 97) expect(table.lookup(ip(i))).toBe(i)
  expect(table.size).toBe(100_000)
})

function ip(i: number): string {
  return `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`
}

function insertFast(table: PeerTable, i: number): number {
  table.parse(ip(i))
  return table.insert()
}
