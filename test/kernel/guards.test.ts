/**
 * No cleartext of an encrypted network enters or leaves: whatever is missing, and whatever else is at work on the host.
 * Each case is also seen to pass what it should not, with the guard in question away.
 */
import { afterAll, describe, expect, test } from 'vitest'
import type { Host } from '../../lib/demo/hosts.js'
import { ping } from '../../lib/demo/ping.js'
import {
  arrived,
  besidePlain,
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
  PLAIN,
  PORT,
  received,
  Taps,
  VNI,
  withFabric,
} from './mesh.js'
import { Probe } from './probe.js'
import { joinByVpn, throughOtherVpn } from './vpn.js'

const TABLE = ['inet', 'xfrmesh_58464d']
/** Where chains that translate source addresses may stand: about ours, at the ends of what is allowed, and between. */
const NAT_PRIORITIES = [-199, -1, 100, 101, 300, 301, 2 ** 31 - 1]

const probe = new Probe()
afterAll(() => probe.close())

/** The same in IPv6 fragments whose first is too short to show the VNI. */
async function arrivedInFragments(from: Host, to: Host): Promise<number> {
  const before = await received(to)
  const ends = { source: from.address, spoofed: from.address, to: to.address }
  const networks = Array.from({ length: COUNT }, () => [PORT, VNI] as const)
  await probe.fire(from.netns, ends, networks, 'tiny: cut at 8')
  return (await received(to)) - before
}

/** Replaces an administrator's table of a family by one of these chains. */
async function administer(host: Host, family: 'inet' | 'ip' | 'ip6', ...chains: string[]): Promise<void> {
  const table = `table ${family} admin`
  await host.run('nft', ['-f', '-'], { input: `add ${table}\ndelete ${table}\n${table} {\n${chains.join('\n')}\n}\n` })
}

function chain(name: string, type: string, hook: string, priority: number, rule: string): string {
  return `chain ${name} {\n  type ${type} hook ${hook} priority ${priority}\n  udp dport ${PORT} ${rule}\n}`
}

/** Selects all VXLAN of a family, for `ip xfrm policy`. */
function everything(family: 4 | 6): string {
  const any = family === 4 ? '0.0.0.0/0' : '::/0'
  return `src ${any} dst ${any} proto udp dport ${PORT}`
}

describe.each([
  ['IPv4', 4, 'shared', 'per-peer'],
  ['IPv6', 6, 'per-peer', 'shared'],
] as const)('over %s', (_, family, policies, others) => {
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
      // Both kinds of policies, the second taking over from the first.
      const first = await open(here, { policies: others })
      await encrypt(fabric, here, first)
      expect(await leaves()).toEqual(esp)
      await flush(here, 'policy')
      expect(await leaves()).toEqual(nothing)
      await first.close({ flush: true })
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
        // Nor under a policy of others that comes before ours and encrypts nothing.
        await here.ip([`xfrm policy add ${everything(family)} dir out`.split(' ')])
        await overlay.reconcile()
        const bypass = () => probe.send(here.netns, { to: [there.address], port: PORT, vnis: [VNI], bypass: true })
        expect(await taps.sentDuring(here, bypass)).toEqual(nothing)
        await here.run('nft', ['delete', 'table', ...TABLE])
        expect(await leaves()).toEqual(clear)
        await flush(here, 'policy')
        await overlay.reconcile()
        expect(await leaves()).toEqual(esp)
      })

      // An administrator's mark, set after ours: it is no policy's.
      await administer(here, 'inet', chain('out', 'route', 'output', 0, 'meta mark set 7'))
      expect(await leaves()).toEqual(nothing)
      await here.run('nft', ['delete', 'table', 'inet', 'admin'])

      // It gives packets an address that no policy of ours selects, when they have been routed already.
      const [nat, other] = family === 4 ? (['ip', '192.0.2.99'] as const) : (['ip6', '2001:db8::99'] as const)
      for (const priority of [...NAT_PRIORITIES, 100]) {
        await administer(here, nat, chain('out', 'nat', 'postrouting', priority, `snat to ${other}`))
        expect({ priority, ...(await leaves()) }).toEqual({ priority, ...nothing })
      }
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

      // Whatever the rules of others, it leaves encrypted, or not at all.
      const ip = family === 4 ? 'ip' : 'ip6'
      const marks = [-400, -149, 300].map((priority, i) =>
        chain(`o${i}`, 'route', 'output', priority, 'meta mark set 7'),
      )
      const untracked = [-400, 0, 301].map((priority, i) =>
        chain(`o${i}`, 'filter', 'output', priority, 'notrack accept'),
      )
      const rules: [what: string, ...chains: string[]][] = [
        ['other marks', ...marks, chain('p', 'filter', 'postrouting', 301, 'meta mark set 0')],
        ['accepted', ...untracked],
        ...NAT_PRIORITIES.map((priority): [string, string] => [
          `source NAT at ${priority}`,
          chain('out', 'nat', 'postrouting', priority, `snat to ${family === 4 ? '192.0.2.99' : '2001:db8::99'}`),
        ]),
      ]
      for (const [what, ...chains] of rules) {
        await administer(here, ip, ...chains)
        expect({ what, clear: (await left(taps, fabric, here, there)).clear }).toEqual({ what, clear: 0 })
      }
      // But not what a rule copies before it is encrypted.
      await administer(here, ip, chain('out', 'filter', 'output', 0, `dup to ${there.address} device ${here.device}`))
      expect((await left(taps, fabric, here, there)).clear).toBe(COUNT)
      await here.run('nft', ['delete', 'table', ip, 'admin'])

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
      const sending = { source: second, to: [there.address], port: PORT, vnis: [VNI], times: COUNT }
      const fromSecond = () => probe.send(here.netns, sending)
      expect(await taps.sentDuring(here, fromSecond)).toEqual(nothing)

      await flush(here, 'policy')
      expect(await left(taps, fabric, here, there)).toEqual(clear)
      expect(await arrived(fabric, there, here)).toBe(COUNT)
    }))
})

describe.each([4, 6] as const)('between peers, over IPv%i', (family) => {
  test('what came encrypted is quoted to nobody, and goes to nobody else; what comes in the clear is dropped', () =>
    withFabric({ hosts: 2, family }, async (fabric, open) => {
      const [here, there] = fabric.hosts as [Host, Host]
      await linkAll(fabric, [VNI])
      // What links send that live elsewhere is not taken for a local process's.
      const [overlay, far] = [await open(here, { linksElsewhere: true }), await open(there, { linksElsewhere: true })]
      await encrypt(fabric, here, overlay)
      await encrypt(fabric, there, far)
      const limit = family === 4 ? 'net.ipv4.icmp_ratelimit=0' : 'net.ipv6.icmp.ratelimit=0'
      await here.run('sysctl', ['-qw', limit])
      const secret = { to: [inner(fabric, here)], port: 9, vnis: [VNI], times: COUNT, name: 'secret' }
      const send = () => probe.send(there.container.netns, secret)
      /** What can be read of it on the wire, in what this host sends. */
      const readable = async (work: () => Promise<unknown> = send) =>
        (await probe.sniffedDuring(fabric.switch.netns, `port${here.number}`, work))[VNI]

      const before = await received(here)
      const packets = await probe.recordedDuring(here.netns, here.device, send)
      expect(packets).toHaveLength(COUNT)
      expect((await received(here)) - before).toBe(COUNT)

      await administer(here, 'inet', chain('in', 'filter', 'input', 0, 'reject'))
      expect(await readable()).toBeUndefined()
      expect((await overlay.status()).drops).toMatchObject({ in: 0, quoted: COUNT })
      // Options are not under the SA's protection, and would put what is quoted in another place.
      expect(await readable(() => probe.lengthen(there.netns, here.address, packets))).toBeUndefined()
      expect((await overlay.status()).drops).toMatchObject({ in: COUNT, quoted: COUNT })
      await here.run('nft', ['delete', 'table', ...TABLE])
      expect(await readable()).toEqual({ secret: COUNT })
      expect(await readable(() => probe.lengthen(there.netns, here.address, packets))).toEqual({ secret: COUNT })
      await overlay.reconcile()

      await administer(here, 'inet', chain('in', 'nat', 'prerouting', -100, 'redirect to :5555'))
      expect(await probe.heardDuring(here.netns, [5555], send)).toEqual({})
      expect((await overlay.status()).drops).toMatchObject({ out: 0, forged: 0, diverted: COUNT })
      await administer(here, 'inet')
      expect(await ping(there.container, inner(fabric, here), few)).toMatchObject({ lost: 0 })

      // A local process is no link.
      await probe.send(there.netns, { to: [here.address], port: PORT, vnis: [VNI], times: COUNT })
      expect((await far.status()).drops).toMatchObject({ out: 0, forged: COUNT })
      // A peer that turns attacker, and sends in the clear.
      const { in: dropped } = (await overlay.status()).drops
      await far.close({ flush: true })
      expect(await arrived(fabric, there, here)).toBe(0)
      expect((await overlay.status()).drops.in).toBe(dropped + COUNT)
    }))
})

describe.each([4, 6] as const)('with `exclusive` and the ruleset flushed, over IPv%i', (family) => {
  /** Of a stranger's volley, what is heard elsewhere. */
  const heard = async (from: Host, spoofed: string, to: Host, only?: string) => {
    const ends = { source: from.address, spoofed, to: to.address }
    const all = await probe.heardDuring(to.netns, [PORT], () => probe.fire(from.netns, ends, [[PORT, VNI]], only))
    return Object.keys(all[`${PORT} ${VNI}`] ?? {})
  }

  test('no shape of cleartext enters but that of IPv6 with extension headers', () =>
    withFabric({ hosts: 3, family }, async (fabric, open) => {
      const [here, peer, stranger] = fabric.hosts as [Host, Host, Host]
      await encrypt(fabric, here, await open(here, { exclusive: true }))
      expect(await heard(stranger, peer.address, here)).toEqual([])
      await here.run('nft', ['flush', 'ruleset'])
      // Behind such headers the kernel looks for the ports in the wrong place (decode_session6 of net/xfrm/xfrm_policy.c).
      const behindHeaders = /options|routing|headers cut|a fragment that is the whole/
      const entered = [...(await heard(stranger, peer.address, here)), ...(await heard(peer, stranger.address, here))]
      expect(entered.filter((name) => family === 4 || !behindHeaders.test(name))).toEqual([])
      await flush(here, 'policy')
      expect((await heard(stranger, peer.address, here)).length).toBeGreaterThan(20)
    }))

  test("nothing of a stranger's is forwarded, nor as this node's", () =>
    withFabric({ hosts: 3, family }, async (fabric, open) => {
      const [here, peer, stranger] = fabric.hosts as [Host, Host, Host]
      await here.run('sysctl', ['-qw', family === 4 ? 'net.ipv4.ip_forward=1' : 'net.ipv6.conf.all.forwarding=1'])
      await stranger.ip([['route', 'replace', `${peer.address}/${family === 4 ? 32 : 128}`, 'via', here.address]])
      // IPv4 takes no packet from outside that has an address of this node's.
      const name = family === 4 ? 'whole' : 'from an address of somebody else'
      const fire = () => heard(stranger, here.address, peer, name)
      const guarded = await open(here)
      await encrypt(fabric, here, guarded)
      expect(await fire()).toEqual([])
      const drops = async () => (await guarded.status()).drops
      await expect.poll(drops, { timeout: 60_000 }).toMatchObject({ in: 0, out: 0, forwarded: 1 })
      await guarded.close({ flush: true })

      for (const host of [here, peer]) await encrypt(fabric, host, await open(host, { exclusive: true }))
      await here.run('nft', ['flush', 'ruleset'])
      expect(await fire()).toEqual([])
      await here.ip([`xfrm policy delete ${everything(family)} dir fwd`.split(' ')])
      // The first may wait for a neighbour's answer for longer than anybody listens.
      await expect.poll(fire, { timeout: 60_000 }).toEqual([name])
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
