import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Endpoint } from '../../lib/vxlan/endpoints.js'
import { noChanges } from '../../lib/vxlan/endpoint-table.js'
import { Entries } from '../../lib/vxlan/entries.js'
import { NeighbourKernel, Wish } from './neighbour-model.js'
import { offHeapBytes } from './off-heap.js'

const endpoint = fc.record({
  ip: fc.nat({ max: 7 }).map((i) => `10.0.0.${i + 1}`),
  mac: fc.nat({ max: 3 }).map((i) => `02:00:00:00:00:0${i + 1}`),
  vtep: fc.nat({ max: 2 }).map((i) => `192.0.2.${i + 1}`),
})
const endpoints = fc.uniqueArray(endpoint, { maxLength: 6, selector: ({ ip }) => ip })
const step = fc.record({ what: fc.constantFrom('put', 'put', 'take', 'replace'), endpoints })

async function carryOut(entries: Entries, wish: Wish, what: string, list: readonly Endpoint[]): Promise<void> {
  const checked = await entries.check(list)
  if (what === 'put') {
    for (const each of list) wish.put(each)
    await entries.follow(await entries.put(checked))
  } else if (what === 'take') {
    for (const each of list) wish.take(each)
    await entries.follow(await entries.take(checked))
  } else {
    for (const each of list) wish.put(each)
    for (const each of [...wish.endpoints.values()]) if (!list.some(({ ip }) => ip === each.ip)) wish.take(each)
    await entries.replace(checked)
    await entries.repair(await entries.look())
  }
}

test('after each call the kernel has what is wanted and nothing else', () =>
  fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const kernel = new NeighbourKernel()
      const entries = new Entries(kernel.link())
      const wish = new Wish()
      for (const { what, endpoints } of steps) {
        await carryOut(entries, wish, what, endpoints)
        expect(kernel.listed).toEqual(wish.listed)
        expect(entries.table.size).toBe(wish.endpoints.size)
        const before = kernel.operations
        await entries.follow(await entries.put(await entries.check([...wish.endpoints.values()])))
        expect(kernel.operations).toBe(before)
      }
      expect(await entries.steps(await entries.look())).toEqual([])
    }),
    { numRuns: 400 },
  ))

test('whatever is refused or broken off, a look finds what is left of it, and another that all is well', () =>
  fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ step, refused: fc.nat({ max: 40 }), broken: fc.nat({ max: 60 }) }), { maxLength: 20 }),
      async (steps) => {
        const kernel = new NeighbourKernel()
        const entries = new Entries(kernel.link())
        const wish = new Wish()
        for (const { step, refused, broken } of steps) {
          kernel.operations = 0
          kernel.refuse = (index) => index % 40 === refused
          kernel.breakAt = broken
          await carryOut(entries, wish, step.what, step.endpoints).catch((error: unknown) => {
            expect(error).toMatchObject({ code: 'ERR_XFRMESH_TIMEOUT' })
          })
        }
        kernel.refuse = () => false
        kernel.breakAt = Infinity
        await entries.repair(await entries.look())
        expect(kernel.listed).toEqual(wish.listed)
        expect(entries.table.size).toBe(wish.endpoints.size)
        expect(await entries.steps(await entries.look())).toEqual([])
      },
    ),
    { numRuns: 400 },
  ))

test('an endpoint with a MAC and a VTEP of its own takes under 300 bytes', async () => {
  const list = Array.from({ length: 100_000 }, (_, i) => {
    const bytes = [i >> 16, (i >> 8) & 255, i & 255]
    const mac = `02:42:0a:${bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':')}`
    return { ip: `10.${bytes.join('.')}`, mac, vtep: `11.${bytes.join('.')}` }
  })
  const entries = new Entries(new NeighbourKernel().link())
  const checked = await entries.check(list)
  const before = process.memoryUsage().heapUsed
  const offHeap = offHeapBytes(() => {
    const changes = noChanges()
    for (let i = 0; i < checked.size; i++) entries.table.put(checked, i, changes)
    return entries
  })
  await entries.forgo()
  const grown = process.memoryUsage().heapUsed - before
  expect(entries.table.size).toBe(list.length)
  expect(offHeap / list.length).toBeGreaterThan(20)
  expect((offHeap + Math.max(0, grown)) / list.length).toBeLessThan(300)
})
