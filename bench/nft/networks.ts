import { join } from 'node:path'
import type { Namespace } from '#dist/demo/namespace.js'
import { Overlay } from 'xfrmesh'
import { few, inNamespace } from '../harness/round.js'
import type { Contestant, Scenario, Step } from '../harness/contest.js'
import { keepFile } from '../harness/files.js'
import { nftFloor } from '../harness/recording.js'
import { LineProgram, session, timed } from '../harness/sessions.js'

/** The Overlay's guard of encrypted networks: a table of nftables with a set of VNIs. It takes no ESP. */

const MARK = 0x58464d
const TABLE = `xfrmesh_${MARK.toString(16)}`
const SET = 'encrypted-vnis'
const FIRST = 4096

const networksOf = (size: number): number[] => Array.from({ length: size }, (_, i) => FIRST + i)
/** One more, and one of those that are there. */
const single = (size: number) => ({ added: FIRST + size, removed: FIRST + Math.floor(size / 2) })

/**
 * The VNIs that `nft` lists; undefined if there is no such table. While the set's hash table grows, the kernel tells some
 * twice and leaves out others: until none comes twice.
 */
async function listed(namespace: Namespace): Promise<Set<number> | undefined> {
  for (;;) {
    const said = await namespace.run('nft', ['-j', 'list', 'ruleset'])
    const { nftables } = JSON.parse(said) as { nftables: { set?: { table: string; name: string; elem?: number[] } }[] }
    const set = nftables.find((one) => one.set?.table === TABLE && one.set.name === SET)?.set
    if (set === undefined) return undefined
    const vnis = new Set(set.elem)
    if (vnis.size === (set.elem?.length ?? 0)) return vnis
  }
}

const check =
  (expected: (size: number) => number[] | undefined): Step['check'] =>
  async (namespace, size) => {
    const [there, wanted] = [await listed(namespace), expected(size)]
    if ((there === undefined) !== (wanted === undefined)) throw new Error(`the table is ${there ? 'there' : 'missing'}`)
    const missing = wanted?.filter((vni) => !there!.has(vni)) ?? []
    if (missing.length > 0) throw new Error(`${missing.length} networks are missing, ${missing[0]} for one`)
    if (there?.size !== wanted?.length) throw new Error(`${there!.size} networks are there, not ${wanted!.length}`)
  }

const steps: readonly Step[] = [
  { name: 'add', operations: (size) => size, check: check(networksOf) },
  {
    name: 'add one',
    operations: () => 1,
    check: check((size) => networksOf(size + 1)),
  },
  {
    name: 'remove one',
    operations: () => 1,
    check: check((size) => networksOf(size + 1).filter((vni) => vni !== single(size).removed)),
  },
  { name: 'remove', operations: (size) => size, check: check(() => undefined) },
]

const ours: Contestant = {
  name: 'xfrmesh',
  role: 'ours',
  open: async ({ netns }, size) => {
    const overlay = await Overlay.open({ local: '10.100.0.1', mark: MARK, netns, timeoutMs: 600_000 })
    const { added, removed } = single(size)
    const all = networksOf(size)
    const left = networksOf(size + 1).filter((vni) => vni !== removed)
    return session(
      {
        add: () => timed(() => overlay.addNetworks(all)),
        'add one': () => timed(() => overlay.addNetworks([added])),
        'remove one': () => timed(() => overlay.removeNetworks([removed])),
        remove: () => timed(() => overlay.removeNetworks(left)),
      },
      () => overlay.close(),
    )
  },
}

/** The table as `nft` prints it with these networks: what is fed to `nft -f` makes the same. */
function tableText(all: readonly number[]): Promise<string> {
  return inNamespace(async (namespace) => {
    const overlay = await Overlay.open({ local: '10.100.0.1', mark: MARK, netns: namespace.netns, timeoutMs: 600_000 })
    await overlay.addNetworks(all)
    await overlay.close()
    return namespace.run('nft', ['list', 'table', 'inet', TABLE])
  })
}

async function nft(size: number): Promise<Contestant> {
  const file = keepFile(await tableText(networksOf(size)))
  const { added, removed } = single(size)
  return {
    name: 'nft -f',
    role: 'peer',
    open: (namespace) => {
      const feed = (input: string) => () => timed(() => namespace.run('nft', ['-f', '-'], { input }))
      return Promise.resolve(
        session({
          add: () => timed(() => namespace.run('nft', ['-f', file])),
          'add one': feed(`add element inet ${TABLE} ${SET} { ${added} }`),
          'remove one': feed(`delete element inet ${TABLE} ${SET} { ${removed} }`),
          remove: feed(`delete table inet ${TABLE}`),
        }),
      )
    },
  }
}

const program = join(import.meta.dirname, '../../../build/peers/nftables')

/** The elements alone: the table, but for one network, is there before its clock starts. */
async function go(size: number): Promise<Contestant> {
  const [first, ...others] = networksOf(size)
  const text = keepFile(await tableText([first!]))
  const { added, removed } = single(size)
  return {
    name: 'Go (google/nftables), elements',
    role: 'peer',
    open: async (namespace) => {
      await namespace.run('nft', ['-f', text])
      const running = LineProgram.start(namespace, program, [])
      const tell = (op: string, vnis: readonly number[]) => {
        const line = JSON.stringify({ op, table: TABLE, set: SET, networks: vnis })
        return () => running.tell(line)
      }
      return session(
        {
          add: tell('addNetworks', others),
          'add one': tell('addNetworks', [added]),
          'remove one': tell('removeNetworks', [removed]),
          remove: tell('deleteTable', []),
        },
        () => running.end(),
      )
    },
  }
}

export const networks: Scenario = {
  name: 'networks',
  title: 'N encrypted networks guarded by nftables: add, one more, one less, remove',
  unit: 'networks',
  needsEsp: false,
  sizes: { quick: [1000], full: [100, 1000, 10_000, 100_000] },
  steps,
  ours: [ours],
  others: async (size) => [
    await nftFloor(steps, ours, size),
    { ...(await nft(size)), mostRounds: few },
    { ...(await go(size)), mostRounds: few },
  ],
}
