import { ADDRESS_BYTES } from '../base/address.js'
import { Pace } from '../base/pace.js'
import { type PeerTable, PortSource, type Referrer } from './peers.js'
import { Slots } from './slots.js'

/** Peers by their packed addresses, one as often as it is to be counted. */
export interface PackedPeers {
  /** 16 bytes each. */
  readonly bytes: Uint8Array
  /** UDP ports given; 0, or left out, where none was. */
  readonly ports?: Uint16Array
  readonly count: number
}

/**
 * One reference more to each. Returns the slots of those that lack anything: what they lack is to be made.
 *
 * @param assumed the port of those to whom none is given
 */
export async function retain(
  table: PeerTable,
  { bytes, ports, count }: PackedPeers,
  assumed: number,
  referrer: Referrer = 'callers',
): Promise<readonly number[]> {
  const slots = new Slots()
  const pace = new Pace()
  for (let i = 0; i < count; i++) {
    table.load(bytes, i * ADDRESS_BYTES)
    const slot = table.insert()
    if (table.retain(slot, referrer) === 1) {
      // It lacks everything until the kernel has it.
      table.degraded[slot] = 1
      table.port[slot] = assumed
      table.portSource[slot] = PortSource.assumed
    }
    const given = ports?.[i] ?? 0
    if (given !== 0) {
      // It lacks SAs with that port.
      if (given !== table.port[slot]) table.degraded[slot] = 1
      table.port[slot] = given
      table.portSource[slot] = PortSource.given
    }
    if (table.degraded[slot] === 1) slots.add(slot)
    if (pace.isDue) await pace.breathe()
  }
  return slots.list()
}

/** One reference less to each. Returns the slots of those that have none left, of anybody: they are to go. */
export async function drop(
  table: PeerTable,
  { bytes, count }: PackedPeers,
  referrer: Referrer = 'callers',
): Promise<readonly number[]> {
  const slots = new Slots()
  const pace = new Pace()
  for (let i = 0; i < count; i++) {
    table.load(bytes, i * ADDRESS_BYTES)
    const slot = table.find()
    if (slot >= 0) {
      table.drop(slot, referrer)
      // One that had none before is there because not all of it could be removed.
      if (table.references[slot] === 0) slots.add(slot)
    }
    if (pace.isDue) await pace.breathe()
  }
  return slots.list()
}
