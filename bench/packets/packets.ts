import type { Namespace } from '#dist/demo/namespace.js'
import { Masquerade, type Layout } from 'xfrmesh/masquerade'
import type { Contestant, Sample, Scenario, Session } from '../harness/contest.js'
import { session } from '../harness/sessions.js'
import { attachment } from '../masquerade/mappings.js'
import { Router, type Burst } from './router.js'

/** Packets that a time is counted by: so many are one size's and another's. */
const PACKETS = 1000
/** Sources that take turns where they are chosen at random. */
const RANDOM_SOURCES = 256

const addressOf = (index: number) => attachment(index).addresses[0]!.split('/')[0]!

/** Whose packets are sent, among so many mappings. Where there are none: somebody's who has none. */
const sources: Readonly<Record<'last' | 'middle' | 'random', (size: number) => string[]>> = {
  last: (size) => [addressOf(Math.max(0, size - 1))],
  middle: (size) => [addressOf(Math.floor(size / 2))],
  random: (size) => {
    const random = generator(size + 1)
    return Array.from({ length: RANDOM_SOURCES }, () => addressOf(size === 0 ? 0 : random(size)))
  },
}

/** Numbers below a bound, the same for the same seed (xorshift32). */
function generator(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

/** Step by step: the ports, and the sources. Rules of source NAT are looked up once for a connection. */
const bursts = {
  'new connections, last mapping': ['new', 'last'],
  'new connections, middle': ['new', 'middle'],
  'new connections, random': ['new', 'random'],
  'one connection, last mapping': ['same', 'last'],
} as const

/**
 * A router's throughput of small UDP packets. Each burst counts at the receiver what came with which address, by a counter
 * of `nft`: what is not translated as it should be, or lost, is no packet, and ends the run.
 */
export const packets: Scenario = {
  name: 'packets',
  title: `UDP packets of 18 bytes from one of N masqueraded addresses through a router, in times for ${PACKETS}`,
  unit: 'mappings',
  rate: 'packets a second',
  needsEsp: false,
  sizes: { quick: [1000], full: [0, 10, 100, 1000, 10_000] },
  mostRounds: () => 11,
  warmsOnce: true,
  steps: Object.keys(bursts).map((name) => ({
    name,
    operations: () => PACKETS,
    // Each burst has looked itself.
    check: () => Promise.resolve(),
  })),
  ours: [ours('set'), ours('rules')],
  others: () => Promise.resolve([single]),
}

function ours(layout: Layout): Contestant {
  return {
    name: `xfrmesh, '${layout}'`,
    role: 'ours',
    open: (namespace, size) =>
      routing(namespace, size, size > 0, async () => {
        await using masquerade = await Masquerade.open({ netns: namespace.netns, layout, timeoutMs: 600_000 })
        const all = Array.from({ length: Math.max(1, size) }, (_, index) => attachment(index))
        await masquerade.add(all)
        // What is left are the rules that all packets meet.
        if (size === 0) await masquerade.remove(all)
      }),
  }
}

/** The least that a router does that masquerades: one rule, for all. */
const single: Contestant = {
  name: 'one rule for all',
  role: 'floor',
  open: (namespace, size) =>
    routing(namespace, size, true, async () => {
      const input =
        'table ip nat { chain postrouting { type nat hook postrouting priority 100; ip saddr 10.0.0.0/8 masquerade; }; }'
      await namespace.run('nft', ['-f', '-'], { input })
    }),
}

async function routing(
  namespace: Namespace,
  size: number,
  translates: boolean,
  masquerade: () => Promise<void>,
): Promise<Session> {
  const router = await Router.open(namespace)
  try {
    await masquerade()
  } catch (error) {
    await router.close()
    throw error
  }
  const doing =
    ([kind, whose]: (typeof bursts)[keyof typeof bursts]) =>
    async () => {
      const all = sources[whose](size)
      await router.flush()
      // The first packet of a connection, and the way there as it is later.
      await router.burst(kind, all, 1)
      return sampleOf(await router.burst(kind, all), translates)
    }
  const steps = Object.entries(bursts).map(([name, burst]) => [name, doing(burst)] as const)
  return session(Object.fromEntries(steps), () => router.close())
}

/** A thousand packets' time. @throws Error unless nearly all arrived, all as they should */
function sampleOf({ sent, elapsedMs, translated, plain }: Burst, translates: boolean): Sample {
  const [right, wrong] = translates ? [translated, plain] : [plain, translated]
  if (wrong > 0 || right === 0 || right < sent * 0.99) {
    throw new Error(`of ${sent} packets ${translated} came with the router's address and ${plain} with their own`)
  }
  return { ms: (elapsedMs * PACKETS) / right, sent, lost: sent - right }
}
