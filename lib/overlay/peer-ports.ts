import { ADDRESS_BYTES, formatAddress } from '../base/address.js'
import { InvalidArgument } from '../base/errors.js'
import { Pace } from '../base/pace.js'
import type { Packed } from './arguments.js'
import { PeerTable } from './peers.js'

/**
 * Refuses a peer to whom a port is given while its address is in use with another, by this call or an earlier one. Endpoints
 * at it say nothing of its port, and stand in no way.
 *
 * @param table those that are wanted already
 * @param assumed the port of those to whom none is given
 * @throws InvalidArgument naming `peers[2].port`
 */
export async function checkPorts({ bytes, ports, count }: Packed, table: PeerTable, assumed: number): Promise<void> {
  if (ports.every((port) => port === 0)) return
  const before = new PeerTable(table.family)
  const pace = new Pace()
  for (let i = 0; i < count; i++) {
    if (pace.isDue) await pace.breathe()
    const given = ports[i]!
    const at = i * ADDRESS_BYTES
    table.load(bytes, at)
    const slot = table.find()
    let present = slot >= 0 && table.references[slot]! > table.endpoints[slot]! ? table.port[slot]! : 0
    if (present === 0) {
      before.load(bytes, at)
      const own = before.insert()
      present = before.port[own] ||= given === 0 ? assumed : given
    }
    if (given === 0 || given === present) continue
    throw new InvalidArgument(
      `peers[${i}].port`,
      `${present}, with which ${formatAddress(bytes, at, table.family)} is in use: two nodes behind one address can't be told apart, for SAs and policies know nothing else of them. Give each a public address of its own; or, if it is the same node with another port, remove it first`,
      given,
    )
  }
}
