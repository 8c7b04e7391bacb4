import { join } from 'node:path'
import { NodeEncryption, parseKeys, type RemoteNode } from 'xfrmesh/node'
import type { Contestant, Scenario } from '../harness/contest.js'
import { LineProgram, session, timed } from '../harness/sessions.js'

const program = join(import.meta.dirname, '../../../build/peers/node')

const BOOT = '00000000-0000-4000-8000-000000000001'
const FIRST_KEY = 3

/** As bench/peers/node.go has them. */
function keys(id: number): ReturnType<typeof parseKeys> {
  const hex = Array.from({ length: 20 }, (_, i) => (id * 16 + i).toString(16).padStart(2, '0')).join('')
  return parseKeys(`${id} rfc4106(gcm(aes)) ${hex} 128`)
}

function nodes(size: number): RemoteNode[] {
  return Array.from({ length: size }, (_, i) => {
    const id = i + 1
    const [high, low] = [id >> 8, id & 255]
    return {
      name: `node${id}`,
      id,
      addresses: [`10.200.${high}.${low}`, `fd00:200::${high.toString(16)}:${low.toString(16)}`],
      subnets: [`11.${high}.${low}.0/24`, `fd01:${id.toString(16)}::/64`],
      bootId: BOOT,
    }
  })
}

/** Policies that are no node's: in each family what drops, what lets in, and what lets through. */
const SHARED = 6

const counts =
  (states: number, policies: number): Scenario['steps'][number]['check'] =>
  async (namespace, size) => {
    const there = { states: await namespace.states(), policies: (await namespace.policies()) - SHARED }
    if (there.states !== states * size || there.policies !== policies * size) {
      throw new Error(`${there.states} SAs and ${there.policies} policies of ${size} nodes are there`)
    }
  }

/** Cilium's work, whole: tunnels to nodes over both families, a rotation, and their end. */
export const nodesScenario: Scenario = {
  name: 'nodes',
  title: 'N nodes, IPv4 and IPv6, marks as Cilium: upsert, rotate (prepare, commit, reclaim), remove',
  unit: 'nodes',
  needsEsp: true,
  sizes: { quick: [50], full: [100, 1000] },
  mostRounds: (size) => (size > 100 ? 1 : 11),
  steps: [
    { name: 'upsert', operations: (size) => size * 6, check: counts(4, 2) },
    { name: 'rotate', operations: (size) => size * 12, check: counts(4, 2) },
    { name: 'remove', operations: (size) => size * 6, check: counts(0, 0) },
  ],
  contestants: () => Promise.resolve([ours, cilium]),
}

const ours: Contestant = {
  name: 'xfrmesh',
  role: 'ours',
  open: async ({ netns }, size) => {
    const encryption = await NodeEncryption.open({
      local: { addresses: ['10.100.0.1', 'fd00:100::1'], bootId: BOOT },
      keys: keys(FIRST_KEY),
      marks: 'cilium',
      netns,
      timeoutMs: 600_000,
    })
    const all = nodes(size)
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

const cilium: Contestant = {
  name: 'Go (list, then add)',
  role: 'peer',
  open: (namespace, size) => {
    const agent = LineProgram.start(namespace, program, [])
    const tell = (op: string) => () => agent.tell(JSON.stringify({ op, count: size }))
    return Promise.resolve(
      session({ upsert: tell('upsert'), rotate: tell('rotate'), remove: tell('remove') }, () => agent.end()),
    )
  },
}
