/** A host programmed by xfrmesh and one programmed by Docker's calls are peers like any other. */
import { expect, test } from 'vitest'
import type { Host } from '../../lib/demo/hosts.js'
import { ping, RunningPing } from '../../lib/demo/ping.js'
import { cleartext, stopAll } from '../../lib/demo/sniffer.js'
import { Docker, type DockerCommand } from './docker.js'
import { keyOf } from './keys.js'
import { inner, linkAll, PORT, Taps, VNI, withFabric } from './mesh.js'

/** What Docker's iptables rules do: mark what is to be encrypted, take in nothing that no SA brought. */
const dockerRules = `table inet docker {
  chain marking { type route hook output priority mangle; udp dport ${PORT} @th,96,24 ${VNI} meta mark set 0xd0c4e3; }
  chain guarding { type filter hook input priority filter; udp dport ${PORT} @th,96,24 ${VNI} meta secpath missing drop; }
}
`

test.each([4, 6] as const)('traffic passes both ways before, during and after a rotation, over IPv%i', (family) =>
  withFabric({ hosts: 2, family }, async (fabric, open) => {
    const [ours, theirs] = fabric.hosts as [Host, Host]
    await linkAll(fabric, [VNI])
    const overlay = await open(ours)
    await overlay.addNetworks([VNI])
    await theirs.run('nft', ['-f', '-'], { input: dockerRules })
    await using docker = new Docker(theirs.netns, theirs.address)
    const keys = [keyOf(1), keyOf(2)]
    await overlay.setKeys(keys)
    await overlay.addPeers([theirs.address])
    await docker.run({ op: 'setKeys', keys })
    await docker.run({ op: 'addPeers', peers: [ours.address] })

    const taps = await Taps.set(fabric)
    const sniffers = await fabric.sniff(cleartext(PORT))
    const pings = [
      RunningPing.start(ours.container, inner(fabric, theirs), { intervalMs: 10 }),
      RunningPing.start(theirs.container, inner(fabric, ours), { intervalMs: 10 }),
    ]
    expect(await ping(ours.container, inner(fabric, theirs))).toMatchObject({ lost: 0 })
    for (const change of [{ add: keyOf(3) }, { primary: 3 }, { prune: 1 }]) {
      await overlay.updateKeys(change)
      // For either may be the first.
      expect(await ping(theirs.container, inner(fabric, ours))).toMatchObject({ lost: 0 })
      await docker.run({ op: 'updateKeys', ...change } satisfies DockerCommand)
      expect(await ping(ours.container, inner(fabric, theirs))).toMatchObject({ lost: 0 })
    }
    const pinged = await Promise.all(pings.map((running) => running.stop()))
    const sniffed = await stopAll(sniffers)
    const sent = [await taps.sent(ours), await taps.sent(theirs)]
    console.log(...pinged, ...sent)

    expect(pinged.map(({ lost }) => lost)).toEqual([0, 0])
    expect(sniffed).toEqual({ packets: 0, dropped: 0 })
    for (const [i, { clear, esp }] of sent.entries()) {
      expect(clear).toBe(0)
      expect(esp).toBeGreaterThanOrEqual(pinged[i]!.sent)
    }
    for (const host of [ours, theirs]) expect(await host.xfrmErrors()).toEqual({})
  }),
)
