import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Endpoint } from '../../lib/vxlan/endpoints.js'
import { openedWithLink, references } from './linked.js'
import { key } from './model.js'
import { Wish } from './neighbour-model.js'
import { fair, type Weather } from './stories.js'

/** Endpoints whose peers an Overlay counts, on models of the SAD and of a link's entries that know of each other. */

const VTEPS = ['10.0.0.2', '10.0.0.3', '10.0.0.4']

function counts(all: Iterable<Endpoint>): Map<string, number> {
  const counted = new Map<string, number>()
  for (const { vtep } of all) counted.set(vtep, (counted.get(vtep) ?? 0) + 1)
  return new Map([...counted].sort())
}

const endpoint = fc.record({
  ip: fc.nat({ max: 4 }).map((i) => `10.1.0.${i + 1}`),
  mac: fc.nat({ max: 3 }).map((i) => `02:00:00:00:00:0${i + 1}`),
  vtep: fc.constantFrom(...VTEPS),
})
const step = fc.record({
  what: fc.constantFrom('add', 'add', 'remove', 'reconcile', 'rotate', 'removePeers'),
  endpoints: fc.uniqueArray(endpoint, { maxLength: 5, size: 'max', selector: ({ ip }) => ip }),
  /** Of some messages to the SAD, and to the link, the one that is refused; and after how many each is broken off. */
  peers: fc.nat({ max: 15 }),
  entries: fc.nat({ max: 30 }),
  broken: fc.nat({ max: 60 }),
  breaks: fc.nat({ max: 24 }).map((after) => (after < 4 ? after : undefined)),
})

test('an FDB entry leads to where there is an SA, and an endpoint has one reference, whatever is refused or broken off', () =>
  fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 30, size: 'max' }), async (steps) => {
      const { ports, neighbours, overlay, endpoints } = await openedWithLink()
      const wish = new Wish()
      let tag = 1
      for (const { what, endpoints: list, peers, entries, broken, breaks } of steps) {
        let messages = 0
        const weather: Weather = { refuses: () => messages++ % 16 === peers, breaks: () => breaks }
        ports.weather = weather
        neighbours.operations = 0
        neighbours.refuse = (index) => index % 31 === entries
        neighbours.breakAt = broken
        const call = async () => {
          if (what === 'add') {
            for (const each of list) wish.put(each)
            await overlay.addEndpoints(endpoints, list)
          } else if (what === 'remove') {
            const there = list.map((each) => wish.endpoints.get(each.ip) ?? each)
            for (const each of there) wish.take(each)
            await overlay.removeEndpoints(endpoints, there)
          } else if (what === 'rotate') {
            const next = ++tag
            await overlay.updateKeys({ add: key(next), primary: next, prune: next - 1 })
          } else if (what === 'reconcile') await overlay.reconcile()
          else await overlay.removePeers(VTEPS)
        }
        await call().catch((error: unknown) => {
          const code = (error as { code?: string }).code
          if (!['ERR_XFRMESH_PARTIAL_FAILURE', 'ERR_XFRMESH_TIMEOUT', 'ERR_XFRMESH_NETLINK'].includes(code ?? ''))
            throw error
        })
        if (what === 'add' || what === 'remove') expect(endpoints.size).toBe(wish.endpoints.size)
        for (const vtep of counts(wish.endpoints.values()).keys()) expect(overlay.peers.get(vtep)).toBeDefined()
      }
      ports.weather = fair
      neighbours.refuse = () => false
      neighbours.breakAt = Infinity
      await overlay.reconcile()
      expect(neighbours.listed).toEqual(wish.listed)
      expect(references(overlay)).toEqual(counts(wish.endpoints.values()))
      for (const vtep of VTEPS) {
        expect(ports.kernel.outboundTo(vtep).length).toBe(references(overlay).has(vtep) ? 1 : 0)
      }
      expect(await overlay.reconcile()).toMatchObject({ plan: [] })
      expect((await overlay.status()).degraded).toEqual([])
      // What is as it is given takes no message.
      const before = [ports.operations, neighbours.operations]
      const all = [...wish.endpoints.values()]
      expect(await overlay.addEndpoints(endpoints, all)).toMatchObject({
        applied: 0,
        unchanged: all.length,
        operations: 0,
      })
      expect([ports.operations, neighbours.operations]).toEqual(before)
      await overlay.removeEndpoints(endpoints, all)
      expect(neighbours.listed).toEqual({ fdb: new Map(), neighbours: new Map() })
      expect(overlay.peers.size).toBe(0)
      expect(ports.kernel.states.size).toBe(0)
    }),
    { numRuns: 200 },
  ))
