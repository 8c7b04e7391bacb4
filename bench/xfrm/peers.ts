import type { Namespace } from '#dist/demo/namespace.js'
import { Overlay, type OverlayOptions } from 'xfrmesh'
import { watchFromHere } from '../anatomy/watch.js'
import type { Contestant, Sample, Scenario } from '../harness/contest.js'
import { keepFile } from '../harness/files.js'
import { floorOf } from '../harness/floor.js'
import { YesKernel } from '../harness/recording.js'
import { session, timedThread } from '../harness/sessions.js'
import {
  type BenchKey,
  expectPolicies,
  forwardSpi,
  KEYS,
  LOCAL,
  MARK,
  NEXT_KEY,
  peerAddress,
  peerAddresses,
  PORT,
  reverseSpi,
} from './common.js'
import { DockerNode } from './docker.js'
import { ipBatch, type Lines, policyDeletion, policyLine, stateDeletion, stateLine } from './ip.js'

/** The keys after a rotation: a new one has come, the second encrypts, the first is gone. */
const rotation = { add: NEXT_KEY, primary: 2, prune: 1 }
const ROTATED: readonly BenchKey[] = [...KEYS.slice(1), NEXT_KEY]

export type PoliciesKind = NonNullable<OverlayOptions['policies']>

/** Docker's work, whole: SAs and policies of P peers with three keys. */
export const peers: readonly Scenario[] = (['shared', 'per-peer'] as const).map(scenario)

function scenario(kind: PoliciesKind): Scenario {
  const perPeer = kind === 'shared' ? 0 : 1
  const present = (keys: readonly BenchKey[], primary: number) => expected(kind, keys, primary)
  return {
    name: `peers-${kind}`,
    title: `P peers with 3 keys, ${kind === 'shared' ? 'one policy for all' : 'a policy each'}: add, add again, compare, rotate (add, primary, prune), remove`,
    unit: 'peers',
    needsEsp: true,
    sizes: { quick: [50], full: [100, 300, 1000, 3000, 10_000] },
    ...(kind === 'per-peer' && { long: true }),
    mostRounds: (size) => (size > 1000 ? 3 : 21),
    steps: [
      { name: 'add', operations: (size) => size * (KEYS.length + 1 + perPeer), check: present(KEYS, 1) },
      { name: 'again', operations: (size) => size, check: present(KEYS, 1) },
      { name: 'compare', operations: (size) => size, check: present(KEYS, 1) },
      // A key in, a key out, and the same of what encrypts.
      { name: 'rotate', operations: (size) => size * (4 + perPeer), check: present(ROTATED, 2) },
      {
        name: 'remove',
        operations: (size) => size * (KEYS.length + 1 + perPeer),
        check: async (namespace) => {
          const [states, policies] = [await namespace.states(), await namespace.policies()]
          if (states !== 0) throw new Error(`${states} SAs are left`)
          // One for all stays for those to come.
          if (policies > (kind === 'shared' ? 1 : 0)) throw new Error(`${policies} policies are left`)
        },
      },
    ],
    ours: [ours('xfrmesh', kind, false), ours('xfrmesh, boost', kind, true)],
    others: async (size) => [
      await floor(kind, size),
      docker,
      ...(kind === 'per-peer' ? [{ ...ipBatch(lines), without: ['again', 'compare'] }] : []),
    ],
  }
}

/** Looks at what `ip` shows: the number of SAs and policies, and when thorough each SA's addresses and SPI. */
function expected(kind: PoliciesKind, keys: readonly BenchKey[], primary: number): Scenario['steps'][number]['check'] {
  return async (namespace, size, thorough) => {
    const count = await namespace.states()
    if (count !== size * (keys.length + 1)) throw new Error(`${count} SAs are there, not ${size * (keys.length + 1)}`)
    const policies = await namespace.policies()
    // Docker's are one a peer in either contest.
    if (policies !== size && (kind === 'per-peer' || policies !== 1)) throw new Error(`${policies} policies are there`)
    if (policies === size && size > 1) await expectPolicies(namespace, size, thorough ? primary : undefined)
    if (thorough) await expectStates(namespace, size, keys, primary)
  }
}

async function expectStates(
  namespace: Namespace,
  size: number,
  keys: readonly BenchKey[],
  primary: number,
): Promise<void> {
  const shown = await namespace.run('ip', ['xfrm', 'state', 'list', 'nokeys'])
  const pattern = /^src (\S+) dst (\S+)\n\s+proto esp spi 0x([0-9a-f]+)/gm
  const there = new Set(
    Array.from(shown.matchAll(pattern), ([, from, to, spi]) => `${from} ${to} ${Number.parseInt(spi!, 16)}`),
  )
  for (let i = 0; i < size; i++) {
    const peer = peerAddress(i)
    const wanted = keys.map(({ tag }) => `${peer} ${LOCAL} ${reverseSpi(i, tag)}`)
    for (const name of [...wanted, `${LOCAL} ${peer} ${forwardSpi(i, primary)}`]) {
      if (!there.has(name)) throw new Error(`there is no SA ${name}`)
    }
  }
}

/** What each step is on an Overlay: also how the messages for the floor are had. */
export function doings(overlay: Overlay, size: number): Record<string, () => Promise<Sample>> {
  const all = peerAddresses(size)
  const reported = async (call: () => Promise<{ operations: number }>): Promise<Sample> => {
    let operations = 0
    const sample = await timedThread(async () => ({ operations } = await call()))
    return { ...sample, operations }
  }
  return {
    add: () => reported(() => overlay.addPeers(all)),
    again: () => reported(() => overlay.addPeers(all)),
    compare: async () => {
      const sample = await timedThread(async () => {
        const { added, updated, removed } = await overlay.reconcile()
        if (added + updated + removed > 0) throw new Error('it changed what was right')
      })
      return sample
    },
    rotate: () => reported(() => overlay.updateKeys(rotation)),
    remove: async () => {
      // They were added again.
      await overlay.removePeers(all)
      await watchFromHere()
      return reported(() => overlay.removePeers(all))
    },
  }
}

export const optionsOf = (kind: PoliciesKind): OverlayOptions => ({
  local: LOCAL,
  mark: MARK,
  port: PORT,
  policies: kind,
  firewall: 'none',
  timeoutMs: 600_000,
})

function ours(name: string, kind: PoliciesKind, boost: boolean): Contestant {
  return {
    name,
    role: 'ours',
    open: async ({ netns }, size) => {
      const overlay = await Overlay.open({ ...optionsOf(kind), netns, boost })
      await overlay.setKeys(KEYS)
      return session(doings(overlay, size), () => overlay.close())
    },
  }
}

/** What it need not ask the kernel for, the floor need not do. Of comparing it does the reading. */
async function floor(kind: PoliciesKind, size: number): Promise<Contestant> {
  return { ...floorOf({ ...(await messages(kind, size)), compare: dumpRequests() }, 'xfrm'), without: ['again'] }
}

/** A file of what asks for all SAs and all policies. */
export function dumpRequests(): string {
  return keepFile(dumpRequest(XFRM_MSG_GETSA), dumpRequest(XFRM_MSG_GETPOLICY))
}

// linux/netlink.h, linux/xfrm.h
const NLM_F_REQUEST_DUMP = 0x301
const XFRM_MSG_GETSA = 0x12
const XFRM_MSG_GETPOLICY = 0x15

/** A struct nlmsghdr, in the byte order of the machine: of all that there is. */
function dumpRequest(type: number): Uint8Array {
  const header = new Uint32Array(4)
  header[0] = header.byteLength
  new Uint16Array(header.buffer).set([type, NLM_F_REQUEST_DUMP], 2)
  return new Uint8Array(header.buffer)
}

/** The messages of ours, a file for each step. */
export async function messages(kind: PoliciesKind, size: number): Promise<Record<'add' | 'rotate' | 'remove', string>> {
  const kernel = new YesKernel(true)
  await using overlay = Overlay.over(optionsOf(kind), kernel.ports)
  await overlay.setKeys(KEYS)
  // The first of all peers has the Overlay ask the kernel for ESP.
  await overlay.addPeers([peerAddress(0)])
  await overlay.removePeers([peerAddress(0)])
  const steps = doings(overlay, size)
  const recorded = async (step: string) => {
    kernel.take()
    await steps[step]!()
    return kernel.take()
  }
  const add = await recorded('add')
  // What removes them takes them to have been added twice.
  await recorded('again')
  return { add, rotate: await recorded('rotate'), remove: await recorded('remove') }
}

const docker: Contestant = {
  name: 'Go (Docker)',
  role: 'peer',
  open: async (namespace, size) => {
    const node = await DockerNode.start(namespace, size, KEYS)
    const again = async () => {
      const sample = await node.addPeers()
      await node.removePeers()
      return sample
    }
    return session(
      {
        add: () => node.addPeers(),
        again,
        compare: () => node.compare(),
        rotate: () => node.updateKeys(rotation),
        remove: () => node.removePeers(),
      },
      () => node.end(),
    )
  },
}

/** The same in the words of ip-xfrm(8), in our order: what decrypts, what encrypts, and only then what goes. */
const lines: Lines = {
  add: (i) => [...KEYS.map((key) => stateLine(i, key, 'in')), stateLine(i, KEYS[0]!, 'out'), policyLine('add', i, 1)],
  rotate: (i) => [
    stateLine(i, NEXT_KEY, 'in'),
    stateLine(i, KEYS[1]!, 'out'),
    policyLine('update', i, 2),
    stateDeletion(i, 1, 'out'),
    stateDeletion(i, 1, 'in'),
  ],
  remove: (i) => [
    stateDeletion(i, 2, 'out'),
    ...ROTATED.map(({ tag }) => stateDeletion(i, tag, 'in')),
    policyDeletion(i),
  ],
}
