import { ADDRESS_BYTES } from '../base/address.js'
import { Pace } from '../base/pace.js'
import { errnoText } from '../kernel/netlink-errors.js'
import type { PeerTable } from './peers.js'
import type { NatPort } from './ports.js'

const TICK_MS = 1000

/** How keepalives go: plain JSON. */
export interface KeepaliveStatus {
  /** Between two to the same peer, in seconds; 0: there are none. */
  seconds: number
  /** Since the overlay was opened. */
  sent: number
  failed: number
  /** Why the last that failed did, if it was among the last that were to be sent: `ENETUNREACH`. */
  error?: string
}

/**
 * Keepalives (RFC 3948, 4) to all peers, so that a NAT between keeps its mapping: each second to a part of them, by one
 * timer. That there are some keeps no process alive.
 */
export class Keepalive {
  readonly #port: Pick<NatPort, 'keepAlive'>
  readonly #peers: PeerTable
  readonly #status: KeepaliveStatus
  readonly #timer: NodeJS.Timeout | undefined
  #tick = 0
  #isSending = false

  /** @param seconds between two to the same peer; 0: none */
  constructor(port: Pick<NatPort, 'keepAlive'>, peers: PeerTable, seconds: number) {
    this.#port = port
    this.#peers = peers
    this.#status = { seconds, sent: 0, failed: 0 }
    if (seconds > 0) this.#timer = setInterval(() => void this.#send(), TICK_MS).unref()
  }

  get status(): KeepaliveStatus {
    return { ...this.#status }
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** Sends to the peers whose turn it is. A turn that comes while the one before is at work waits for the next second. */
  async #send(): Promise<void> {
    if (this.#isSending) return
    this.#isSending = true
    try {
      const { addresses, ports } = await this.#due(this.#tick++ % this.#status.seconds)
      if (ports.length === 0) return
      const { sent, failed, errno } = await this.#port.keepAlive(addresses, ports)
      this.#status.sent += sent
      this.#status.failed += failed
      if (failed > 0) this.#status.error = errnoText(errno)[0]
      else delete this.#status.error
    } catch (error) {
      // Closed under it, or its namespace is gone: the next call on the overlay says so.
      this.#status.error = error instanceof Error ? error.message : String(error)
    } finally {
      this.#isSending = false
    }
  }

  /** Addresses and ports of every n-th peer, from that slot on. */
  async #due(first: number): Promise<{ addresses: Uint8Array; ports: Uint16Array }> {
    const { seconds } = this.#status
    const peers = this.#peers
    const most = Math.max(0, Math.ceil((peers.end - first) / seconds))
    const addresses = new Uint8Array(most * ADDRESS_BYTES)
    const ports = new Uint16Array(most)
    const pace = new Pace()
    let count = 0
    for (let slot = first; slot < peers.end && count < most; slot += seconds) {
      if (pace.isDue) await pace.breathe()
      if (!peers.has(slot) || peers.references[slot] === 0) continue
      addresses.set(peers.bytes.subarray(slot * ADDRESS_BYTES, (slot + 1) * ADDRESS_BYTES), count * ADDRESS_BYTES)
      ports[count++] = peers.port[slot]!
    }
    return { addresses: addresses.subarray(0, count * ADDRESS_BYTES), ports: ports.subarray(0, count) }
  }
}
