import { Masquerade, type Attachment, type Layout, type MasqueradeChange } from 'xfrmesh/masquerade'
import type { Contestant, Scenario, Step } from '../harness/contest.js'
import { nftFloor } from '../harness/recording.js'
import { kept, session, timed } from '../harness/sessions.js'
import { attachment, expectMappings } from './mappings.js'
import { goPlugins, nftPlugins, otherWrites } from './plugins.js'

/** One in so many has gone by the time of the collection. */
const STALE = 100

/** Who comes and goes, all by the number of the container. */
const single = (size: number) => ({
  added: size,
  removed: Math.floor(size / 2),
  /** By another writer, whom nobody told of. */
  others: [size + 1, size + 3] as const,
  addedLate: size + 2,
  removedLate: Math.floor(size / 3),
})

const range = kept((size): Attachment[] => Array.from({ length: size }, (_, index) => attachment(index)))
const isStale = (index: number, size: number) => index < size && index % STALE === STALE - 1

/** Containers by number, after so many steps. */
function left(size: number, steps: number): number[] {
  const { added, removed, others, addedLate, removedLate } = single(size)
  const there = new Set(Array.from({ length: size }, (_, index) => index))
  const changes = [
    () => undefined,
    () => there.add(added),
    () => there.delete(removed),
    () => there.add(others[0]).add(addedLate),
    () => there.add(others[1]).delete(removedLate),
    () => {
      for (const index of there) if (isStale(index, size)) there.delete(index)
    },
  ]
  for (const change of changes.slice(0, steps)) change()
  return [...there]
}

/** What there is to do at a size. */
export interface Work {
  loaded(size: number): Attachment[]
  /** Who stays when what is stale is collected. */
  valid(size: number): Attachment[]
  single: typeof single
}

const work: Work = { loaded: range, valid: kept((size) => left(size, 6).map(attachment)), single }

const check =
  (done: number): Step['check'] =>
  async (namespace, size, thorough) => {
    // To list 10,000 rules takes longer than all steps: what all have left tells of each.
    if (thorough || done === 6) await expectMappings(namespace, left(size, done).map(attachment))
  }

const steps: readonly Step[] = [
  { name: 'load', operations: (size) => size, check: check(1) },
  { name: 'add one', operations: () => 1, check: check(2) },
  { name: 'remove one', operations: () => 1, check: check(3) },
  {
    name: 'add one, others wrote',
    operations: () => 1,
    before: (namespace, size) => otherWrites(namespace, single(size).others[0]),
    check: check(4),
  },
  {
    name: 'remove one, others wrote',
    operations: () => 1,
    before: (namespace, size) => otherWrites(namespace, single(size).others[1]),
    check: check(5),
  },
  { name: 'collect', operations: (size) => Math.floor(size / STALE), check: check(6) },
]

function ours(layout: Layout): Contestant {
  return {
    name: `xfrmesh, '${layout}'`,
    role: 'ours',
    open: async ({ netns }, size) => {
      const masquerade = await Masquerade.open({ netns, layout, timeoutMs: 600_000 })
      const doing = (call: () => Promise<MasqueradeChange>) => () => timed(call)
      const [all, valid] = [work.loaded(size), work.valid(size)]
      const { added, removed, addedLate, removedLate } = work.single(size)
      const [first, second] = [attachment(added), attachment(addedLate)]
      return session(
        {
          load: doing(() => masquerade.add(all)),
          'add one': doing(() => masquerade.add([first])),
          'remove one': doing(() => masquerade.remove([all[removed]!])),
          'add one, others wrote': doing(() => masquerade.add([second])),
          'remove one, others wrote': doing(() => masquerade.remove([all[removedLate]!])),
          collect: doing(() =>
            masquerade.collect(
              first.network,
              valid.map(({ interfaceName, containerId }) => ({ interfaceName, containerId })),
            ),
          ),
        },
        () => masquerade.close(),
      )
    },
  }
}

function scenario(layout: Layout, full: readonly number[], peers: readonly ((work: Work) => Contestant)[]): Scenario {
  return {
    name: `masquerade-${layout}`,
    title: `N mappings in the layout '${layout}': load, add and remove one, the same after others wrote, collect 1 in ${STALE}`,
    unit: 'mappings',
    needsEsp: false,
    sizes: { quick: [1000], full },
    steps,
    ours: [ours(layout)],
    others: async (size) => [await nftFloor(steps, ours(layout), size), ...peers.map((peer) => peer(work))],
  }
}

/** CNI's masquerading: as the plugins' rules, and as a map. Peers make the rules in both. */
export const masquerading: readonly Scenario[] = [
  scenario('rules', [100, 1000, 10_000], [nftPlugins, goPlugins]),
  scenario('set', [100, 1000, 10_000, 100_000], [nftPlugins]),
]
