/** What an Overlay leaves in the kernel is what Docker's calls leave there. */
import { describe, expect, test } from 'vitest'
import { Overlay } from '../../lib/index.js'
import { Docker } from './docker.js'
import { objects } from './dump.js'
import { keyOf } from './keys.js'
import { withNetns } from './netns.js'

const DOCKER_MARK = 0xd0c4e3
const PEERS = 50

describe.each([
  ['IPv4', '192.0.2.1', (n: number) => `198.51.100.${n}`],
  ['IPv6', '2001:db8::1', (n: number) => `2001:db8:1::${n.toString(16)}`],
])('over %s', (_, local, peer) => {
  test(`${PEERS} peers and 3 keys leave the SAs and policies that Docker does, at every step of a rotation`, () =>
    withNetns((theirs) =>
      withNetns(async (ours) => {
        await using docker = new Docker(theirs, local)
        await using overlay = await Overlay.open({ local, netns: ours, policies: 'per-peer', mark: DOCKER_MARK })
        const peers = Array.from({ length: PEERS }, (__, i) => peer(i + 1))

        /** Both now have as many objects, and the same. */
        const same = async (counts: { states: number; policies: number }) => {
          const [expectedStates, expectedPolicies] = [await objects(theirs, 'state'), await objects(theirs, 'policy')]
          expect({ states: expectedStates.length, policies: expectedPolicies.length }).toEqual(counts)
          expect(await objects(ours, 'state')).toEqual(expectedStates)
          expect(await objects(ours, 'policy')).toEqual(expectedPolicies)
        }

        const keys = [keyOf(1), keyOf(2), keyOf(3)]
        await docker.run({ op: 'setKeys', keys })
        await overlay.setKeys(keys)
        await same({ states: 0, policies: 0 })

        await docker.run({ op: 'addPeers', peers })
        await overlay.addPeers(peers)
        await same({ states: PEERS * 4, policies: PEERS })

        await docker.run({ op: 'updateKeys', add: keyOf(4) })
        await overlay.updateKeys({ add: keyOf(4) })
        await same({ states: PEERS * 5, policies: PEERS })

        await docker.run({ op: 'updateKeys', primary: 4 })
        await overlay.updateKeys({ primary: 4 })
        await same({ states: PEERS * 5, policies: PEERS })

        await docker.run({ op: 'updateKeys', prune: 1 })
        await overlay.updateKeys({ prune: 1 })
        await same({ states: PEERS * 4, policies: PEERS })

        const half = peers.filter((__, i) => i % 2 === 0)
        await docker.run({ op: 'removePeers', peers: half })
        await overlay.removePeers(half)
        await same({ states: PEERS * 2, policies: PEERS / 2 })
      }),
    ))
})
