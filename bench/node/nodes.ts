import { join } from 'node:path'
import type { Namespace } from '#dist/demo/namespace.js'
import { NodeEncryption, parseKeys, type RemoteNode } from 'xfrmesh/node'
import type { Contestant, Scenario } from '../harness/contest.js'
import { kept, LineProgram, session, timed } from '../harness/sessions.js'

const program = join(import.meta.dirname, '../../../build/peers/node')

const BOOT = '00000000-0000-4000-8000-000000000001'
const FIRST_KEY = 3
const LOCAL = ['10.100.0.1', 'fd00:100::1']
/** What this node's pods have, where ranges are the selectors. */
const PODS = ['10.99.0.0/24', 'fd00:99::/64']

/** As bench/peers/node.go has them. */
function keys(id: number): ReturnType<typeof parseKeys> {
  const hex = Array.from({ length: 20 }, (_, i) => (id * 16 + i).toString(16).padStart(2, '0')).join('')
  return parseKeys(`${id} rfc4106(gcm(aes)) ${hex} 128`)
}

const nodes = kept((size): (RemoteNode & { id: number })[] =>
  Array.from({ length: size }, (_, i) => {
    const id = i + 1
    const [high, low] = [id >> 8, id & 255]
    const last = `${high > 0 ? `${high.toString(16)}:` : ''}${low.toString(16)}`
    return {
      name: `node${id}`,
      id,
      addresses: [`10.200.${high}.${low}`, `fd00:200::${last}`],
      subnets: [`11.${high}.${low}.0/24`, `fd01:${id.toString(16)}::/64`],
      bootId: BOOT,
    }
  }),
)

/** Policies that are no node's: in each family what drops, what lets in, and what lets through. */
const SHARED = 6

/** Looks at what `ip` shows: the number of SAs and policies, and when thorough each SA's ends, SPI and mark. */
const present =
  (keyId: number): Scenario['steps'][number]['check'] =>
  async (namespace, size, thorough) => {
    await expectCounts(namespace, 4 * size, 2 * size)
    if (!thorough) return
    const shown = await namespace.run('ip', ['xfrm', 'state', 'list', 'nokeys'])
    const pattern = /^src (\S+) dst (\S+)\n\s+proto esp spi (\S+) .*\n(?:\s.*\n)*?\s+mark (\S+) /gm
    const there = new Set(Array.from(shown.matchAll(pattern), ([, ...words]) => words.join(' ')))
    const spi = `0x${keyId.toString(16).padStart(8, '0')}`
    for (const { id, name, addresses } of nodes(size)) {
      for (const [family, far] of addresses.entries()) {
        const out = `${LOCAL[family]!} ${far} ${spi} 0x${((id << 16) | (keyId << 12) | 0xe00).toString(16)}/0xffffff00`
        const back = `${far} ${LOCAL[family]!} ${spi} 0x${((id << 16) | 0xd00).toString(16)}/0xffff0f00`
        for (const one of [out, back]) if (!there.has(one)) throw new Error(`${name}: there is no SA ${one}`)
      }
    }
  }

/**
 * The same without marks; when thorough for each node of each family two SAs under that key, three policies, and its range in
 * the guard.
 */
const presentGuarded =
  (keyId: number): Scenario['steps'][number]['check'] =>
  async (namespace, size, thorough) => {
    await expectCounts(namespace, 4 * size, 6 * size, 0)
    if (!thorough) return
    const states = await namespace.run('ip', ['xfrm', 'state', 'list', 'nokeys'])
    const under = states.matchAll(/^src (\S+) dst (\S+)\n\s+proto esp spi 0x[\da-f]{7}([\da-f]) /gm)
    const policies = await namespace.run('ip', ['xfrm', 'policy'])
    const there = new Set([
      ...Array.from(under, ([, ...words]) => words.join(' ')),
      ...Array.from(policies.matchAll(/^src (\S+) dst (\S+).*\n\s+dir (\S+) /gm), ([, ...words]) => words.join(' ')),
    ])
    const guard = await Promise.all(
      ['remote4', 'remote6'].map((set) => namespace.run('nft', ['list', 'set', 'inet', 'xfrmesh_node', set])),
    )
    for (const { name, addresses, subnets } of nodes(size)) {
      for (const [family, far] of addresses.entries()) {
        const [here, ours, theirs, key] = [LOCAL[family]!, PODS[family]!, subnets![family]!, keyId.toString(16)]
        const ends = [`${here} ${far} ${key}`, `${far} ${here} ${key}`]
        const ways = [`${ours} ${theirs} out`, `${theirs} ${ours} in`, `${theirs} ${ours} fwd`]
        for (const one of [...ends, ...ways]) if (!there.has(one)) throw new Error(`${name}: there is no ${one}`)
      }
    }
    // One after the other they are one range.
    const [first, last] = [nodes(size)[0]!, nodes(size).at(-1)!]
    const start = first.subnets![0]!.replace('/24', '')
    const end = last.subnets![0]!.replace('0/24', '255')
    if (!guard[0]!.includes(`${start}-${end}`) || !guard[1]!.includes(last.subnets![1]!)) {
      throw new Error(`the guard lacks ranges: ${guard.join('')}`)
    }
  }

async function expectCounts(
  namespace: Namespace,
  states: number,
  policies: number,
  shared: number = SHARED,
): Promise<void> {
  const there = [await namespace.states(), (await namespace.policies()) - shared]
  if (there[0] === states && there[1] === policies) return
  throw new Error(`${there[0]} SAs and ${there[1]} policies of nodes are there, not ${states} and ${policies}`)
}

/**
 * Of so many nodes Go does one as Cilium does, on the clock, where it takes part at every size: its lists make the time grow
 * with the square of the nodes. Where it does all of them too, the two columns tell what that is worth: at 200 nodes,
 * counted, the sample came to 1.02 of the whole upsert, 0.98 of the rotation, 1.10 of the removal.
 */
const EVERY = 20
/** Nodes up to which Go does them all: it takes some seconds of the lab's own clock at 100, and ten minutes at 1,000. */
const MOST_WHOLE = 200

/**
 * Cilium's work, whole: tunnels to nodes over both families, a rotation, and their end.
 *
 * Of our time most is JavaScript's: records, and a key derived by SHA-256 for each SA that is added. The kernel itself took
 * 30 to 80 µs an operation from 50 nodes to 500, counted, though all inbound SAs have one destination and SPI here, and so
 * one chain of its hash.
 */
export const nodesScenario: Scenario = {
  name: 'nodes',
  title: 'N nodes, IPv4 and IPv6, marks as Cilium: upsert, rotate (prepare, commit, reclaim), remove',
  unit: 'nodes',
  needsEsp: true,
  sizes: { quick: [40], full: [100, 1000] },
  long: true,
  mostRounds: (size) => (size > 100 ? 3 : 11),
  steps: [
    { name: 'upsert', operations: (size) => size * 6, check: present(FIRST_KEY) },
    { name: 'rotate', operations: (size) => size * 12, check: present(FIRST_KEY + 1) },
    { name: 'remove', operations: (size) => size * 6, check: (namespace) => expectCounts(namespace, 0, 0) },
  ],
  ours: [ours('cilium')],
  others: () => Promise.resolve([{ ...cilium(1), most: MOST_WHOLE }, cilium(EVERY)]),
}

/**
 * The same tunnels with ranges as selectors, and their guard, for which there is nothing to compare with: three policies a node
 * and family in place of one.
 */
export const guardedNodes: Scenario = {
  name: 'nodes-guarded',
  title:
    'N nodes, IPv4 and IPv6, ranges as selectors, and the guard: upsert, rotate (prepare, commit, reclaim), remove',
  unit: 'nodes',
  needsEsp: true,
  sizes: { quick: [40], full: [100, 1000] },
  long: true,
  mostRounds: (size) => (size > 100 ? 3 : 11),
  steps: [
    { name: 'upsert', operations: (size) => size * 10, check: presentGuarded(FIRST_KEY) },
    { name: 'rotate', operations: (size) => size * 10, check: presentGuarded(FIRST_KEY + 1) },
    { name: 'remove', operations: (size) => size * 10, check: (namespace) => expectCounts(namespace, 0, 0, 0) },
  ],
  ours: [ours(false)],
  others: () => Promise.resolve([]),
}

function ours(marks: false | 'cilium'): Contestant {
  return {
    name: 'xfrmesh',
    role: 'ours',
    open: async ({ netns }, size) => {
      const encryption = await NodeEncryption.open({
        local: { addresses: LOCAL, bootId: BOOT, ...(marks === false && { subnets: PODS }) },
        keys: keys(FIRST_KEY),
        marks,
        netns,
        timeoutMs: 600_000,
      })
      // Node ids are for marks.
      const all = nodes(size).map(({ id, ...node }) => (marks === false ? node : { ...node, id }))
      const next = keys(FIRST_KEY + 1)
      const rotate = async () => {
        await encryption.prepare(next)
        await encryption.commit()
        await encryption.reclaim({ after: 0 })
      }
      return session(
        {
          upsert: () => timed(() => encryption.upsert(all)),
          rotate: () => timed(rotate),
          remove: () => timed(() => encryption.remove(all.map(({ name }) => name))),
        },
        () => encryption.close(),
      )
    },
  }
}

/** @param every of so many nodes one is done with lists, and on the clock, and its time is counted so many times */
function cilium(every: number): Contestant {
  return {
    name: every === 1 ? 'Go (list, then add)' : `Go, 1 node in ${every} timed, times ${every}`,
    role: 'peer',
    mostRounds: (size) => (size > 100 ? 1 : 11),
    open: (namespace, count) => {
      const agent = LineProgram.start(namespace, program, [])
      const tell = (op: string) => () => agent.tell(JSON.stringify({ op, count, every }))
      return Promise.resolve(
        session({ upsert: tell('upsert'), rotate: tell('rotate'), remove: tell('remove') }, () => agent.end()),
      )
    },
  }
}
