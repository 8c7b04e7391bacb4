import type { KeepaliveStatus } from './keepalive.js'

/** How ESP in UDP stands: plain JSON. */
export interface NatStatus {
  /** Of this node. */
  port: number
  /** Whose socket ESP comes to: the overlay's own, or one handed in. */
  socket: 'own' | 'given'
  /** Whether the kernel takes ESP out of all that comes to it, from whichever peer. */
  intact: boolean
  /** Whether ports that change are heard of. */
  following: boolean
  /** How many peers' ports are assumed to be as our own, were given, or were learned from their packets. */
  ports: { assumed: number; given: number; learned: number }
  keepalives: KeepaliveStatus
  /** Peers whose packets came from elsewhere, within the last minute, than where ESP to them goes. */
  strays: { peer: string; address: string; port: number }[]
  /**
   * Peers whose port went to and fro between these two again and again, or changed ten times in a minute, to these at last:
   * up to within the last minute. There are two nodes behind one address, and ESP reaches now this one and now that; or
   * somebody sends again, from elsewhere, what he has caught.
   */
  contested: { peer: string; ports: [number, number] }[]
}

/** As many of them as a sentence names. */
const NAMED = 3

/** What of it is not as it should be, a sentence each. */
export function natTroubles({ port, intact, following, keepalives, strays, contested }: NatStatus): string[] {
  const troubles: string[] = []
  if (!intact) {
    troubles.push(
      `nothing is received, or not of all peers: the socket of UDP port ${port} is used otherwise by another process that has it (UDP_ENCAP, SO_REUSEPORT, SO_BINDTODEVICE, or connected); close the overlay, and open it with a socket of its own`,
    )
  }
  if (!following)
    troubles.push('ports of peers that change are not followed any more; close the overlay, and open it again')
  if (keepalives.error !== undefined) {
    troubles.push(`keepalives can't be sent to all peers (${keepalives.error}): NATs may forget this node`)
  }
  if (strays.length > 0) {
    const named = some(strays, (stray) => `${stray.peer} from ${stray.address} port ${stray.port}`)
    troubles.push(
      `packets of ${strays.length} peers come from elsewhere than ESP to them goes (${named}): add a peer whose address is another by that, and one whose given port is another with that, after removing it`,
    )
  }
  if (contested.length > 0) {
    const named = some(contested, ({ peer, ports }) => `${peer}: of late ${ports.join(' and ')}`)
    troubles.push(
      `the port of ${contested.length} peers changes again and again (${named}): two nodes behind one address can't be told apart, give each an address of its own; if there is but one, somebody sends its packets again from elsewhere, which a replayWindow keeps out`,
    )
  }
  return troubles
}

function some<T>(all: readonly T[], name: (one: T) => string): string {
  return all.slice(0, NAMED).map(name).join(', ') + (all.length > NAMED ? ', …' : '')
}
