import { familyOf, keyText } from '../../lib/base/address-key.js'
import { XfrmeshError } from '../../lib/base/errors.js'
import { formatMac } from '../../lib/base/packed-mac.js'
import { Neighbour, NeighbourOperation, NeighbourReader } from '../../lib/kernel/neighbour-records.js'
import { RecordReader } from '../../lib/kernel/records.js'
import type { LinkName } from '../../lib/kernel/link.js'
import type { LinkView, NeighbourChannel } from '../../lib/kernel/neighbours.js'
import type { NativeOutcome } from '../../lib/native.js'
import { EndpointLink } from '../../lib/vxlan/endpoint-link.js'
import type { Endpoint } from '../../lib/vxlan/endpoints.js'

const ENOENT = 2
const ENOMEM = 12
const ENODEV = 19
const COMPLETE = 0
const LATE = 2

/**
 * What a kernel makes of records: a MAC leads to one VTEP, a deletion that names another VTEP does nothing. The stories of
 * test/kernel/anywhere/endpoints.test.ts are told to a real one.
 */
export class NeighbourKernel {
  readonly fdb = new Map<string, Uint8Array>()
  readonly neighbours = new Map<string, Uint8Array>()
  /** The link whose entries they are; undefined: there is none. */
  view: LinkView | undefined = {
    ...{ index: 7, name: 'vx0', kind: 'vxlan', family: undefined, isExternal: false, vni: 4096, port: 4789 },
    linkNamespace: undefined,
  }
  /** The same, once it has another name. */
  renamed: LinkView | undefined
  /** What reading them fails with. */
  unreadable: Error | undefined
  isClosed = false
  /** Whether its namespace lost its name. */
  isNameless = false
  /** Of the operations to come: refused ones, and where it is broken off. */
  refuse: (index: number) => boolean = () => false
  breakAt = Infinity
  operations = 0
  /** Told of each FDB entry that is made: where it leads. */
  onLead: (vtep: string) => void = () => undefined

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
      this.unreadable === undefined
        ? Promise.resolve(Uint8Array.from(Buffer.concat([...entries.values()])))
        : Promise.reject(this.unreadable)
    const channel = {
      checkName: (what: string) => {
        if (this.isNameless) throw new XfrmeshError('ERR_XFRMESH_NAMESPACE_GONE', `${what}: gone`)
      },
      link: (which: LinkName) =>
        Promise.resolve(
          'name' in which ? this.view : [this.view, this.renamed].find((view) => view?.index === which.index),
        ),
      lock: () => Promise.resolve(undefined),
      commit: (records: Uint8Array) => this.commit(records),
      readFdb: () => read(this.fdb),
      readNeighbours: (_link: number, family: number) => (family === 2 ? read(this.neighbours) : read(new Map())),
      close: () => Promise.resolve(void (this.isClosed = true)),
    }
    return new EndpointLink('vx0', {}, () => Promise.resolve(channel as unknown as NeighbourChannel))
  }

  /** The link is deleted, and made again with other settings: it has no entries then. */
  remake(change: Partial<LinkView>): void {
    this.view = { ...this.view!, index: this.view!.index + 1, ...change }
    this.fdb.clear()
    this.neighbours.clear()
  }

  /** The link is named otherwise; `another` says whether one is made that bears its name. */
  rename(another: boolean): void {
    this.renamed = { ...this.view!, name: 'old' }
    this.view = another ? { ...this.view!, index: this.view!.index + 1 } : undefined
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
    if (fields.u32(Neighbour.interfaceIndex) !== this.view?.index) return ENODEV
    const isFdb = fields.u8(Neighbour.family) === 7
    const [entries, key] = isFdb ? [this.fdb, mac] : [this.neighbours, address]
    if (fields.u8(Neighbour.operation) === NeighbourOperation.set) {
      if (isFdb) this.onLead(address)
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
export class Wish {
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

  get listed(): NeighbourKernel['listed'] {
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
