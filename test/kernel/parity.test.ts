/** What an Overlay leaves in the kernel is what Docker's calls leave there. */
import { describe, expect, test } from 'vitest'
import { Overlay } from '../../lib/index.js'
import { Docker, type DockerKey } from './docker.js'
import { inNetns, withNetns } from './netns.js'

const DOCKER_MARK = 0xd0c4e3
const PEERS = 50

const key = (tag: number): DockerKey => ({ tag, value: Uint8Array.from({ length: 16 }, (_, i) => tag * 16 + i) })

/** The objects that `ip xfrm` lists, with limits and counters, but without times and the kernel's running numbers, sorted. */
async function listed(netns: string, kind: 'state' | 'policy'): Promise<string[]> {
  const text = await inNetns(netns, 'ip', '-s', 'xfrm', kind)
  return text
    .split(/^(?=src )/m)
    .filter((object) => object !== '')
    .map((object) => object.replace(/ add \S+ \S+ use .*/g, '').replace(/ index \d+/g, ''))
    .sort()
}

const states = (netns: string) => listed(netns, 'state')
const policies = (netns: string) => listed(netns, 'policy')

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
          const [expectedStates, expectedPolicies] = [await states(theirs), await policies(theirs)]
          expect({ states: expectedStates.length, policies: expectedPolicies.length }).toEqual(counts)
          expect(await states(ours)).toEqual(expectedStates)
          expect(await policies(ours)).toEqual(expectedPolicies)
        }

        const keys = [key(1), key(2), key(3)]
        await docker.run({ op: 'setKeys', keys })
        await overlay.setKeys(keys)
        await same({ states: 0, policies: 0 })

        await docker.run({ op: 'addPeers', peers })
        await overlay.addPeers(peers)
        await same({ states: PEERS * 4, policies: PEERS })

        await docker.run({ op: 'updateKeys', add: key(4) })
        await overlay.updateKeys({ add: key(4) })
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
