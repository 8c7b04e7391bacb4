import { basename } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Masquerade, type Layout } from '../../../lib/masquerade/masquerade.js'
import { feedNetns, inNetns, withLink, withNetns } from '../netns.js'
import { plugins, TABLE } from '../plugins.js'
import { Sender, Wire } from '../wire.js'

/**
 * Datagrams through a router: a container behind it, and a wire before it on which they are seen. Further addresses of the
 * container's own subnet are out there too, so that what stays within it passes the router.
 */
interface Place {
  container: Sender
  router: Sender
  netns: string
  wire: Wire
}

const families = {
  IPv4: {
    mapped: '10.1.0.2',
    unmapped: '10.1.0.3',
    prefix: 24,
    gateway: '10.1.0.1',
    within: '10.1.0.77',
    outside: '192.0.2.2',
    router: '192.0.2.1',
    group: '239.1.1.1',
  },
  IPv6: {
    mapped: 'fd01::2',
    unmapped: 'fd01::3',
    prefix: 64,
    gateway: 'fd01::1',
    within: 'fd01::77',
    outside: '2001:db8::2',
    router: '2001:db8::1',
    group: 'ff15::1',
  },
}
const own = { network: 'podnet', interfaceName: 'eth0', containerId: 'mapped' }

let place: Place
let leave: () => void
let left: Promise<void>

beforeAll(async () => {
  place = await new Promise<Place>((resolve, reject) => {
    left = withLink((router, outside) =>
      withNetns(async (container) => {
        await lay(container, router, outside)
        const wire = await Wire.watch(outside, 'eth0')
        const until = new Promise<void>((end) => (leave = end))
        const senders = [new Sender(container), new Sender(router)] as const
        resolve({ container: senders[0], router: senders[1], netns: router, wire })
        await until
        await Promise.all([wire.stop(), ...senders.map((sender) => sender.stop())])
      }),
    )
    left.catch(reject)
  })
})

afterAll(async () => {
  leave()
  await left
})

/** Joins the container to the router, and says to all where the others are. */
async function lay(container: string, router: string, outside: string): Promise<void> {
  await inNetns(router, 'sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1')
  await inNetns(container, 'sysctl', '-qw', 'net.ipv6.conf.default.accept_dad=0')
  await inNetns(
    router,
    'ip',
    'link',
    'add',
    'pods',
    'type',
    'veth',
    'peer',
    'name',
    'eth0',
    'netns',
    basename(container),
  )
  const ip = (netns: string, lines: string[]) => feedNetns(netns, `${lines.join('\n')}\n`, 'ip', '-batch', '-')
  await ip(container, ['link set eth0 up'])
  await ip(router, ['link set pods up'])
  for (const { mapped, unmapped, gateway, within, outside: far, router: near, prefix } of Object.values(families)) {
    const [all, nodad] = mapped.includes(':') ? ['128', ' nodad'] : ['32', '']
    await ip(router, [`address add ${gateway}/${prefix} dev pods${nodad}`, `route add ${within}/${all} via ${far}`])
    await ip(container, [
      ...[mapped, unmapped].map((address) => `address add ${address}/${all} dev eth0${nodad}`),
      `route add ${gateway} dev eth0`,
      `route add default via ${gateway}`,
    ])
    await ip(outside, [`address add ${within}/${all} dev lo${nodad}`, `route add ${mapped}/${all} via ${near}`])
  }
}

describe.each<[Layout]>([['rules'], ['set']])("packets, with the layout '%s'", (layout) => {
  test.each(Object.entries(families))(
    '%s',
    async (_, { mapped, unmapped, prefix, within, outside, router: near, group }) => {
      const { container, router, netns, wire } = place
      // An address of the router's own in the same subnet: what it sends to a group needs no multicast routing.
      const local = mapped.replace(/2$/, '9')
      await inNetns(
        netns,
        'ip',
        'address',
        'replace',
        `${local}/${prefix}`,
        'dev',
        'pods',
        ...(mapped.includes(':') ? ['nodad'] : []),
      )
      await using masquerade = await Masquerade.open({ netns, layout })
      const seen = (sender: Sender, source: string, destination: string) => wire.sourceOf(sender, source, destination)

      expect(await seen(container, mapped, outside)).toBe(mapped)
      const addresses = [`${mapped}/${prefix}`, `${local}/${prefix}`]
      await masquerade.add([{ ...own, addresses }])
      expect(await seen(container, mapped, outside)).toBe(near)
      expect(await seen(container, unmapped, outside)).toBe(unmapped)
      expect(await seen(container, mapped, within)).toBe(mapped)
      expect(await seen(router, local, outside)).toBe(near)
      expect(await seen(router, local, group)).toBe(local)

      // The plugins flush `postrouting` each time.
      await plugins.add(netns, { ...own, containerId: 'of the plugins' }, [`${unmapped}/${prefix}`])
      expect(await seen(container, mapped, outside)).toBe(near)
      expect(await seen(container, unmapped, outside)).toBe(near)
      await masquerade.remove([{ ...own, containerId: 'of the plugins' }])
      expect(await seen(container, mapped, outside)).toBe(near)
      expect(await seen(container, unmapped, outside)).toBe(unmapped)

      // On a subnet of its own it is masqueraded there too.
      await masquerade.add([
        { ...own, addresses: addresses.map((address) => address.replace(/\d+$/, mapped.includes(':') ? '128' : '32')) },
      ])
      expect(await seen(container, mapped, within)).toBe(near)

      // Added once more by another, on the wider subnet: as with rules, it is masqueraded if for one of them.
      const again = { ...own, containerId: 'again' }
      await masquerade.add([{ ...again, addresses }])
      expect(await seen(container, mapped, within)).toBe(near)
      await masquerade.remove([own])
      expect(await seen(container, mapped, within)).toBe(mapped)
      expect(await seen(container, mapped, outside)).toBe(near)

      // What keeps multicast as it is are the rules before the checks.
      await feedNetns(
        netns,
        `flush chain ${TABLE} postrouting\nadd rule ${TABLE} postrouting goto masq_checks\n`,
        'nft',
        '-f',
        '-',
      )
      expect(await seen(router, local, group)).toBe(near)
      // The next addition puts them back.
      await masquerade.add([{ ...own, addresses }])
      expect(await seen(router, local, group)).toBe(local)

      await masquerade.remove([own, again])
      expect(await seen(container, mapped, outside)).toBe(mapped)
      await inNetns(netns, 'ip', 'address', 'delete', `${local}/${prefix}`, 'dev', 'pods')
    },
  )
})
