/**
 * No cleartext of an encrypted network enters or leaves: whatever is missing, and whatever else is at work on the host.
 * Each case is also seen to pass what it should not, with the guard in question away.
 */
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import type { Fabric, Host } from '../../lib/demo/hosts.js'
import { ping, RunningPing } from '../../lib/demo/ping.js'
import {
  arrived,
  COUNT,
  clear,
  encrypt,
  esp,
  few,
  flush,
  inner,
  left,
  linkAll,
  nothing,
  PORT,
  received,
  Taps,
  VNI,
  withFabric,
} from './mesh.js'
import { joinByVpn, throughOtherVpn } from './vpn.js'

const PLAIN = 5000
const TABLE = ['inet', 'xfrmesh_58464d']
const packets = fileURLToPath(new URL('packets.py', import.meta.url))

/** The same in IPv6 fragments, made by hand, whose first is too short to show the VNI. */
async function arrivedInFragments(from: Host, to: Host): Promise<number> {
  const before = await received(to)
  const words = ['fragments', from.address, to.address, PORT, VNI, COUNT]
  await from.run('python3', ['-B', packets, ...words.map(String)])
  return (await received(to)) - before
}

/** Sends VXLAN from one address of this host's to another host; a refusal is as good as a drop. */
const sender = `
import socket, struct, sys
source, destination, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
udp = socket.socket(socket.AF_INET6 if ':' in source else socket.AF_INET, socket.SOCK_DGRAM)
udp.bind((source, 0))
for _ in range(count):
    try:
        udp.sendto(struct.pack('!II', 0x08000000, ${VNI} << 8) + bytes(64), (destination, port))
    except OSError:
        pass
`

/** A ping through a network that is not encrypted, from beginning to end of the work: it loses nothing. */
async function besidePlain(fabric: Fabric, work: () => Promise<void>): Promise<void> {
  const [one, other] = fabric.hosts as [Host, Host]
  const pinging = RunningPing.start(one.container, inner(fabric, other, PLAIN), { intervalMs: 50 })
  await work()
  const { sent, lost } = await pinging.stop()
  expect(lost).toBe(0)
  expect(sent).toBeGreaterThan(0)
}

describe.each([
  ['IPv4', 4, 'shared'],
  ['IPv6', 6, 'per-peer'],
] as const)('over %s', (_, family, policies) => {
  test('nothing enters before there is a peer: not in the clear, not through an SA of others', () =>
    withFabric({ hosts: 2, family }, async (fabric, open) => {
      const [victim, attacker] = fabric.hosts as [Host, Host]
      await linkAll(fabric, [VNI, PLAIN])
      expect(await arrived(fabric, attacker, victim)).toBe(COUNT)
      if (family === 6) expect(await arrivedInFragments(attacker, victim)).toBe(COUNT)

      const overlay = await open(victim)
      await overlay.addNetworks([VNI])
      await besidePlain(fabric, async () => {
        expect(await arrived(fabric, attacker, victim)).toBe(0)
        if (family === 6) expect(await arrivedInFragments(attacker, victim)).toBe(0)
      })
      await throughOtherVpn(attacker, victim)
      expect(await arrived(fabric, attacker, victim)).toBe(0)
      expect((await overlay.status()).drops.in).toBe((family === 6 ? 3 : 2) * COUNT)

      await overlay.removeNetworks([VNI])
      expect(await arrived(fabric, attacker, victim)).toBe(COUNT)
    }))

  test('nothing leaves without peers, SAs or policies, or past source NAT', () =>
    withFabric({ hosts: 2, family }, async (fabric, open) => {
      const [here, there] = fabric.hosts as [Host, Host]
      await linkAll(fabric, [VNI, PLAIN])
      const taps = await Taps.set(fabric)
      const leaves = () => left(taps, fabric, here, there)
      expect(await leaves()).toEqual(clear)
      const overlay = await open(here, { policies })
      await besidePlain(fabric, async () => {
        await overlay.addNetworks([VNI])
        expect(await leaves()).toEqual(nothing)
        await encrypt(fabric, here, overlay)
        expect(await leaves()).toEqual(esp)

        await flush(here, 'state')
        expect(await leaves()).toEqual(nothing)
        await overlay.reconcile()
        expect(await leaves()).toEqual(esp)

        await flush(here, 'policy')
        expect(await leaves()).toEqual(nothing)
        await here.run('nft', ['delete', 'table', ...TABLE])
        expect(await leaves()).toEqual(clear)
        await overlay.reconcile()
        expect(await leaves()).toEqual(esp)
      })

      // It gives packets an address that no policy of ours selects, when they have been routed already.
      const [nat, other] = family === 4 ? ['ip', '192.0.2.99'] : ['ip6', '2001:db8::99']
      await here.run('nft', ['-f', '-'], {
        input: `table ${nat} nat {
          chain out { type nat hook postrouting priority srcnat; udp dport ${PORT} snat to ${other}; }
        }`,
      })
      expect(await leaves()).toEqual(nothing)
      await flush(here, 'policy')
      expect(await leaves()).toEqual(nothing)
      await overlay.reconcile()
      await here.run('nft', ['flush', 'chain', ...TABLE, 'postrouting'])
      expect(await leaves()).toEqual(clear)
    }))

  test(`with \`exclusive\` and ${policies} policies, nothing enters or leaves with the whole ruleset flushed`, () =>
    withFabric({ hosts: 2, family }, async (fabric, open) => {
      const [here, there] = fabric.hosts as [Host, Host]
      await linkAll(fabric, [VNI])
      const taps = await Taps.set(fabric)
      const [overlay, far] = [await open(here, { exclusive: true, policies }), await open(there, { exclusive: true })]
      await encrypt(fabric, here, overlay)
      await encrypt(fabric, there, far)
      for (const host of fabric.hosts) await host.run('nft', ['flush', 'ruleset'])
      const sent = await taps.sentDuring(here, async () => {
        expect(await ping(here.container, inner(fabric, there), few)).toEqual({ sent: COUNT, received: COUNT, lost: 0 })
      })
      expect(sent).toEqual(esp)

      await flush(here, 'state')
      expect(await left(taps, fabric, here, there)).toEqual(nothing)
      await overlay.removePeers([there.address])
      expect(await left(taps, fabric, here, there)).toEqual(nothing)

      // The other host turns attacker: what it sends is in the clear from here on.
      await flush(there, 'policy')
      expect(await left(taps, fabric, there, here)).toEqual(clear)
      expect(await arrived(fabric, there, here)).toBe(0)
      if (family === 6) expect(await arrivedInFragments(there, here)).toBe(0)
      await throughOtherVpn(there, here)
      expect(await arrived(fabric, there, here)).toBe(0)
      expect(await here.xfrmErrors()).toMatchObject({ XfrmInTmplMismatch: (family === 6 ? 4 : 3) * COUNT })

      // A second address of the node is no way in, and none out.
      const second = family === 4 ? '192.0.2.77' : '2001:db8::77'
      const prefix = family === 4 ? '24' : '64'
      await here.ip([['address', 'add', `${second}/${prefix}`, 'dev', here.device, ...(family === 6 ? ['nodad'] : [])]])
      const flood = ['fdb', 'append', '00:00:00:00:00:00', 'dev', `vx${VNI}`, 'dst', second]
      await there.container.run('bridge', flood)
      expect(await arrived(fabric, there, here)).toBe(0)
      const fromSecond = () => here.run('python3', ['-c', sender, second, there.address, ...[PORT, COUNT].map(String)])
      expect(await taps.sentDuring(here, fromSecond)).toEqual(nothing)

      await flush(here, 'policy')
      expect(await left(taps, fabric, here, there)).toEqual(clear)
      expect(await arrived(fabric, there, here)).toBe(COUNT)
    }))
})

test.each([false, true])(
  'over a VPN, what is encrypted passes, and what is not is dropped; exclusive: %o',
  (exclusive) =>
    withFabric({ hosts: 2 }, async (fabric, open) => {
      const [here, there] = fabric.hosts as [Host, Host]
      await joinByVpn(here, there)
      await linkAll(fabric, [VNI])
      const [overlay, far] = [await open(here, { exclusive }), await open(there, { exclusive })]
      await encrypt(fabric, here, overlay)
      await encrypt(fabric, there, far)
      expect(await ping(here.container, inner(fabric, there), few)).toMatchObject({ lost: 0 })
      const [{ stats64 }] = JSON.parse(await here.run('ip', ['-j', '-s', 'link', 'show', 'vpn'])) as [
        { stats64: { rx: { packets: number }; tx: { packets: number } } },
      ]
      expect([stats64.rx.packets, stats64.tx.packets]).toEqual([COUNT, COUNT])
      expect((await overlay.status()).drops).toMatchObject({ in: 0, out: 0, diverted: 0 })

      await far.close({ flush: true })
      expect(await arrived(fabric, there, here)).toBe(0)
      expect((await overlay.status()).drops).toMatchObject({ in: COUNT, out: 0 })
      // The SPD has no part in it: what comes out of an xfrm interface is asked for that interface's policies alone.
      await here.run('nft', ['flush', 'ruleset'])
      expect(await arrived(fabric, there, here)).toBe(COUNT)
    }),
)
