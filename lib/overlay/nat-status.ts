/** How ESP in UDP stands: plain JSON. */
export interface NatStatus {
  /** Of this node. */
  port: number
  /** Whose socket ESP comes to: the overlay's own, or one handed in. */
  socket: 'own' | 'given'
  /** Whether the kernel takes ESP out of what comes to it. */
  intact: boolean
}

/** What of it is not as it should be, a sentence each. */
export function natTroubles({ port, intact }: NatStatus): string[] {
  if (intact) return []
  return [
    `nothing is received: the socket of UDP port ${port} is used otherwise by another process that has it (UDP_ENCAP); close the overlay, and open it with a socket of its own`,
  ]
}
