import type { Namespace } from './namespace.js'
import { CommandError, type Running } from './processes.js'

export interface Pinged {
  sent: number
  received: number
  lost: number
}

export interface PingOptions {
  /** Default: 3. */
  count?: number
  /** Default: 200. Below 2 ms ping floods. */
  intervalMs?: number
  /** How long an answer may take, the last one's included. Default: 1000. */
  timeoutMs?: number
}

/** Sends pings and waits for their answers. None that come are no error. @throws CommandError */
export async function ping(from: Namespace, to: string, options: PingOptions = {}): Promise<Pinged> {
  const { count = 3, intervalMs = 200, timeoutMs = 1000 } = options
  const args = ['-n', '-q', '-c', String(count), '-i', String(intervalMs / 1000), '-W', String(timeoutMs / 1000), to]
  const said = await from.run('ping', args, { statuses: [0, 1] })
  const [, sent, received] = /(\d+) packets transmitted, (\d+) received/.exec(said) ?? []
  if (sent === undefined || received === undefined) throw new Error(`ping ${to}: no summary in ${JSON.stringify(said)}`)
  return tally(Number(sent), Number(received))
}

/** ICMP's sequence numbers are 16 bits wide. */
const WRAP = 16

/** A ping that goes on until it is stopped. */
export class RunningPing {
  readonly #running: Running
  readonly #args: readonly string[]
  readonly #answered = new Set<number>()
  #last = 0
  #read = 0

  private constructor(running: Running, args: readonly string[]) {
    this.#running = running
    this.#args = args
    running.child.stdout?.on('data', () => {
      this.#note()
    })
  }

  /** @param options `intervalMs`: default 10 */
  static start(from: Namespace, to: string, { intervalMs = 10 }: { intervalMs?: number } = {}): RunningPing {
    const args = ['-n', '-i', String(intervalMs / 1000), to]
    return new RunningPing(from.start('ping', args), args)
  }

  /** Packets answered so far. */
  get received(): number {
    return this.#answered.size
  }

  /**
   * Says what came of the packets sent until now, each of which has `timeoutMs` to be answered in, and ends it. (ping
   * itself, interrupted, would call the last one lost, whose answer is under way.)
   */
  async stop({ timeoutMs = 2000 }: { timeoutMs?: number } = {}): Promise<Pinged> {
    const sent = await this.#sent()
    const deadline = performance.now() + timeoutMs
    while (this.#answeredOf(sent) < sent && performance.now() < deadline) await this.#moment()
    this.#running.child.kill('SIGINT')
    await this.#running.ended
    return tally(sent, this.#answeredOf(sent))
  }

  /** Packets sent so far: ping tells, asked with SIGQUIT. */
  async #sent(): Promise<number> {
    const from = this.#running.errors().length
    this.#running.child.kill('SIGQUIT')
    for (;;) {
      const said = /\d+\/(\d+) packets/.exec(this.#running.errors().slice(from))
      if (said !== null) return Number(said[1])
      await this.#moment()
    }
  }

  /** Waits for a while, or throws if ping has ended of itself. */
  async #moment(): Promise<void> {
    const ended = await Promise.race([
      this.#running.ended,
      new Promise<undefined>((resolve) => setTimeout(resolve, 10, undefined)),
    ])
    if (ended !== undefined) throw new CommandError('ping', this.#args, ended.status, ended.errors)
  }

  #note(): void {
    const text = this.#running.output()
    const end = text.lastIndexOf('\n') + 1
    for (const [, digits] of text.slice(this.#read, end).matchAll(/ bytes from .* icmp_seq=(\d+)/g)) {
      const ahead = ((Number(digits) - this.#last) << (32 - WRAP)) >> (32 - WRAP)
      this.#answered.add(this.#last + ahead)
      this.#last = Math.max(this.#last, this.#last + ahead)
    }
    this.#read = Math.max(this.#read, end)
  }

  #answeredOf(sent: number): number {
    let count = 0
    for (const sequence of this.#answered) if (sequence <= sent) count++
    return count
  }
}

function tally(sent: number, received: number): Pinged {
  return { sent, received, lost: sent - received }
}
