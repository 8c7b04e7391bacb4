import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { python, startInNetns } from './netns.js'

const script = fileURLToPath(new URL('wire.py', import.meta.url))

/** Sends datagrams from addresses of one namespace. */
export class Sender {
  readonly #child: ChildProcess

  constructor(netns: string) {
    const words = [`--net=${netns}`, python, '-B', script, 'send']
    this.#child = spawn('nsenter', words, { stdio: ['pipe', 'ignore', 'inherit'] })
  }

  /** @param text a word */
  send(source: string, destination: string, text: string): void {
    this.#child.stdin?.write(`${source} ${destination} eth0 ${text}\n`)
  }

  async stop(): Promise<void> {
    const ended = once(this.#child, 'exit')
    this.#child.stdin?.end()
    await ended
  }
}

/** A sniffer on one device: tells with which source a datagram came by. */
export class Wire {
  readonly stop: () => Promise<string>
  readonly #lines: AsyncIterator<string>
  #sent = 0

  private constructor(lines: AsyncIterator<string>, stop: () => Promise<string>) {
    this.#lines = lines
    this.stop = stop
  }

  static async watch(netns: string, device: string): Promise<Wire> {
    const { child, stop } = startInNetns(netns, python, '-uB', script, 'watch', device)
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]()
    const { value } = (await Promise.race([lines.next(), once(child, 'exit').then(() => ({ value: 'its end' }))])) as {
      value: string
    }
    if (value !== 'ready') throw new Error(`wire.py: ${value} where it should be ready`)
    return new Wire(lines, stop)
  }

  /** Sends a datagram, and returns the source that it has here. */
  async sourceOf(sender: Sender, source: string, destination: string): Promise<string> {
    const text = `datagram-${this.#sent++}`
    sender.send(source, destination, text)
    for (;;) {
      const next = await this.#lines.next()
      if (next.done === true) throw new Error('wire.py: it ended')
      const [seen, to, which] = next.value.split(' ')
      if (to === destination && which === text) return seen!
    }
  }
}
