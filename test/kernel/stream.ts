import { setTimeout as sleep } from 'node:timers/promises'
import type { Namespace } from '../../lib/demo/namespace.js'
import type { Running } from '../../lib/demo/processes.js'

const SERVER_PORT = 5201

/** What became of a stream, by the receiver's account. */
export interface Streamed {
  datagrams: number
  /** That never came to the receiving socket. */
  lost: number
  /** That came, and found it full: an emulated machine may leave iperf3 no time to read. */
  overrun: number
}

/** An iperf3 at work: 5 Mbit/s of datagrams from one namespace to another, until it is stopped. */
export class Stream {
  readonly #to: Namespace
  readonly #server: Running
  readonly #client: Running

  private constructor(to: Namespace, server: Running, client: Running) {
    this.#to = to
    this.#server = server
    this.#client = client
  }

  static async start(from: Namespace, to: Namespace, address: string): Promise<Stream> {
    // Before all else on a machine that may be slow: it has to read as fast as datagrams come.
    const server = to.start('chrt', ['--fifo', '10', 'iperf3', '--server', '--one-off', '--json'])
    while ((await to.run('ss', ['-Hltn', `sport = :${SERVER_PORT}`])) === '') await sleep(50)
    const words = [
      '--client',
      address,
      '--udp',
      '--bitrate',
      '5M',
      '--length',
      '1000',
      '--window',
      '200K',
      '--time',
      '0',
    ]
    return new Stream(to, server, from.start('iperf3', words))
  }

  async stop(): Promise<Streamed> {
    this.#client.child.kill('SIGINT')
    const [{ output }] = await Promise.all([this.#server.ended, this.#client.ended])
    const { end } = JSON.parse(output) as { end: { sum?: { packets: number; lost_packets: number } } }
    if (end.sum === undefined) throw new Error(`iperf3: no sum in ${output}; ${this.#client.errors()}`)
    const overrun = await this.#overrun()
    // iperf3 counts gaps: what found the socket full at the very end left none.
    return { datagrams: end.sum.packets, lost: Math.max(0, end.sum.lost_packets - overrun), overrun }
  }

  /** UDP's count of datagrams that found a socket's buffer full (RFC 4113's counters as Linux extends them). */
  async #overrun(): Promise<number> {
    const lines = (await this.#to.run('cat', ['/proc/net/snmp'])).split('\n').filter((line) => line.startsWith('Udp: '))
    const [names, counts] = lines.map((line) => line.split(' '))
    return Number(counts![names!.indexOf('RcvbufErrors')])
  }
}
