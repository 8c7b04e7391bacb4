import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { python } from './netns.js'

const script = fileURLToPath(new URL('probe.py', import.meta.url))

/** What came: for each 'port VNI', or each VNI, the names in the frames, and how often each. */
export type Heard = Partial<Record<string, Record<string, number>>>

/** Datagrams that an ordinary socket sends. */
export interface Sending {
  to: readonly string[]
  port: number
  vnis: readonly number[]
  name?: string
  /** How many of each network to each address. Default: 1. */
  times?: number
  /** Address, and port, to send from. */
  source?: string
  sport?: number
  /** The socket's mark. */
  mark?: number
  /** With a policy of the socket's own that lets it send in the clear. */
  bypass?: boolean
}

/** Sends, hears and sniffs in namespaces, by one process for as many probes as there are: probe.py says what each does. */
export class Probe implements AsyncDisposable {
  readonly #child: ChildProcess
  readonly #answers: AsyncIterator<string>

  constructor() {
    // Without `site`: it starts in half the time.
    this.#child = spawn(python, ['-SB', script], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#answers = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]()
  }

  async close(): Promise<void> {
    const ended = this.#child.exitCode === null ? once(this.#child, 'exit') : undefined
    this.#child.stdin!.end()
    await ended
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** What arrives at UDP ports of a namespace while `work` runs. */
  heardDuring(netns: string, ports: readonly number[], work: () => Promise<unknown>): Promise<Heard> {
    return this.#during(netns, 'hear', { ports }, work)
  }

  /** What of the test's frames can be read in what a device receives while `work` runs. */
  sniffedDuring(netns: string, device: string, work: () => Promise<unknown>): Promise<Heard> {
    return this.#during(netns, 'sniff', { device }, work)
  }

  /** Sends until `work` is done; returns how many were tried. */
  floodDuring(
    netns: string,
    { to, port, vni }: { to: readonly string[]; port: number; vni: number },
    work: () => Promise<unknown>,
  ): Promise<number> {
    return this.#during(netns, 'flood', { to, port, vni }, work)
  }

  /** Returns how many were not refused on their way out. */
  send(netns: string, { name = 'sent', ...sending }: Sending): Promise<number> {
    return this.#ask(netns, 'send', { ...sending, name })
  }

  /** The packets of ESP that a device receives while `work` runs, to be sent again. */
  recordedDuring(netns: string, device: string, work: () => Promise<unknown>): Promise<string[]> {
    return this.#during(netns, 'record', { device }, work)
  }

  /** Sends recorded packets with options in their IP headers, as anybody on the way may add them. */
  async lengthen(netns: string, to: string, packets: readonly string[]): Promise<void> {
    await this.#ask(netns, 'lengthen', { to, packets })
  }

  /** All shapes of the family of `to`, or one of them, of each network, to each port. */
  async fire(
    netns: string,
    from: { source: string; spoofed: string; to: string },
    networks: readonly (readonly [port: number, vni: number])[],
    only?: string,
  ): Promise<void> {
    await this.#ask(netns, 'fire', { ...from, networks, only })
  }

  names(netns: string, from: { source: string; spoofed: string; to: string }): Promise<string[]> {
    return this.#ask(netns, 'names', from)
  }

  /** ICMP errors that quote a datagram of each network, named by their type; and pings that look like them. */
  async quote(
    netns: string,
    quoting: { source: string; to: string; port: number; vnis: readonly number[] },
  ): Promise<void> {
    await this.#ask(netns, 'quote', quoting)
  }

  async train(
    netns: string,
    { to, port, vnis }: { to: readonly string[]; port: number; vnis: readonly number[] },
  ): Promise<void> {
    await this.#ask(netns, 'train', { to, port, vnis })
  }

  async #during<T>(netns: string, what: string, words: object, work: () => Promise<unknown>): Promise<T> {
    const number = await this.#ask<number>(netns, `begin_${what}`, words)
    try {
      await work()
    } catch (error) {
      await this.#ask(netns, `end_${what}`, { number })
      throw error
    }
    return this.#ask(netns, `end_${what}`, { number })
  }

  async #ask<T>(netns: string, what: string, words: object): Promise<T> {
    this.#child.stdin!.write(`${JSON.stringify({ do: what, netns, ...words })}\n`)
    const line = await this.#answers.next()
    if (line.done === true) throw new Error('probe.py: it ended')
    const answer = JSON.parse(line.value) as { ok: T } | { error: string }
    if ('error' in answer) throw new Error(`probe.py: ${what}: ${answer.error}`)
    return answer.ok
  }
}
