import { setTimeout as sleep } from 'node:timers/promises'
import type { Namespace } from './namespace.js'
import { CommandError, type Running } from './processes.js'

/** All ESP, of either family. */
export const ESP = 'ip proto 50 or ip6 proto 50'

/** VXLAN in the clear. IPv6 fragments after the first have no port; the first is enough to see. */
export function cleartext(port: number): string {
  return `udp port ${port}`
}

/** What a sniffer saw, by tcpdump's own closing lines. */
export interface Sniffed {
  /** That matched the filter. */
  packets: number
  /** That the kernel had no room for: with any, `packets` says nothing. */
  dropped: number
}

/** What came just before the end may be in the ring still, and tcpdump does not look there again. */
const SETTLE_MS = 200

/** Headers only, packet by packet as they come, and room (in KiB) for a busy moment. */
const reading = ['--immediate-mode', '-s', '128', '-B', '8192']

/** A tcpdump at work on one device. */
export class Sniffer {
  readonly device: string
  readonly #running: Running

  private constructor(device: string, running: Running) {
    this.device = device
    this.#running = running
  }

  /**
   * Starts tcpdump; it listens once this resolves.
   *
   * @param options `lines`: whether to keep a line of text for each packet, which costs tcpdump time. Default: false
   * @throws CommandError
   */
  static async start(
    where: Namespace,
    device: string,
    filter: string,
    options: { lines?: boolean } = {},
  ): Promise<Sniffer> {
    const shown = options.lines === true ? ['-l'] : ['-w', '/dev/null']
    const args = ['-n', '-i', device, ...reading, ...shown, filter]
    const running = where.start('tcpdump', args)
    await new Promise<void>((resolve, reject) => {
      running.child.stderr?.on('data', () => {
        if (running.errors().includes('listening on')) resolve()
      })
      running.ended.then(({ status, errors }) => {
        reject(new CommandError('tcpdump', args, status, errors))
      }, reject)
    })
    return new Sniffer(device, running)
  }

  /** A line for each packet so far, if they are kept. */
  get lines(): string[] {
    return this.#running.output().split('\n').slice(0, -1)
  }

  /** Ends it. */
  async stop(): Promise<Sniffed> {
    await sleep(SETTLE_MS)
    this.#running.child.kill('SIGINT')
    const { errors } = await this.#running.ended
    return closing(errors)
  }
}

/** Ends sniffers, and adds up what they saw: a packet counts once on each link it crossed. */
export async function stopAll(sniffers: readonly Sniffer[]): Promise<Sniffed> {
  const all = await Promise.all(sniffers.map((sniffer) => sniffer.stop()))
  return all.reduce((sum, { packets, dropped }) => ({ packets: sum.packets + packets, dropped: sum.dropped + dropped }))
}

function closing(text: string): Sniffed {
  const count = (pattern: RegExp) => {
    const found = pattern.exec(text)
    if (found === null) throw new Error(`tcpdump said nothing of what it saw: ${JSON.stringify(text)}`)
    return Number(found[1])
  }
  return { packets: count(/(\d+) packets? captured/), dropped: count(/(\d+) packets? dropped by kernel/) }
}
