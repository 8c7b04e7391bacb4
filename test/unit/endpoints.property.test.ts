import fc from 'fast-check'
import { expect, test } from 'vitest'
import { familyOf, keyText } from '../../lib/base/address-key.js'
import { formatMac } from '../../lib/base/packed-mac.js'
import { Neighbour, NeighbourOperation, NeighbourReader } from '../../lib/kernel/neighbour-records.js'
import { RecordReader } from '../../lib/kernel/records.js'
import type { NativeOutcome } from '../../lib/native.js'
import type { EndpointLink, OpenLink } from '../../lib/vxlan/endpoint-link.js'
import type { Endpoint } from '../../lib/vxlan/endpoints.js'
import { noChanges } from '../../lib/vxlan/endpoint-table.js'
import { Entries } from '../../lib/vxlan/entries.js'
import { offHeapBytes } from './off-heap.js'

const ENOENT = 2
const ENOMEM = 12
const COMPLETE = 0
const LATE = 2

/**
 * What a kernel makes of records: a MAC leads to one VTEP, a deletion that names another VTEP does nothing. The stories of
 * test/kernel/anywhere/endpoints.test.ts are told to a real one.
 */
class Kernel {
  readonly fdb = new Map<string, Uint8Array>()
  readonly neighbours = new Map<string, Uint8Array>()
  /** Of the operations to come: refused ones, and where it is broken off. */
  refuse: (index: number) => boolean = () => false
  breakAt = Infinity
  operations = 0

  commit(records: Uint8Array): Promise<NativeOutcome> {
    const failures: number[] = []
    const reader = new NeighbourReader(records)
    let sent = 0
    while (reader.next()) {
      if (this.operations >= this.breakAt)
        return Promise.resolve({ ...outcome, ending: LATE, sent, failures: triples(failures) })
      const errno = this.refuse(this.operations) ? ENOMEM : this.#carryOut(reader)
      if (errno !== 0) failures.push(sent, errno, 0xffffffff)
      this.operations++
      sent++
    }
    return Promise.resolve({ ...outcome, sent, failures: triples(failures) })
  }

  link(): EndpointLink {
    const read = (entries: Map<string, Uint8Array>) =>
      Promise.resolve(Uint8Array.from(Buffer.concat([...entries.values()])))
    const channel = {
      commit: (records: Uint8Array) => this.commit(records),
      readFdb: () => read(this.fdb),
      readNeighbours: (_link: number, family: number) => (family === 2 ? read(this.neighbours) : read(new Map())),
    }
    const open = { channel, index: 7, family: undefined } as unknown as OpenLink
    const found = () => Promise.resolve(open)
    return { known: open, open: found, find: found, look: found, forget: () => undefined } as unknown as EndpointLink
  }

  /** As `bridge` and `ip` would list it. */
  get listed(): { fdb: Map<string, string>; neighbours: Map<string, string> } {
    const texts = (entries: Map<string, Uint8Array>, part: 0 | 1) =>
      new Map([...entries].map(([key, record]): [string, string] => [key, textsOf(record)[part]]).sort())
    return { fdb: texts(this.fdb, 1), neighbours: texts(this.neighbours, 0) }
  }

  #carryOut(reader: NeighbourReader): number {
    const record = reader.record().slice()
    const [mac, address] = textsOf(record)
    const fields = new RecordReader(record)
    fields.next()
    const isFdb = fields.u8(Neighbour.family) === 7
    const [entries, key] = isFdb ? [this.fdb, mac] : [this.neighbours, address]
    if (fields.u8(Neighbour.operation) === NeighbourOperation.set) {
      entries.set(key, record)
      return 0
    }
    const there = entries.get(key)
    if (there === undefined) return ENOENT
    const names = isFdb && fields.u8(Neighbour.destinationFamily) !== 0
    if (!names || textsOf(there)[1] === address) entries.delete(key)
    return 0
  }
}

const outcome: NativeOutcome = {
  ending: COMPLETE,
  errno: 0,
  sent: 0,
  unknown: 0,
  failures: new Uint32Array(),
  messages: [],
  sends: 1,
  readBack: 0,
}
const triples = (failures: number[]) => Uint32Array.from(failures)

function textsOf(record: Uint8Array): [mac: string, address: string] {
  const reader = new NeighbourReader(Uint8Array.from(record))
  reader.next()
  const mac = new Uint32Array(2)
  const address = new Uint32Array(4)
  reader.mac(mac)
  reader.destination(address)
  return [formatMac(new Uint8Array(mac.buffer), 2), keyText(new Uint8Array(address.buffer), 0, familyOf(address, 0))]
}

/** What should be: endpoints by address, and for each MAC its VTEPs in the order in which the first endpoint came there. */
class Wish {
  readonly endpoints = new Map<string, Endpoint>()
  readonly #vteps = new Map<string, string[]>()

  put(endpoint: Endpoint): void {
    const before = this.endpoints.get(endpoint.ip)
    if (before?.mac === endpoint.mac && before.vtep === endpoint.vtep) return
    this.endpoints.set(endpoint.ip, endpoint)
    const vteps = this.#vteps.get(endpoint.mac) ?? []
    if (!vteps.includes(endpoint.vtep)) this.#vteps.set(endpoint.mac, [...vteps, endpoint.vtep])
    if (before) this.#leave(before)
  }

  take(endpoint: Endpoint): void {
    const before = this.endpoints.get(endpoint.ip)
    if (before?.mac !== endpoint.mac || before.vtep !== endpoint.vtep) return
    this.endpoints.delete(endpoint.ip)
    this.#leave(before)
  }

  get listed(): Kernel['listed'] {
    const fdb = [...this.#vteps].map(([mac, vteps]) => [mac, vteps.at(-1)!] as const)
    const neighbours = [...this.endpoints.values()].map(({ ip, mac }) => [ip, mac] as const)
    return { fdb: new Map(fdb.sort()), neighbours: new Map(neighbours.sort()) }
  }

  #leave({ mac, vtep }: Endpoint): void {
    if ([...this.endpoints.values()].some((each) => each.mac === mac && each.vtep === vtep)) return
    const left = this.#vteps.get(mac)!.filter((each) => each !== vtep)
    if (left.length > 0) this.#vteps.set(mac, left)
    else this.#vteps.delete(mac)
  }
}

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
      const kernel = new Kernel()
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
      const [found] = (await entries.look()).phases.filter(({ subjects }) => subjects.length > 0)
      expect(found).toBeUndefined()
    }),
    { numRuns: 400 },
  ))

test('whatever is refused or broken off, a look finds what is left of it, and another that all is well', () =>
  fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ step, refused: fc.nat({ max: 40 }), broken: fc.nat({ max: 60 }) }), { maxLength: 20 }),
      async (steps) => {
        const kernel = new Kernel()
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
        for (const { subjects } of (await entries.look()).phases) expect(subjects).toEqual([])
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
  const entries = new Entries(new Kernel().link())
  const checked = await entries.check(list)
  const before = process.memoryUsage().heapUsed
  const offHeap = offHeapBytes(() => {
    const changes = noChanges()
    for (let i = 0; i < checked.size; i++) entries.table.put(checked, i, changes)
    entries.forgo()
    return entries
  })
  const grown = process.memoryUsage().heapUsed - before
  expect(entries.table.size).toBe(list.length)
  expect(offHeap / list.length).toBeGreaterThan(20)
  expect((offHeap + Math.max(0, grown)) / list.length).toBeLessThan(300)
})
