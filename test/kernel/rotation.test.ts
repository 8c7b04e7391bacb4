/** Keys rotate on three hosts under traffic: nothing is lost, nothing is in the clear, and nothing is left behind. */
import { expect, test } from 'vitest'
import type { Host } from '../../lib/demo/hosts.js'
import { ping, RunningPing } from '../../lib/demo/ping.js'
import { cleartext, stopAll } from '../../lib/demo/sniffer.js'
import { keyOf } from './keys.js'
import { expectedSpis, inner, linkAll, others, PORT, spis, Taps, VNI, withFabric } from './mesh.js'
import { Stream } from './stream.js'

/** Unique local addresses (RFC 4193), each of a subnet of its own. */
const ULA = ['fd5a:8d2c:17e4:1::1', 'fd5a:8d2c:17e4:2::a', 'fd5a:8d2c:17e4:ffff:a:b:c:d']

test.each([
  { rotations: 20, name: 'IPv4', nodes: { hosts: 3 }, form: {}, policies: 1 },
  { rotations: 5, name: 'IPv6', nodes: { hosts: 3, family: 6 }, form: { exclusive: true }, policies: 3 },
  { rotations: 5, name: 'ULA', nodes: { hosts: ULA }, form: { policies: 'per-peer' }, policies: 2 },
] as const)('$rotations rotations lose nothing, over $name, $form', ({ rotations, nodes, form, policies }) =>
  withFabric(nodes, async (fabric, open) => {
    const hosts = fabric.hosts as [Host, Host, Host]
    await linkAll(fabric, [VNI])
    const overlays = await Promise.all(hosts.map((host) => open(host, form)))
    for (const [i, overlay] of overlays.entries()) {
      await overlay.addNetworks([VNI])
      await overlay.setKeys([keyOf(2), keyOf(1)])
      await overlay.addPeers(others(fabric, hosts[i]!))
    }
    const pairs = hosts.map((from, i): [Host, Host] => [from, hosts[(i + 1) % hosts.length]!])
    for (const [from, to] of pairs) expect(await ping(from.container, inner(fabric, to))).toMatchObject({ lost: 0 })
    const errors = await Promise.all(hosts.map((host) => host.xfrmErrors()))

    const taps = await Taps.set(fabric)
    const sniffers = await fabric.sniff(cleartext(PORT))
    const pings = pairs.map(([from, to]) => RunningPing.start(from.container, inner(fabric, to), { intervalMs: 10 }))
    const [from, to] = pairs[0]!
    const stream = await Stream.start(from.container, to.container, inner(fabric, to))
    const started = performance.now()
    // What is on its way under the key before is decrypted: that one goes a rotation later.
    for (let tag = 3; tag < 3 + rotations; tag++) {
      await Promise.all(overlays.map((overlay) => overlay.updateKeys({ add: keyOf(tag) })))
      await Promise.all(overlays.map((overlay) => overlay.updateKeys({ primary: tag })))
      await Promise.all(overlays.map((overlay) => overlay.updateKeys({ prune: tag - 2 })))
    }
    const elapsed = performance.now() - started
    const streamed = await stream.stop()
    const pinged = await Promise.all(pings.map((running) => running.stop()))
    const sniffed = await stopAll(sniffers)
    const sent = await Promise.all(hosts.map((host) => taps.sent(host)))
    console.log(`${rotations} rotations in ${elapsed.toFixed(0)} ms;`, ...pinged, streamed, ...sent)

    expect(pinged.map(({ lost }) => lost)).toEqual([0, 0, 0])
    expect(streamed.lost).toBe(0)
    expect(sniffed).toEqual({ packets: 0, dropped: 0 })
    expect(sent.map(({ clear }) => clear)).toEqual([0, 0, 0])
    for (const [i, { esp }] of sent.entries()) expect(esp).toBeGreaterThanOrEqual(pinged[i]!.sent)
    expect(await Promise.all(hosts.map((host) => host.xfrmErrors()))).toEqual(errors)

    const [primary, previous] = [2 + rotations, 1 + rotations]
    for (const [i, host] of hosts.entries()) {
      expect(await spis(host)).toEqual(expectedSpis(host.address, others(fabric, host), [primary, previous]))
      expect(await host.policies()).toBe(policies)
      expect(await overlays[i]!.reconcile({ dryRun: true })).toMatchObject({ plan: [] })
    }
  }),
)
