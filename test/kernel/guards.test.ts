/**
 * No cleartext of an encrypted network enters or leaves: whatever is missing, and whatever else is at work on the host.
 * Each case is also seen to pass what it should not, with the guard in question away.
 */
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import type { Fabric, Host } from '../../lib/demo/hosts.js'
import { ping, RunningPing } from '../../lib/demo/ping.js'
import type { Overlay } from '../../lib/index.js'
import { keyOf } from './keys.js'
import { inner, linkAll, others, PORT, received, type Sent, Taps, VNI, withFabric } from './mesh.js'

const PLAIN = 5000
const TABLE = ['inet', 'xfrmesh_58464d']
const packets = fileURLToPath(new URL('packets.py', import.meta.url))

/** Pings that nobody may answer: a few, soon given up. */
const COUNT = 3
const few = { count: COUNT, intervalMs: 20, timeoutMs: 300 }

/** Sends from one host's container to the other's; returns how much of it arrived on the other's link. */
async function arrived(fabric: Fabric, from: Host, to: Host): Promise<number> {
  const before = await received(to)
  await ping(from.container, inner(fabric, to), few)
  return (await received(to)) - before
}

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

/** Sends from one host's container to the other's; returns what left. */
function left(taps: Taps, fabric: Fabric, from: Host, to: Host): Promise<Sent> {
  return taps.sentDuring(from, () => ping(from.container, inner(fabric, to), few))
}

const nothing: Sent = { clear: 0, esp: 0 }
const clear: Sent = { clear: COUNT, esp: 0 }
const esp: Sent = { clear: 0, esp: COUNT }

/** Everything that one host sends another goes through an SA that is not ours: a VPN's, say. */
async function throughOtherVpn(from: Host, to: Host): Promise<void> {
  const ends = ['src', from.address, 'dst', to.address]
  const aead = ['aead', 'rfc4106(gcm(aes))', `0x${'07'.repeat(20)}`, '128']
  const sa = [
    'xfrm',
    'state',
    'add',
    ...ends,
    'proto',
    'esp',
    'spi',
    '0x7777',
    'reqid',
    '7',
    'mode',
    'transport',
    ...aead,
  ]
  for (const host of [from, to]) await host.run('ip', sa)
  const template = ['tmpl', ...ends, 'proto', 'esp', 'reqid', '7', 'mode', 'transport']
  await from.run('ip', ['xfrm', 'policy', 'add', ...ends, 'dir', 'out', ...template])
}

/**
 * Joins two hosts by a route-based VPN: what either sends to the other goes through a tunnel between addresses of its own,
 * whose packets bear another reqid.
 */
async function joinByVpn(one: Host, other: Host): Promise<void> {
  const aead = `aead rfc4106(gcm(aes)) 0x${'07'.repeat(20)} 128`
  const inside = `src ${one.address}/24 dst ${other.address}/24`
  const end = ({ number }: Host) => `198.51.100.${number}`
  const tunnel = (from: Host, to: Host) => `src ${end(from)} dst ${end(to)} proto esp reqid 7 mode tunnel`
  const state = (from: Host, to: Host) => tunnel(from, to).replace('proto esp', `proto esp spi 0x888${from.number}`)
  for (const [here, there] of [
    [one, other],
    [other, one],
  ] as const) {
    await here.ip(
      [
        `address add ${end(here)}/24 dev ${here.device}`,
        `link add vpn type xfrm dev ${here.device} if_id 42`,
        `link set vpn up`,
        `route add ${there.address} dev vpn src ${here.address}`,
        `xfrm state add ${state(here, there)} if_id 42 ${aead}`,
        `xfrm state add ${state(there, here)} if_id 42 ${aead}`,
        `xfrm policy add ${inside} dir out if_id 42 tmpl ${tunnel(here, there)}`,
        `xfrm policy add ${inside} dir in if_id 42 tmpl ${tunnel(there, here)}`,
      ].map((command) => command.split(' ')),
    )
  }
}

function flush(host: Host, what: 'state' | 'policy'): Promise<string> {
  return host.run('ip', ['xfrm', what, 'flush'])
}

/** Encrypts the network on a host with one key, for all others. */
async function encrypt(fabric: Fabric, host: Host, overlay: Overlay): Promise<void> {
  await overlay.addNetworks([VNI])
  await overlay.setKeys([keyOf(1)])
  await overlay.addPeers(others(fabric, host))
}

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
      const overlay = await open(here)
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

test('over a VPN, whose SAs come first, what is encrypted passes, and what is not is dropped', () =>
  withFabric({ hosts: 2 }, async (fabric, open) => {
    const [here, there] = fabric.hosts as [Host, Host]
    await joinByVpn(here, there)
    await linkAll(fabric, [VNI])
    const [overlay, far] = [await open(here), await open(there)]
    await encrypt(fabric, here, overlay)
    await encrypt(fabric, there, far)
    expect(await ping(here.container, inner(fabric, there), few)).toMatchObject({ lost: 0 })
    const [{ stats64 }] = JSON.parse(await here.run('ip', ['-j', '-s', 'link', 'show', 'vpn'])) as [
      { stats64: { rx: { packets: number }; tx: { packets: number } } },
    ]
    expect([stats64.rx.packets, stats64.tx.packets]).toEqual([COUNT, COUNT])
    expect((await overlay.status()).drops).toEqual({ in: 0, out: 0 })

    await far.close({ flush: true })
    expect(await arrived(fabric, there, here)).toBe(0)
    expect((await overlay.status()).drops).toEqual({ in: COUNT, out: 0 })
  }))
