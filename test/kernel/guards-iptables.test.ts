/** With the firewall of iptables, of either kind: see guards.test.ts. */
import { afterAll, expect, test } from 'vitest'
import type { Host } from '../../lib/demo/hosts.js'
import { ping } from '../../lib/demo/ping.js'
import { iptables, PREFIX, VARIANTS, withSystemIptables } from './iptables.js'
import {
  arrived,
  besidePlain,
  clear,
  COUNT,
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

const probe = new Probe()
afterAll(() => probe.close())

test.each([
  ['IPv4', 4, 'shared', 'legacy'],
  ['IPv6', 6, 'per-peer', 'nft'],
] as const)('over %s nothing enters or leaves but through our SAs, source NAT or not', (_, family, policies, variant) =>
  withSystemIptables(variant, () =>
    withFabric({ hosts: 2, family }, async (fabric, open) => {
      const [here, there] = fabric.hosts as [Host, Host]
      const on = (table: string, ...commands: string[]) => iptables(here.netns, [family, variant], table, ...commands)
      await linkAll(fabric, [VNI, PLAIN])
      const taps = await Taps.set(fabric)
      const leaves = () => left(taps, fabric, here, there)
      const overlay = await open(here, { firewall: 'iptables', policies })
      const mended = async () => {
        expect((await overlay.status()).firewall).toMatchObject({ kind: 'iptables', intact: false })
        await overlay.reconcile()
        expect((await overlay.status()).firewall.intact).toBe(true)
      }
      expect(await arrived(fabric, there, here)).toBe(COUNT)
      await besidePlain(fabric, async () => {
        await overlay.addNetworks([VNI])
        expect(await arrived(fabric, there, here)).toBe(0)
        await throughOtherVpn(there, here)
        expect(await arrived(fabric, there, here)).toBe(0)
      })
      expect((await overlay.status()).drops).toMatchObject({ in: 2 * COUNT, out: 0 })
      await on('mangle', `-F ${PREFIX}in-hit`)
      expect(await arrived(fabric, there, here)).toBe(COUNT)
      await mended()
      expect(await arrived(fabric, there, here)).toBe(0)

      // An administrator's rule gives packets an address that no policy of ours selects, and the kernel remembers it.
      await flush(there, 'policy')
      await overlay.removeNetworks([VNI])
      const [other, prefix, more] = family === 4 ? ['192.0.2.99', 24, []] : ['2001:db8::99', 64, ['nodad']]
      await here.ip([['address', 'add', `${other}/${prefix}`, 'dev', here.device, ...more]])
      await on('nat', `-A POSTROUTING -p udp --dport ${PORT} -j SNAT --to-source ${other}`)
      expect(await leaves()).toEqual(clear)
      await besidePlain(fabric, async () => {
        await overlay.addNetworks([VNI])
        expect(await leaves()).toEqual(nothing)
        await encrypt(fabric, here, overlay)
        expect(await leaves()).toEqual(esp)
        await flush(here, 'state')
        expect(await leaves()).toEqual(nothing)
        await flush(here, 'policy')
        expect(await leaves()).toEqual(nothing)
        await overlay.reconcile()
        expect(await leaves()).toEqual(esp)
      })
      // Where there is a policy and no SA, the kernel itself drops it: with a shared one, before there is a peer too.
      expect((await overlay.status()).drops).toMatchObject({ in: 0, out: policies === 'shared' ? COUNT : 2 * COUNT })

      // What each part is for, seen by its absence.
      await on('raw', '-F OUTPUT')
      expect(await leaves()).toEqual(clear)
      await mended()
      expect(await leaves()).toEqual(esp)
      await on('mangle', `-D OUTPUT -j ${PREFIX}mark`)
      expect(await leaves()).toEqual(nothing)
      // The guard out stands twice.
      await on('mangle', '-F')
      expect(await leaves()).toEqual(nothing)
      await on('filter', '-F OUTPUT')
      expect(await leaves()).toEqual(clear)
      await mended()
      expect(await leaves()).toEqual(esp)
    }),
  ),
)

test('over a VPN, what is encrypted passes, and what is not is dropped', () =>
  withSystemIptables('legacy', () =>
    withFabric({ hosts: 2 }, async (fabric, open) => {
      const [here, there] = fabric.hosts as [Host, Host]
      await joinByVpn(here, there)
      await linkAll(fabric, [VNI])
      const options = { firewall: 'iptables' } as const
      const [overlay, far] = [await open(here, options), await open(there, options)]
      await encrypt(fabric, here, overlay)
      await encrypt(fabric, there, far)
      expect(await ping(here.container, inner(fabric, there), few)).toMatchObject({ lost: 0 })
      expect((await overlay.status()).drops).toMatchObject({ in: 0, out: 0, diverted: 0 })
      await far.close({ flush: true })
      expect(await arrived(fabric, there, here)).toBe(0)
      expect((await overlay.status()).drops).toMatchObject({ in: COUNT, out: 0 })
    }),
  ))

test.each(VARIANTS)(
  'what links send that live elsewhere passes, what a local process sends is dropped: %s',
  (variant) =>
    withSystemIptables(variant, () =>
      withFabric({ hosts: 2, family: variant === 'legacy' ? 6 : 4 }, async (fabric, open) => {
        const [here, there] = fabric.hosts as [Host, Host]
        await linkAll(fabric, [VNI, PLAIN])
        const options = { firewall: 'iptables', linksElsewhere: true } as const
        const [overlay, far] = [await open(here, options), await open(there, options)]
        await encrypt(fabric, here, overlay)
        await encrypt(fabric, there, far)
        await besidePlain(fabric, async () => {
          expect(await ping(there.container, inner(fabric, here), few)).toMatchObject({ lost: 0 })
          const send = (vni: number) =>
            probe.send(there.netns, { to: [here.address], port: PORT, vnis: [vni], times: COUNT })
          const before = await received(here)
          expect([await send(VNI), await send(PLAIN)]).toEqual([0, COUNT])
          expect((await received(here)) - before).toBe(0)
        })
        expect((await far.status()).drops).toMatchObject({ in: 0, out: 0, forged: COUNT })
        expect((await overlay.status()).drops).toMatchObject({ in: 0, out: 0, forged: 0, diverted: 0 })
      }),
    ),
)
