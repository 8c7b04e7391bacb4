import { setTimeout as sleep } from 'node:timers/promises'
import { Keepalive } from './keepalive.js'
import { Contested, type Mapping, Strays } from './mappings.js'
import type { NatSettings } from './nat-options.js'
import type { NatStatus } from './nat-status.js'
import { type PeerTable, PortSource } from './peers.js'
import type { NatPort } from './ports.js'

/** Between two turns of following: however fast ports change, it takes no more of the machine than that. */
const REST_MS = 100

/** ESP in UDP, while an Overlay is open: hears where peers' packets come from, and says how it stands. */
export class Nat {
  readonly #port: NatPort
  readonly #settings: NatSettings
  readonly #peers: PeerTable
  readonly #keepalive: Keepalive
  readonly #strays = new Strays()
  readonly #contested = new Contested()
  #deaf: string | undefined

  /**
   * Listens from here on, until the port is closed, and sends keepalives until {@link stop}.
   *
   * @param peers read as they are when it is their turn
   * @param follow takes in what was heard, in its turn, and makes the kernel follow
   */
  constructor(
    port: NatPort,
    settings: NatSettings,
    peers: PeerTable,
    follow: (records: Uint8Array) => Promise<readonly Mapping[]>,
  ) {
    this.#port = port
    this.#settings = settings
    this.#peers = peers
    this.#keepalive = new Keepalive(port, peers, settings.keepalive)
    void this.#listen(follow)
  }

  get descriptor(): number {
    return this.#port.descriptor
  }

  /** Ends the keepalives. */
  stop(): void {
    this.#keepalive.stop()
  }

  async status(): Promise<NatStatus> {
    const { port, socket } = this.#settings
    const peers = this.#peers
    const count = { assumed: 0, given: 0, learned: 0 }
    for (const slot of peers.slots()) {
      if (peers.references[slot] === 0) continue
      if (peers.portSource[slot] === PortSource.given) count.given++
      else if (peers.portSource[slot] === PortSource.learned) count.learned++
      else count.assumed++
    }
    const isWanted = (peer: string) => {
      const slot = peers.lookup(peer)
      return slot >= 0 && peers.references[slot]! > 0
    }
    return {
      port,
      socket: socket === undefined ? 'own' : 'given',
      intact: await this.#port.isIntact(),
      following: this.#deaf === undefined,
      ports: count,
      keepalives: this.#keepalive.status,
      strays: this.#strays
        .list(isWanted, performance.now())
        .map(({ peer, address, port: from }) => ({ peer, address, port: from })),
      contested: this.#contested.list(isWanted, performance.now()),
    }
  }

  async #listen(follow: (records: Uint8Array) => Promise<readonly Mapping[]>): Promise<void> {
    try {
      for (;;) {
        const heard = await this.#port.mappings.hear(false)
        if (heard === undefined) return
        const learned = await follow(heard.records)
        const now = performance.now()
        this.#contested.note(learned, now)
        for (const mapping of this.#strays.note(learned, now)) this.#tell(mapping)
        await sleep(REST_MS, undefined, { ref: false })
      }
    } catch (error) {
      this.#deaf = error instanceof Error ? error.message : String(error)
    }
  }

  /** What the caller's function throws is its own, and stops nothing here. */
  #tell(mapping: Mapping): void {
    const { onMapping } = this.#settings
    if (onMapping !== undefined) queueMicrotask(() => onMapping(mapping))
  }
}
