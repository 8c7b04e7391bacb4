import { closeSync, openSync } from 'node:fs'
import { constants, release } from 'node:os'
import { basename } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { InvalidArgument, NetlinkError, PartialFailure } from '../../../lib/base/errors.js'
import {
  createVxlan,
  deleteVxlan,
  LinkClash,
  LinkDiffers,
  listVxlan,
  type Difference,
  type VxlanLink,
  type VxlanOptions,
} from '../../../lib/vxlan/index.js'
import { Route } from '../../../lib/kernel/route.js'
import { VXLAN } from '../../../lib/kernel/vxlan.js'
import { feedNetns, inNetns, withNetns } from '../netns.js'
import { batch, clear, interfere, ip, links, shown, useGround } from './vxlan.js'

const { here, home, third } = useGround()
const moved = { netns: here, moveTo: home }

afterEach(() => {
  vi.restoreAllMocks()
})

type Made = Omit<VxlanOptions, 'netns' | 'moveTo'>

/** Links, and what `ip link add` takes for the same. */
type Pair = readonly [options: Made, general: string, type: string]
const pairs: readonly Pair[] = [
  [{ name: 'plain', vni: 1 }, '', 'id 1 dstport 4789 noudpcsum'],
  [{ name: 'first', vni: 0, up: false }, '', 'id 0 dstport 4789 noudpcsum'],
  [{ name: 'last', vni: 0xff_ffff, udpChecksum: true }, '', 'id 16777215 dstport 4789 udpcsum'],
  [{ name: 'fifteen-letters', vni: 2, port: 65535 }, '', 'id 2 dstport 65535 noudpcsum'],
  [
    {
      name: 'all4',
      vni: 3,
      port: 1,
      local: '192.0.2.1',
      remote: '192.0.2.9',
      device: 'eth0',
      ttl: 9,
      tos: 0x10,
      mtu: 1450,
    },
    'mtu 1450',
    'id 3 dstport 1 local 192.0.2.1 remote 192.0.2.9 dev eth0 ttl 9 tos 0x10 noudpcsum',
  ],
  [
    { name: 'on', vni: 4, learning: true, proxy: true, l2miss: true, l3miss: true, tos: 1, mac: '02:00:00:00:00:0A' },
    'address 02:00:00:00:00:0a',
    'id 4 dstport 4789 learning proxy l2miss l3miss tos inherit noudpcsum',
  ],
  [
    { name: 'off', vni: 5, learning: false, proxy: false, l2miss: false, l3miss: false, ttl: 0, mtu: 68 },
    'mtu 68',
    'id 5 dstport 4789 nolearning noproxy nol2miss nol3miss noudpcsum',
  ],
  [
    { name: 'group4', vni: 6, group: '239.1.1.1', device: 'eth0' },
    '',
    'id 6 dstport 4789 group 239.1.1.1 dev eth0 noudpcsum',
  ],
  [{ name: 'bridged', vni: 7, bridge: 'br0', mtu: 65535 }, 'mtu 65535', 'id 7 dstport 4789 noudpcsum'],
  [
    { name: 'six', vni: 8, local: '2001:db8::1' },
    '',
    'id 8 dstport 4789 local 2001:db8::1 noudpcsum udp6zerocsumtx udp6zerocsumrx',
  ],
  [
    { name: 'six-sum', vni: 9, remote: '2001:db8::2', udpChecksum: true, mtu: 1430, device: 'eth0' },
    'mtu 1430',
    'id 9 dstport 4789 remote 2001:db8::2 dev eth0 udpcsum noudp6zerocsumtx udp6zerocsumrx',
  ],
  [
    { name: 'group6', vni: 10, group: 'ff05::1', local: '2001:db8::1', device: 'eth0' },
    '',
    'id 10 dstport 4789 group ff05::1 local 2001:db8::1 dev eth0 noudpcsum udp6zerocsumtx udp6zerocsumrx',
  ],
]

/** `ip -6` alone makes such a link of IPv6: it does not take the unspecified address. */
const addressless: Pair = [
  { name: 'six-none', vni: 11, family: 6 },
  '',
  'id 11 dstport 4789 noudpcsum udp6zerocsumtx udp6zerocsumrx',
]

test.each([
  ['where it is made', { netns: here }],
  ['moved', moved],
])('a link %s reads as one that ip link made', async (_, place: { netns: string; moveTo?: string }) => {
  const { moveTo } = place
  const lives = moveTo ?? here
  const asked = [...pairs, addressless].map(([options]) => ({ ...options, ...place }))
  const made = await createVxlan(asked)
  expect(made.every(({ created, replaced }) => created && !replaced)).toBe(true)
  const ours = await shown(lives)
  expect(ours.size).toBe(asked.length)
  const listed = (await listVxlan({ netns: lives })).map(({ name, index }) => `${index} ${name}`)
  expect(listed).toEqual(made.map(({ name, index }) => `${index} ${name}`))
  if (moveTo !== undefined) expect(await shown(here)).toEqual(new Map())

  await clear(lives)
  await ip(here, ...pairs.map((pair) => addedByIp(pair, moveTo)))
  await batch(['-6', '-n', basename(here)], addedByIp(addressless, moveTo))
  // It looks for a bridge where it is itself.
  if (moveTo !== undefined) await ip(moveTo, 'link set bridged master br0')
  expect(ours).toEqual(await shown(lives))
  // And that is what was asked for.
  expect((await createVxlan(asked)).every(({ created }) => !created)).toBe(true)
})

function addedByIp([{ name, up, bridge }, general, type]: Pair, moveTo: string | undefined): string {
  const netns = moveTo === undefined ? '' : `netns ${basename(moveTo)}`
  const master = bridge === undefined || moveTo !== undefined ? '' : `master ${bridge}`
  return `link add ${name} ${up === false ? '' : 'up'} ${general} ${master} ${netns} type vxlan ${type}`
}

test("a moved link's socket stays: packets pass, with no checksum", async () => {
  const far = home
  for (const [i, netns] of [here, far].entries()) {
    await ip(
      netns,
      `address add 192.0.2.${i + 1}/24 dev eth0`,
      `address add 2001:db8::${i + 1}/64 dev eth0 nodad`,
      'link set eth0 up',
    )
  }
  const rules = ['ip', 'ip6'].flatMap((family) =>
    ['0', '!= 0'].map((sum) => `meta protocol ${family} udp dport 4789 @th,48,16 ${sum} counter`),
  )
  const chain = `type filter hook input priority -300; ${rules.join('; ')};`
  await feedNetns(far, `table inet t { chain c { ${chain} }; }`, 'nft', '-f', '-')
  await ip(
    far,
    'link add vx4 up type vxlan id 1 dstport 4789 remote 192.0.2.1 noudpcsum',
    'link add vx6 up type vxlan id 2 dstport 4789 remote 2001:db8::1 udp6zerocsumtx udp6zerocsumrx',
    'address add 10.0.4.2/24 dev vx4',
    'address add 10.0.6.2/24 dev vx6',
  )

  await createVxlan([
    { name: 'vx4', vni: 1, local: '192.0.2.1', remote: '192.0.2.2', netns: here, moveTo: third },
    { name: 'vx6', vni: 2, local: '2001:db8::1', remote: '2001:db8::2', netns: here, moveTo: third },
  ])
  await ip(third, 'address add 10.0.4.1/24 dev vx4', 'address add 10.0.6.1/24 dev vx6')
  for (const address of ['10.0.4.2', '10.0.6.2']) {
    // Three answers, as soon as the devices have their carriers.
    await inNetns(third, 'ping', '-qc', '3', '-i', '0.2', '-w', '60', address)
  }
  const counted = (await inNetns(far, 'nft', 'list', 'ruleset')).matchAll(/counter packets (\d+)/g)
  const [none4, some4, none6, some6] = Array.from(counted, ([, count]) => Number(count))
  expect(none4).toBeGreaterThanOrEqual(3)
  expect(none6).toBeGreaterThanOrEqual(3)
  expect([some4, some6]).toEqual([0, 0])
  expect(await inNetns(here, 'ss', '-Hlun')).toMatch(/:4789/)
  expect(await inNetns(third, 'ss', '-Hlun')).toBe('')
})

describe('a link that is there', () => {
  const asked = { name: 'vx', vni: 1, local: '192.0.2.1', device: 'eth0', mtu: 1400 }

  test('is left alone if it is what is asked for, whatever else it has', async () => {
    const { index } = await createVxlan({ ...asked, ...moved, bridge: 'br0', learning: false })
    await ip(home, 'link set vx alias theirs txqueuelen 7')
    const before = await shown(home)
    const unmade = { name: 'vx', index, created: false, replaced: false }
    expect(await createVxlan({ ...asked, ...moved })).toEqual(unmade)
    expect(await createVxlan({ ...asked, ...moved, replace: true, bridge: 'br0' })).toEqual(unmade)
    expect(await shown(home)).toEqual(before)
    // By descriptors of the same namespaces, too.
    const [netns, moveTo] = [here, home].map((path) => openSync(path, 'r')) as [number, number]
    expect(await createVxlan({ ...asked, netns, moveTo })).toEqual(unmade)
    for (const descriptor of [netns, moveTo]) closeSync(descriptor)
  })

  const changes: [change: Partial<VxlanOptions>, differences: Difference[]][] = [
    [{ vni: 2 }, [{ attribute: 'vni', have: 1, want: 2 }]],
    [{ port: 4790 }, [{ attribute: 'port', have: 4789, want: 4790 }]],
    [{ up: false }, [{ attribute: 'up', have: true, want: false }]],
    [{ local: '192.0.2.2' }, [{ attribute: 'local', have: '192.0.2.1', want: '192.0.2.2' }]],
    [{ remote: '192.0.2.9' }, [{ attribute: 'remote', have: undefined, want: '192.0.2.9' }]],
    [{ group: '239.1.1.1' }, [{ attribute: 'group', have: undefined, want: '239.1.1.1' }]],
    [{ ttl: 3 }, [{ attribute: 'ttl', have: 0, want: 3 }]],
    [{ tos: 3 }, [{ attribute: 'tos', have: 0, want: 3 }]],
    [{ learning: false }, [{ attribute: 'learning', have: true, want: false }]],
    [{ proxy: true }, [{ attribute: 'proxy', have: false, want: true }]],
    [{ l2miss: true }, [{ attribute: 'l2miss', have: false, want: true }]],
    [{ l3miss: true }, [{ attribute: 'l3miss', have: false, want: true }]],
    [{ mtu: 1401 }, [{ attribute: 'mtu', have: 1400, want: 1401 }]],
    [{ udpChecksum: true }, [{ attribute: 'udpChecksum', have: false, want: true }]],
    [
      { mac: '02:00:00:00:00:09' },
      [{ attribute: 'mac', have: expect.stringMatching(/^..(:..){5}$/) as string, want: '02:00:00:00:00:09' }],
    ],
    [{ bridge: 'br0' }, [{ attribute: 'bridge', have: undefined, want: 'br0' }]],
    [
      { local: '2001:db8::1', ttl: 1 },
      [
        { attribute: 'local', have: '192.0.2.1', want: '2001:db8::1' },
        { attribute: 'udpZeroChecksum6Tx', have: false, want: true },
        { attribute: 'udpZeroChecksum6Rx', have: false, want: true },
        { attribute: 'ttl', have: 0, want: 1 },
      ],
    ],
  ]

  test('and differs is reported by all that does, and replaced on request', async () => {
    await createVxlan({ ...asked, netns: here })
    const before = await links(here)
    for (const [change, differences] of changes) {
      const refused = createVxlan({ ...asked, ...change, netns: here })
      await expect(refused, JSON.stringify(change)).rejects.toThrow(LinkDiffers)
      await expect(refused, JSON.stringify(change)).rejects.toMatchObject({ link: 'vx', differences })
    }
    expect(await links(here)).toBe(before)
    for (const change of [{ vni: 2 }, { learning: false }, { bridge: 'br0', local: '2001:db8::1' }]) {
      const options = { ...asked, ...change, netns: here, replace: true }
      const made = await createVxlan(options)
      expect(made, JSON.stringify(change)).toMatchObject({ created: true, replaced: true })
      expect(await createVxlan(options)).toEqual({ ...made, created: false, replaced: false })
    }
  })

  test('with its socket, its device, its bridge elsewhere, differs', async () => {
    await ip(here, 'link add eth9 type veth peer name eth8')
    await ip(home, 'link add br9 type bridge')
    await createVxlan({ ...asked, ...moved, bridge: 'br0' })
    const differing = (options: Partial<VxlanOptions>) =>
      createVxlan({ ...asked, ...moved, ...options }).then(
        () => undefined,
        (error: unknown) => (error as LinkDiffers).differences,
      )
    const own = "the link's own"
    expect(await differing({})).toBeUndefined()
    expect(await differing({ bridge: 'br9' })).toEqual([{ attribute: 'bridge', have: 'br0', want: 'br9' }])
    expect(await differing({ device: 'eth9' })).toEqual([{ attribute: 'device', have: 'eth0', want: 'eth9' }])
    expect(await differing({ netns: home })).toMatchObject([{ attribute: 'netns', want: own }])
    expect(await differing({ netns: third })).toMatchObject([{ attribute: 'netns', want: third }])
    await clear(home)
    await createVxlan({ ...asked, netns: home })
    expect(await differing({ bridge: 'br0' })).toMatchObject([
      { attribute: 'bridge', have: undefined, want: 'br0' },
      { attribute: 'netns', have: own, want: here },
    ])
  })

  test('and is no VXLAN link, or has that as a second name, is never replaced', async () => {
    await ip(here, 'link add vx7 type vxlan id 7 dstport 4789 noudpcsum', 'link property add dev vx7 altname vx8')
    const before = await links(here)
    const replacing = createVxlan({ name: 'br0', vni: 1, netns: here, replace: true })
    const kind = { attribute: 'kind', have: 'bridge', want: 'vxlan' }
    await expect(replacing).rejects.toMatchObject({ code: 'ERR_XFRMESH_LINK_DIFFERS', differences: [kind] })
    const named = createVxlan({ name: 'vx8', vni: 7, up: false, netns: here, replace: true })
    await expect(named).rejects.toMatchObject({ differences: [{ attribute: 'name', have: 'vx7', want: 'vx8' }] })
    expect(await links(here)).toBe(before)
  })
})

describe('a link that cannot be', () => {
  const asked = { name: 'vx', vni: 1, local: '2001:db8::2', ...moved }

  const clash = async (options: VxlanOptions) => {
    const refused = createVxlan(options)
    await expect(refused).rejects.toThrow(LinkClash)
    return refused.catch((error: unknown) => error as LinkClash) as Promise<LinkClash>
  }

  test('for a socket on its port is refused by the name of the link whose it is, wherever that lives', async () => {
    await ip(
      here,
      'link add v6 up type vxlan id 7 dstport 4789 local 2001:db8::1',
      // One of the other family, and one that is down, have no part in it.
      'link add v4 up type vxlan id 7 dstport 4789 local 192.0.2.1',
      'link add down type vxlan id 8 dstport 4789 local 2001:db8::1',
    )
    const off = { attribute: 'udpZeroChecksum6Rx', have: false, want: true }
    const before = await links(home)
    for (const [where, from, to] of [
      ['in the namespace of the socket', here, third],
      ['in the namespace of id', third, home],
    ] as const) {
      const { other, differences, message } = await clash(asked)
      expect({ other, differences }).toEqual({ other: 'v6', differences: [off] })
      expect(message).toContain(where)
      expect(await links(home)).toBe(before)
      await ip(from, `link set v6 netns ${basename(to)}`)
      await ip(to, 'link set v6 up')
    }
    const { other, message } = await clash(asked)
    expect(other).toBe('v6')
    expect(message).toContain('in the namespace of this link')
    await ip(home, 'link set v6 down')
    expect(await createVxlan(asked)).toMatchObject({ created: true })
  })

  test('for a socket that may be of a link, or that cannot be found, is refused in words that say so', async () => {
    await ip(here, 'link add gbp up type vxlan id 7 dstport 4789 gbp')
    const { other, differences, message } = await clash({ name: 'plain', vni: 2, netns: here })
    const gbp = { attribute: 'gbp', have: true, want: false }
    expect({ other, differences }).toEqual({ other: 'gbp', differences: [gbp] })
    expect(message).toContain('it seems (it has no address')
    await clear(here)
    await withNetns(async (unknown) => {
      // It knows this one, but not the other way round: nothing tells of the link but its VNI.
      const away = { ...asked, vni: 70, port: 4790 }
      await createVxlan({ ...away, name: 'away', moveTo: unknown })
      const vni = await clash(away)
      expect(vni.other).toBeUndefined()
      expect(vni.message).toContain('moved to one unknown here')
      // And nothing but the port.
      const type = 'type vxlan id 71 dstport 4791 local 2001:db8::1'
      await ip(here, `link add away6 up netns ${basename(unknown)} ${type}`)
      const port = await clash({ ...asked, port: 4791 })
      expect(port.other).toBeUndefined()
      expect(port.message).toContain("ss -lunp 'sport = :4791'")
    })
  })

  test('for a link that has its VNI is refused by that name, wherever it lives', async () => {
    await createVxlan({ ...asked, name: 'first', moveTo: here })
    expect(await clash(asked)).toMatchObject({ other: 'first' })
    await clear(here)
    await createVxlan({ ...asked, name: 'second' })
    expect(await clash({ ...asked, moveTo: home })).toMatchObject({ other: 'second' })
    expect(await clash({ ...asked, moveTo: third })).toMatchObject({ other: 'second' })
    // Another port, another family: another network.
    const others = [{ port: 4790 }, { local: '192.0.2.1' }].map((more, i) => ({ ...asked, ...more, name: `other${i}` }))
    expect(await createVxlan(others)).toMatchObject([{ created: true }, { created: true }])
  })

  test('for its name, where the kernel looks for that in the wrong namespace, is refused in words', async () => {
    const taken = { ...asked, name: 'br7' }
    await ip(here, 'link add br7 type bridge')
    const outcome = await createVxlan(taken).catch((error: unknown) => error)
    if (outcome instanceof LinkClash) expect(outcome.message).toContain('choose another name')
    else expect(outcome).toMatchObject({ created: true })
    expect((await shown(home)).size).toBe(outcome instanceof LinkClash ? 0 : 1)
    expect(await links(here)).toMatch(/ br7: /)
  })
})

test.each([
  ['the bridge', home, { bridge: 'gone0' }, 'link add gone0 type bridge', 'EINVAL'],
  ['the device', here, { device: 'gone0' }, 'link add gone0 type veth peer name gone1', 'ENODEV'],
] as const)('%s goes: reported, and nothing is left', async (_, where, more, add, code) => {
  await ip(where, add)
  interfere(() => ip(where, 'link delete gone0'))
  const failing = createVxlan({ name: 'vx', vni: 1, ...moved, ...more })
  await expect(failing).rejects.toThrow(NetlinkError)
  await expect(failing).rejects.toMatchObject({ errno: constants.errno[code] })
  expect((await links(here)) + (await links(home))).not.toMatch(/ vx/)
})

test('many are made and deleted one after the other, whatever becomes of each', async () => {
  const vnis = Array.from({ length: 10 }, (_, i) => i)
  await createVxlan([
    { name: 'vx7', vni: 7, port: 4790, ...moved },
    { name: 'vx8', vni: 8, ...moved },
  ])
  const all = vnis.map((vni) => ({ name: `vx${vni}`, vni, ...moved, ...(vni === 9 && { device: 'none' }) }))
  const failing = createVxlan(all)
  await expect(failing).rejects.toThrow(PartialFailure)
  const failures = [
    { subject: 'options[7]', code: 'ERR_XFRMESH_LINK_DIFFERS' },
    { subject: 'options[9]', code: 'ERR_XFRMESH_INVALID_ARGUMENT' },
  ]
  await expect(failing).rejects.toMatchObject({ report: { requested: 10, applied: 7, unchanged: 1, failures } })
  const there = await shown(home)
  expect(vnis.filter((i) => !there.has(`vx${i}`))).toEqual([9])
  expect(await deleteVxlan(all.map(({ name }) => ({ name, netns: home })))).toEqual(vnis.map((i) => i !== 9))
  expect(await shown(home)).toEqual(new Map())
})

describe('deleteVxlan', () => {
  test('deletes by name, and by VNI and port, and says whether there was one', async () => {
    await createVxlan([4789, 4790].map((port) => ({ name: `vx-${port}`, vni: 1, port, ...moved })))
    expect(await deleteVxlan({ vni: 1, port: 4790, netns: here })).toBe(false)
    expect(await deleteVxlan({ vni: 1, port: 4790, netns: home })).toBe(true)
    expect([...(await shown(home)).keys()]).toEqual(['vx-4789'])
    expect(await deleteVxlan({ name: 'vx-4790', netns: home })).toBe(false)
    expect(await deleteVxlan({ name: 'vx-4789', netns: home })).toBe(true)
    expect(await deleteVxlan({ vni: 1, netns: home })).toBe(false)
    expect(await shown(home)).toEqual(new Map())
  })

  test('leaves alone what is no VXLAN link, and what is not clearly meant', async () => {
    await ip(here, 'link add vx4 type vxlan id 1 dstport 4789', 'link add vx6 type vxlan id 1 dstport 4789 local ::1')
    const before = await links(here)
    const differences = [{ attribute: 'kind', have: 'bridge', want: 'vxlan' }]
    await expect(deleteVxlan({ name: 'br0', netns: here })).rejects.toMatchObject({ differences })
    const either = deleteVxlan({ vni: 1, netns: here })
    await expect(either).rejects.toThrow(/^options.name must be given: vx4 and vx6 have VNI 1 and port 4789$/)
    await expect(either).rejects.toThrow(InvalidArgument)
    expect(await links(here)).toBe(before)
  })
})

/** What this kernel says of attributes that came with Linux 6.5, 6.8 and 6.14, in this order. */
function newer(said: Required<Pick<VxlanLink, 'localBypass' | 'flowLabelPolicy' | 'reservedBits'>>): object {
  const [major, minor] = release().split('.').map(Number) as [number, number]
  const since = [5, 8, 14]
  const isKnown = (i: number) => major > 6 || (major === 6 && minor >= since[i]!)
  return Object.fromEntries(Object.entries(said).map(([name, value], i) => [name, isKnown(i) ? value : undefined]))
}

test('listVxlan says of what is newer than ip what was asked for, where the kernel knows of it', async () => {
  const route = await Route.open(here, 'netns')
  await route.create({
    ...{ name: 'vx9', kind: VXLAN, up: false, mtu: undefined, mac: undefined, master: undefined, namespace: undefined },
    // IFLA_VXLAN_ID, GROUP6, LOCALBYPASS, LABEL_POLICY (IPv6 alone has it), RESERVED_BITS.
    data: (writer) =>
      writer
        .u32(1, 9)
        .bytes(16, new Uint8Array(16))
        .u8(31, 0)
        .u32(32, 1)
        .bytes(33, Uint8Array.of(0, 1, 2, 3, 0, 0, 0, 7)),
  })
  await route.close()
  const reservedBits = { flags: 0x00010203, vni: 7 }
  expect(await listVxlan({ netns: here })).toMatchObject([
    { vni: 9, ...newer({ localBypass: false, flowLabelPolicy: 'inherit', reservedBits }) },
  ])
})

test('listVxlan says what ip says', async () => {
  const attributes =
    'id 5 local 192.0.2.1 remote 192.0.2.2 dev eth0 dstport 4790 srcport 1000 2000 ttl inherit tos 8 df set ' +
    'nolearning ageing 77 maxaddress 99 proxy rsc l2miss l3miss noudpcsum udp6zerocsumtx udp6zerocsumrx remcsumtx remcsumrx gbp'
  await ip(
    here,
    `link add vx5 address 02:00:00:00:00:05 mtu 1300 netns ${basename(home)} type vxlan ${attributes}`,
    'link add vx6 type vxlan id 6 group ff05::1 dev eth0 dstport 4789 flowlabel 0x12345 ttl 7 df inherit',
    'link add vx7 up type vxlan external dstport 8472 vnifilter',
    'link add vx8 type vxlan external gpe dstport 4790',
  )
  await ip(home, 'link set vx5 master br0')
  const [five] = await listVxlan({ netns: home })
  const numbers = JSON.parse(await inNetns(home, 'ip', '-j', 'link')) as { ifname: string; ifindex: number }[]
  const numberOf = (name: string) => numbers.find(({ ifname }) => ifname === name)!.ifindex
  const { link_netnsid } = numbers.find(({ ifname }) => ifname === 'vx5') as unknown as { link_netnsid: number }
  const device = JSON.parse(await inNetns(here, 'ip', '-j', 'link', 'show', 'eth0')) as [{ ifindex: number }]
  expect(five).toEqual({
    ...{ name: 'vx5', index: numberOf('vx5'), up: false, mtu: 1300, mac: '02:00:00:00:00:05' },
    ...{ vni: 5, port: 4790, sourcePorts: { from: 1000, to: 2000 }, ttl: 'inherit', tos: 8 },
    ...{ family: 4, local: '192.0.2.1', remote: '192.0.2.2', group: undefined },
    ...{ bridge: 'br0', bridgeIndex: numberOf('br0'), device: 'eth0', deviceIndex: device[0].ifindex },
    ...{ learning: false, ageingSeconds: 77, limit: 99, proxy: true, rsc: true, l2miss: true, l3miss: true },
    ...{ udpChecksum: false, udpZeroChecksum6Tx: true, udpZeroChecksum6Rx: true },
    ...{ remoteChecksumTx: true, remoteChecksumRx: true, remoteChecksumNoPartial: false },
    ...{ gbp: true, gpe: false, external: false, vniFilter: false, flowLabel: 0, dontFragment: 'set' },
    // But for what the VNI, gbp and remcsumrx take of the header.
    ...newer({ localBypass: true, flowLabelPolicy: 'fixed', reservedBits: { flags: 0x77000000, vni: 0 } }),
    socketNamespace: link_netnsid,
  })
  expect(await listVxlan({ netns: here })).toMatchObject([
    {
      name: 'vx6',
      family: 6,
      group: 'ff05::1',
      remote: undefined,
      flowLabel: 0x12345,
      ttl: 7,
      dontFragment: 'inherit',
    },
    { name: 'vx7', external: true, vniFilter: true, gpe: false, up: true, family: undefined, device: undefined },
    { name: 'vx8', external: true, gpe: true, mac: undefined, socketNamespace: undefined },
  ])
})
