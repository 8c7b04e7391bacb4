/**
 * Nothing of an encrypted network leaves in the clear, whatever an administrator does about its packets, and however they
 * are made. There is no policy and no SA here: the guard alone holds them. What differs in nothing but its network passes.
 */
import { basename } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { guarding } from '../attacks.js'
import { feedNetns, inNetns, ip, withLink, withNetns } from '../netns.js'
import { type Heard, Probe } from '../probe.js'

const MARK = 0x58464d
const PORT = 4789
const ENCRYPTED = 4096
const PLAIN = 5000
const VNIS = [ENCRYPTED, PLAIN]
const OTHER = ['192.0.2.2', '2001:db8::2']

interface Place {
  /** Where the guard is, its neighbour on the wire, and a container into which links of either network were moved. */
  here: string
  other: string
  container: string
}
let place: Place
let leave: () => void
let left: Promise<void>

const probe = new Probe()

beforeAll(async () => {
  place = await new Promise<Place>((resolve, reject) => {
    left = withLink((here, other) =>
      withNetns(async (container) => {
        await lay(here, container)
        const until = new Promise<void>((end) => (leave = end))
        resolve({ here, other, container })
        await until
      }),
    )
    left.catch(reject)
  })
})

afterAll(async () => {
  leave()
  await left
  await probe.close()
})

/** Inner address of the other end of a network's link. */
function inner(vni: number, where: 'moved' | 'here'): string {
  return `10.${where === 'moved' ? 0 : 1}.${vni >> 8}.2`
}

/** Links of each network: over IPv4 some that were moved into a container, over IPv6 some that stay. */
async function lay(here: string, container: string): Promise<void> {
  const address = (vni: number, where: 'moved' | 'here', device: string) => [
    `link set ${device} addrgenmode none`,
    `address add ${inner(vni, where).replace(/2$/, '1')}/24 dev ${device}`,
    `link set ${device} up`,
    `neigh add ${inner(vni, where)} lladdr 02:00:00:00:00:02 dev ${device}`,
  ]
  await ip(here, [
    'route add default via 192.0.2.2',
    ...VNIS.flatMap((vni) => [
      // With group based policy a packet's mark stands in its VXLAN header, and a flag for it.
      `link add m${vni} type vxlan id ${vni} dstport ${PORT} local 192.0.2.1 remote 192.0.2.2 noudpcsum gbp`,
      `link set m${vni} netns ${basename(container)}`,
      `link add h${vni} type vxlan id ${vni} dstport ${PORT} local 2001:db8::1 remote 2001:db8::2`,
      ...address(vni, 'here', `h${vni}`),
    ]),
  ])
  await ip(
    container,
    VNIS.flatMap((vni) => address(vni, 'moved', `m${vni}`)),
  )
}

/** Sends in every way, of either network. */
async function sendAll(): Promise<void> {
  const { here, container } = place
  for (const vni of VNIS) {
    const one = { port: 9, vnis: [vni] }
    await probe.send(container, { ...one, to: [inner(vni, 'moved')], name: 'by a link that was moved' })
    await probe.send(container, { ...one, to: [inner(vni, 'moved')], name: 'with a policy id', mark: 7 })
    await probe.send(here, { ...one, to: [inner(vni, 'here')], name: 'by a link' })
  }
  const from = { port: PORT, vnis: VNIS }
  await probe.send(here, { ...from, to: OTHER, name: 'by a socket' })
  await probe.send(here, { ...from, to: ['::ffff:192.0.2.2'], name: 'by a socket of IPv6, over IPv4' })
  await probe.send(here, { ...from, to: OTHER, name: 'with our mark', mark: MARK })
  await probe.send(here, { ...from, to: OTHER, name: 'with a policy of its own', bypass: true })
  const groups = ['192.0.2.255', '255.255.255.255', '224.0.0.5', 'ff02::5%eth0']
  for (const group of groups) await probe.send(here, { ...from, to: [group], name: `to ${group}` })
}

/** What was seen on the wire of the encrypted network, and of the other, by name. */
function names(seen: Heard): { encrypted: string[]; plain: string[] } {
  const [encrypted, plain] = VNIS.map((vni) => Object.keys(seen[vni] ?? {}).sort())
  return { encrypted: encrypted!, plain: plain! }
}

const onTheWire = async (work: () => Promise<unknown> = sendAll) =>
  names(await probe.sniffedDuring(place.other, 'eth0', work))

/** A table of an administrator's in place of the one before. */
function administer(chains: string, family = 'inet'): Promise<string> {
  const table = `table ${family} admin`
  const text = `add ${table}\ndelete ${table}\n${table} {\n${chains}\n}\n`
  return feedNetns(place.here, text, 'nft', '-f', '-')
}

const chain = (type: string, hook: string, priority: number, rules: string) =>
  `chain ${hook}${Math.abs(priority)}${priority < 0 ? 'before' : ''} {
    type ${type} hook ${hook} priority ${priority}; policy accept;
    ${rules}
  }
`

const LAST = 2 ** 31 - 1

const rules: [what: string, chains: string, family?: 'ip' | 'ip6'][] = [
  ['with nobody at work', ''],
  [
    'with another mark, set before ours',
    chain('route', 'output', -400, 'meta mark set 7') + chain('route', 'output', -151, 'meta mark set 8'),
  ],
  [
    'with another mark, set after ours',
    [-149, 0, 300, LAST].map((priority) => chain('route', 'output', priority, `meta mark set mark xor 5`)).join('') +
      [-150, 0, 301].map((priority) => chain('filter', 'postrouting', priority, 'meta mark set 0')).join(''),
  ],
  ['untracked and accepted', [-400, 0, 301].map((p) => chain('filter', 'output', p, 'notrack accept')).join('')],
  [
    'turned to another port',
    chain(
      'nat',
      'output',
      -100,
      'udp dport 4789 dnat ip to 192.0.2.2:5555\nudp dport 4789 dnat ip6 to [2001:db8::2]:5555',
    ),
  ],
  ...(['ip', 'ip6'] as const).map((family): [string, string, typeof family] => [
    `twice, ${family}`,
    [-400, 0, 301]
      .flatMap((priority) =>
        ['output', 'postrouting'].map((hook) =>
          chain('filter', hook, priority, `udp dport 4789 dup to ${OTHER[family === 'ip' ? 0 : 1]} device eth0`),
        ),
      )
      .join(''),
    family,
  ]),
]

test.each([{}, { linksElsewhere: true }, { exclusive: true }])('whatever the rules of others: %o', async (kind) => {
  const { here } = place
  const all = await onTheWire()
  expect(all.encrypted).toEqual(all.plain)
  expect(all.plain).toHaveLength(11)
  const bySocket = (name: string) => !name.startsWith('by a link') && !name.startsWith('with a policy id')
  await guarding({ netns: here, networks: [ENCRYPTED], ...kind }, async (firewall) => {
    for (const [what, chains, family] of rules) {
      await administer(chains, family)
      const { plain, encrypted } = await onTheWire()
      expect({ what, encrypted, plain }).toEqual({ what, encrypted: [], plain: kind.exclusive ? [] : all.plain })
      if (family !== undefined) await inNetns(here, 'nft', 'delete', 'table', family, 'admin')
    }
    const { drops } = await firewall.read()
    expect(drops).toMatchObject({ in: 0, forwarded: 0, diverted: 0, fragments: 0, quoted: 0 })
    expect(drops.out).toBeGreaterThan(0)
    if (kind.linksElsewhere) {
      // What a socket sends is told from what a link does, unless the link is here.
      expect(drops.forged).toBeGreaterThan(rules.length * all.plain.filter(bySocket).length)
    } else {
      expect(drops.forged).toBe(0)
    }
  })
  await inNetns(here, 'nft', 'delete', 'table', 'inet', 'admin')
})

test('by source NAT of any priority', async () => {
  const { here } = place
  const priorities = [-199, -1, 99, 100, 101, 300, 301, LAST]
  const sport = (i: number) => 20_000 + i
  const source = (i: number) => `udp dport ${PORT} udp sport ${sport(i)} counter masquerade`
  await administer(priorities.map((priority, i) => chain('nat', 'postrouting', priority, source(i))).join(''))
  await guarding({ netns: here, networks: [ENCRYPTED] }, async () => {
    const seen = await onTheWire(async () => {
      for (const [i, priority] of priorities.entries()) {
        const sending = { to: OTHER, port: PORT, sport: sport(i), name: `priority ${priority}` }
        for (const vni of [PLAIN, ENCRYPTED]) await probe.send(here, { ...sending, vnis: [vni] })
      }
    })
    expect(seen).toEqual({ encrypted: [], plain: priorities.map((priority) => `priority ${priority}`).sort() })
  })
  const counted = await inNetns(here, 'nft', 'list', 'table', 'inet', 'admin')
  expect(Array.from(counted.matchAll(/counter packets (\d+)/g), ([, packets]) => Number(packets) > 0)).toEqual(
    priorities.map(() => true),
  )
  await inNetns(here, 'nft', 'delete', 'table', 'inet', 'admin')
})

test.each(['encap', 'inline'])(
  'by a route into segments, %s: they pass no hook after they are routed',
  async (mode) => {
    const { here } = place
    const route = '2001:db8::2/128'
    // The neighbour itself is the only segment: what it gets it need not understand.
    await ip(here, [`route add ${route} encap seg6 mode ${mode} segs fe80::2 dev eth0`])
    const send = () => onTheWire(() => probe.send(here, { to: ['2001:db8::2'], port: PORT, vnis: VNIS }))
    expect(await send()).toEqual({ encrypted: ['sent'], plain: ['sent'] })
    await guarding({ netns: here, networks: [ENCRYPTED] }, async (firewall) => {
      expect(await send()).toEqual({ encrypted: [], plain: ['sent'] })
      expect((await firewall.read()).drops.out).toBe(1)
    })
    await ip(here, [`route delete ${route}`])
  },
)

test('to this host itself', async () => {
  const { here } = place
  const to = ['127.0.0.1', '192.0.2.1', '::1', '2001:db8::1']
  const send = async () =>
    names(await probe.sniffedDuring(here, 'lo', () => probe.send(here, { to, port: PORT, vnis: VNIS })))
  expect(await send()).toEqual({ encrypted: ['sent'], plain: ['sent'] })
  await guarding({ netns: here, networks: [ENCRYPTED] }, async () => {
    expect(await send()).toEqual({ encrypted: [], plain: ['sent'] })
  })
})

test.each([
  [4, '192.0.2.1', '192.0.2.2', [3, 11, 12], 8],
  [6, '2001:db8::1', '2001:db8::2', [1, 2, 3, 4], 128],
] as const)('quoted by an ICMP error of IPv%i', async (_, source, to, types, ping) => {
  const { here } = place
  const quote = () => onTheWire(() => probe.quote(here, { source, to, port: PORT, vnis: VNIS }))
  const all = [...types, ping].map((type) => `type ${type}`).sort()
  expect(await quote()).toEqual({ encrypted: all, plain: all })
  await guarding({ netns: here, networks: [ENCRYPTED] }, async (firewall) => {
    expect(await quote()).toEqual({ encrypted: [`type ${ping}`], plain: all })
    expect((await firewall.read()).drops).toMatchObject({ out: 0, quoted: types.length })
  })
})
