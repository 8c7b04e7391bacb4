import { KEY_WORDS } from '../base/address-key.js'
import { Pace } from '../base/pace.js'
import { isUnicast } from '../base/packed-mac.js'
import { MAC_OFFSET, MAC_WORDS, NeighbourReader } from '../kernel/neighbour-records.js'
import type { EndpointTable } from './endpoint-table.js'
import { Standing, sameWords } from './rows.js'

/** What a look at a link found beside what is wanted: records. */
export interface Found {
  /** FDB entries to next hops in the place of ours: the kernel sets none of ours before they are gone. */
  readonly inTheWay: Uint8Array[]
  /** What nobody wants. */
  readonly neighbours: Uint8Array[]
  readonly fdb: Uint8Array[]
}

/** Dumps of one link. */
export interface Dumps {
  readonly fdb: Uint8Array
  readonly neighbours: readonly Uint8Array[]
}

/**
 * Compares what is wanted with dumps: how all stands is known then. What counts as ours, and is to go if nobody wants it, is
 * said at {@link Endpoints.reconcile}.
 */
export async function survey(table: EndpointTable, { fdb, neighbours }: Dumps): Promise<Found> {
  table.forget()
  const found: Found = { inTheWay: [], neighbours: [], fdb: [] }
  await surveyFdb(table, fdb, found)
  for (const dump of neighbours) await surveyNeighbours(table, dump, found)
  return found
}

async function surveyFdb({ fdb }: EndpointTable, dump: Uint8Array, found: Found): Promise<void> {
  const reader = new NeighbourReader(dump)
  const mac = new Uint32Array(MAC_WORDS)
  const macBytes = new Uint8Array(mac.buffer)
  const vtep = new Uint32Array(KEY_WORDS)
  const pace = new Pace()
  while (reader.next()) {
    if (pace.isDue) await pace.breathe()
    reader.mac(mac)
    const head = fdb.find(mac)
    if (head < 0) {
      if (reader.isPermanent && isUnicast(macBytes, MAC_OFFSET)) found.fdb.push(reader.record())
      continue
    }
    reader.destination(vtep)
    const isRight = reader.isPermanent && reader.isPlain && fdb.leadsTo(head, vtep, 0)
    fdb.standing[head] = isRight ? Standing.right : Standing.differs
    if (reader.hasNexthop) found.inTheWay.push(reader.record())
  }
}

async function surveyNeighbours(table: EndpointTable, dump: Uint8Array, found: Found): Promise<void> {
  const reader = new NeighbourReader(dump)
  const mac = new Uint32Array(MAC_WORDS)
  const ip = new Uint32Array(KEY_WORDS)
  const pace = new Pace()
  while (reader.next()) {
    if (pace.isDue) await pace.breathe()
    reader.destination(ip)
    const row = table.find(ip)
    if (row < 0) {
      if (reader.isPermanent) found.neighbours.push(reader.record())
      continue
    }
    reader.mac(mac)
    const isRight = reader.isPermanent && sameWords(table.fdb.macs, table.pairs[row]! * MAC_WORDS, mac, 0, MAC_WORDS)
    table.standing[row] = isRight ? Standing.right : Standing.differs
  }
}
