import { setTimeout as sleep } from 'node:timers/promises'
import type { Namespace } from '#dist/demo/namespace.js'

export type Protocol = 'tcp' | 'udp'

const PORT = 5201
const IPV4_HEADER = 20
const UDP_HEADER = 8
/** Seconds beyond its own time that a client may take to end: where large packets are lost, it waits for ever. */
const PATIENCE = 3
/** How `timeout` says that it ended what it ran. */
const OUT_OF_TIME = 124

/** What iperf3's receiver had. */
export interface Received {
  bytes: number
  seconds: number
  /** TCP: segments sent again. */
  retransmits: number
  /** UDP: datagrams that never came, in hundredths. */
  lostPercent: number
}

interface Sum {
  bytes: number
  seconds: number
  packets?: number
  lost_packets?: number
}

/** What iperf3 prints with --json, as far as it came. */
interface Report {
  error?: string
  intervals?: { sum: Sum }[]
  end?: { sum_sent?: { retransmits?: number } }
}

/** Sends as fast as it goes for that many seconds; UDP in datagrams that fill a link's packets. */
export async function iperf(
  from: Namespace,
  to: Namespace,
  address: string,
  protocol: Protocol,
  { seconds, mtu }: { seconds: number; mtu: number },
): Promise<Received> {
  const server = to.start('iperf3', ['--server', '--one-off', '--json'])
  while ((await to.run('ss', ['-Hltn', `sport = :${PORT}`])) === '') await sleep(20)
  const datagrams = ['--udp', '--bitrate', '0', '--length', String(mtu - IPV4_HEADER - UDP_HEADER)]
  const words = ['--client', address, '--time', String(seconds), '--json', ...(protocol === 'udp' ? datagrams : [])]
  const client = await from.start('timeout', [String(seconds + PATIENCE), 'iperf3', ...words]).ended
  server.child.kill('SIGTERM')
  if (client.status !== 0 && client.status !== OUT_OF_TIME) {
    throw new Error(`iperf3: status ${client.status}: ${client.errors}${parsed(client.output).error ?? ''}`)
  }
  const { intervals = [] } = parsed((await server.ended).output)
  const total = (part: (sum: Sum) => number | undefined) =>
    intervals.reduce((all, { sum }) => all + (part(sum) ?? 0), 0)
  const packets = total((sum) => sum.packets)
  const lost = total((sum) => signed(sum.lost_packets ?? 0))
  return {
    bytes: total((sum) => sum.bytes),
    seconds: total((sum) => sum.seconds) || seconds,
    retransmits: parsed(client.output).end?.sum_sent?.retransmits ?? 0,
    lostPercent: packets === 0 ? 0 : (100 * Math.max(0, lost)) / packets,
  }
}

/** In an interval in which more came late than was missing, iperf3 counts less than none lost, as an unsigned number. */
function signed(count: number): number {
  return count >= 2 ** 63 ? count - 2 ** 64 : count
}

/** Whoever was ended early may have said nothing. */
function parsed(text: string): Report {
  try {
    return JSON.parse(text) as Report
  } catch {
    return {}
  }
}
