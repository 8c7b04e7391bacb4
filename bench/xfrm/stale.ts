import { Overlay } from 'xfrmesh'
import type { Namespace } from '#dist/demo/namespace.js'
import type { Contestant, Scenario } from '../harness/contest.js'
import { floorOf } from '../harness/floor.js'
import { session, timedThread } from '../harness/sessions.js'
import { expectPolicies, KEYS, peerAddresses } from './common.js'
import { DockerNode } from './docker.js'
import { dumpRequests, messages, optionsOf } from './peers.js'

async function allThere(namespace: Namespace, size: number): Promise<void> {
  const states = await namespace.states()
  if (states !== size * (KEYS.length + 1)) throw new Error(`${states} SAs are there, not ${size * (KEYS.length + 1)}`)
  await expectPolicies(namespace, size)
}

async function nothingLeft(namespace: Namespace): Promise<void> {
  const left = [await namespace.states(), await namespace.policies()]
  if (left[0] !== 0 || left[1] !== 0) throw new Error(`${left.join(' SAs and ')} policies are left`)
}

const ours: Contestant = {
  name: 'xfrmesh',
  role: 'ours',
  open: async ({ netns }, size) => {
    const before = await Overlay.open({ ...optionsOf('per-peer'), netns })
    await before.setKeys(KEYS)
    await before.addPeers(peerAddresses(size))
    await before.close()
    const takeOver = async () => {
      await using overlay = await Overlay.open({ ...optionsOf('per-peer'), netns })
      await overlay.setKeys(KEYS)
      const { operations } = await overlay.addPeers(peerAddresses(size))
      if (operations > 0) throw new Error(`of what was there ${operations} objects were made anew`)
    }
    const clean = async () => {
      await using overlay = await Overlay.open({ ...optionsOf('per-peer'), netns })
      await overlay.reconcile()
    }
    return session({ 'take over': () => timedThread(takeOver), clean: () => timedThread(clean) })
  },
}

/** The reading alone, and the deletions: it knows what there is. */
async function floor(size: number): Promise<Contestant> {
  const { add, rotate, remove } = await messages('per-peer', size)
  const contestant = floorOf({ add, rotate, 'take over': dumpRequests(), clean: remove }, 'xfrm')
  const open: Contestant['open'] = async (namespace, n) => {
    const opened = await contestant.open(namespace, n)
    await opened.step('add')
    // The removals recorded are of what a rotation leaves: as many, of another key.
    await opened.step('rotate')
    return opened
  }
  return { ...contestant, open }
}

const docker: Contestant = {
  name: 'Go (Docker)',
  role: 'peer',
  open: async (namespace, size) => {
    const node = await DockerNode.start(namespace, size, KEYS)
    await node.addPeers()
    return session({ 'take over': () => node.compare(), clean: () => node.clean() }, () => node.end())
  },
}

/** What a daemon that starts anew finds of the one before: it is asked for again, or by nobody any more. */
export const stale: Scenario = {
  name: 'stale',
  title:
    'P peers with 3 keys, a policy each, left by a process that is gone: take them over; and, not asked for, find them and take them away',
  unit: 'peers',
  needsEsp: true,
  sizes: { quick: [300], full: [100, 1000] },
  long: true,
  steps: [
    {
      name: 'take over',
      operations: (size) => size * (KEYS.length + 2),
      check: allThere,
    },
    {
      name: 'clean',
      operations: (size) => size * (KEYS.length + 2),
      check: nothingLeft,
    },
  ],
  ours: [ours],
  others: async (size) => [await floor(size), docker],
}
