import { Overlay } from 'xfrmesh'
import type { Contestant, Sample, Scenario } from '../harness/contest.js'
import { YesKernel } from '../harness/recording.js'
import { session } from '../harness/sessions.js'
import { KEYS, peerAddress } from './common.js'
import { doings, optionsOf, type PoliciesKind } from './peers.js'

/** SAs that each step adds or removes, for a peer. */
const STATES: Readonly<Record<string, number>> = { add: KEYS.length + 1, again: 0, rotate: 4, remove: KEYS.length + 1 }

/**
 * What an Overlay does of its own for P peers, on the JavaScript thread: addresses parsed, SPIs derived, the plan made,
 * records written, answers noted. The kernel's part is left out: each batch is answered at once, whole. So each step
 * itself counts what was handed over.
 */
export const records: Scenario = {
  name: 'records',
  title: 'P peers with 3 keys before a kernel that says yes at once: our own work alone',
  unit: 'peers',
  needsEsp: false,
  sizes: { quick: [10_000], full: [1000, 10_000, 100_000] },
  steps: Object.entries(STATES).map(([name, each]) => ({
    name,
    operations: (size) => size * Math.max(1, each),
    check: () => Promise.resolve(),
  })),
  ours: [ours('shared'), ours('per-peer')],
  others: () => Promise.resolve([]),
}

function ours(kind: PoliciesKind): Contestant {
  return {
    name: `xfrmesh, ${kind}`,
    role: 'ours',
    open: async (_, size) => {
      const overlay = Overlay.over(optionsOf(kind), new YesKernel(false).ports)
      await overlay.setKeys(KEYS)
      // The first of all peers has the Overlay ask the kernel for ESP.
      await overlay.addPeers([peerAddress(0)])
      await overlay.removePeers([peerAddress(0)])
      const steps = Object.entries(doings(overlay, size)).map(
        ([name, step]) => [name, () => counted(name, step, kind, size)] as const,
      )
      return session(Object.fromEntries(steps), () => overlay.close())
    },
  }
}

/** @throws Error if another number of operations was handed to the kernel than the step is of */
async function counted(name: string, step: () => Promise<Sample>, kind: PoliciesKind, size: number): Promise<Sample> {
  const sample = await step()
  const states = STATES[name]! * size
  const policies = states === 0 ? 0 : kind === 'per-peer' ? size : name === 'rotate' ? 0 : 1
  if (sample['operations'] !== states + policies) {
    throw new Error(`${String(sample['operations'])} operations, not ${states + policies}`)
  }
  return sample
}
