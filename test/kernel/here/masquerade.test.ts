import { describe, expect, test, vi } from 'vitest'
import { InvalidArgument, InvalidState, NetlinkError } from '../../../lib/base/errors.js'
import { Nft, type ChainName } from '../../../lib/kernel/nft.js'
import { Masquerade, type Attachment, type Layout } from '../../../lib/masquerade/masquerade.js'
import { feedNetns, inNetns, withNetns } from '../netns.js'
import { base, idOf, listTable, plugins, ruleFor, TABLE, type Container } from '../plugins.js'

const one: Container = { network: 'unit-test', interfaceName: 'eth0', containerId: 'one' }
const two = { ...one, containerId: 'two' }
const three = { ...one, containerId: 'three' }
const four = { ...one, containerId: 'four' }
const other: Container = { network: 'alternate', interfaceName: 'net1', containerId: 'three' }
const long: Container = { network: 'a-network-of-a-long-name', interfaceName: 'eth0', containerId: 'c'.repeat(64) }
const quoted: Container = { network: 'a "quoted" one', interfaceName: 'eth0', containerId: 'with"quotes' }
const many = [
  ...[
    '10.0.0.5/24',
    '10.0.0.6/24',
    '10.0.1.7/24',
    '10.128.1.7/9',
    '10.0.1.8/31',
    '10.0.1.9/32',
    '10.0.1.10/18',
    '10.0.1.11/0',
  ],
  ...[
    '2001:db8::5/64',
    '2001:db8::6/64',
    '2001:db8:1::7/62',
    '2001:db8:1::8/128',
    '2001:db8:1::9/48',
    '2001:db8:1::10/0',
  ],
]

async function withMasquerade(
  layout: Layout,
  work: (masquerade: Masquerade, netns: string) => Promise<void>,
): Promise<void> {
  await withNetns(async (netns) => {
    await using masquerade = await Masquerade.open({ netns, layout })
    await work(masquerade, netns)
  })
}

const attachment = (container: Container, ...addresses: string[]): Attachment => ({ ...container, addresses })
const valid = ({ interfaceName, containerId }: Container) => ({ interfaceName, containerId })

/** What a writer may do: ours, or the plugins. */
interface Writer {
  add(container: Container, ...addresses: string[]): Promise<unknown>
  remove(container: Container): Promise<unknown>
  collect(network: string, ...valid: Container[]): Promise<unknown>
}

const ours = (masquerade: Masquerade): Writer => ({
  add: (container, ...addresses) => masquerade.add([attachment(container, ...addresses)]),
  remove: (container) => masquerade.remove([container]),
  collect: (network, ...all) => masquerade.collect(network, all.map(valid)),
})

const theirs = (netns: string): Writer => ({
  add: (container, ...addresses) => plugins.add(netns, container, addresses),
  remove: (container) => plugins.remove(netns, container),
  collect: (network, ...all) => plugins.collect(netns, network, all.map(valid)),
})

/** What the plugins' own tests go through, and more; each step takes the writer whose turn it is. */
const story: ((writer: Writer) => Promise<unknown>)[] = [
  (w) => w.remove(one),
  (w) => w.add(one, '192.168.1.1/24'),
  (w) => w.add(two, '192.168.1.2/24', '2001:db8::2/64'),
  (w) => w.add(three, '192.168.99.5/24'),
  (w) => w.add(other, ...many),
  (w) => w.add(long, '172.16.0.9/12'),
  (w) => w.add(quoted, '172.16.0.10/12'),
  // An address used again before who had it is gone.
  (w) => w.add(four, '192.168.1.1/24'),
  (w) => w.remove(one),
  // Again, with other addresses.
  (w) => w.add(two, '192.168.1.3/24'),
  (w) => w.add(two, '192.168.1.3/24', '2001:db8::3/64'),
  (w) => w.collect('unit-test', two, three, one),
  (w) => w.collect('alternate', other),
  (w) => w.remove(one),
  (w) => w.add(one, '10.0.0.1/8'),
  (w) => w.add(one),
  (w) => w.collect(long.network, long),
  (w) => w.collect(quoted.network, quoted),
  (w) => w.remove(quoted),
  (w) => w.collect(long.network),
  (w) => w.collect('none'),
  (w) => w.collect('unit-test'),
  (w) => w.collect('alternate'),
]

describe("the layout 'rules'", () => {
  test("leaves after each step of the plugins' life the text that they would, as nft lists it", () =>
    withNetns((expected) =>
      withMasquerade('rules', async (masquerade, netns) => {
        for (const [i, step] of story.entries()) {
          await step(theirs(expected))
          await step(ours(masquerade))
          expect(await listTable(netns), `after step ${i}`).toBe(await listTable(expected))
        }
        expect(await listTable(netns)).toContain('goto masq_checks')
      }),
    ))

  test.each([0, 1])('and the plugins take over from each other at each step, from step %i on', (first) =>
    withNetns((expected) =>
      withMasquerade('rules', async (masquerade, netns) => {
        for (const [i, step] of story.entries()) {
          await step(theirs(expected))
          await step(i % 2 === first ? ours(masquerade) : theirs(netns))
          expect(await listTable(netns), `after step ${i}`).toBe(await listTable(expected))
        }
      }),
    ),
  )

  test('does at once what the plugins do one by one, as nft -f of all rules would', () =>
    withNetns((expected) =>
      withMasquerade('rules', async (masquerade, netns) => {
        const all = Array.from({ length: 1000 }, (_, i) =>
          attachment(
            { ...one, containerId: `c${i}` },
            `10.1.${i >> 8}.${i & 255}/16`,
            `2001:db8::${i.toString(16)}/64`,
          ),
        )
        const rules = all.flatMap((each) => each.addresses.map((address) => ruleFor(each, address)))
        await feedNetns(expected, base + rules.join(''), 'nft', '-f', '-')
        expect(await masquerade.add(all)).toMatchObject({ added: 2000, removed: 0 })
        expect(await listTable(netns)).toBe(await listTable(expected))
        expect(await masquerade.collect('unit-test', all.slice(0, 990).map(valid))).toMatchObject({ removed: 20 })
        await plugins.collect(expected, 'unit-test', all.slice(0, 990).map(valid))
        expect(await listTable(netns)).toBe(await listTable(expected))
        expect(await masquerade.remove(all)).toMatchObject({ added: 0, removed: 1980 })
        expect(await listTable(netns)).not.toContain('saddr')
      }),
    ))

  test('can be restored from what nft listed', () =>
    withMasquerade('rules', async (masquerade, netns) => {
      await masquerade.add([attachment(other, ...many), attachment(long, '172.16.0.9/12')])
      const [text, listed] = [await listTable(netns), await masquerade.list()]
      await inNetns(netns, 'nft', 'flush', 'ruleset')
      expect(await masquerade.list()).toEqual([])
      await feedNetns(netns, text, 'nft', '-f', '-')
      expect(await masquerade.list()).toEqual(listed)
    }))
})

describe("the layout 'set'", () => {
  test('keeps an element for each address, a chain for each subnet, and its maps as long as they are used', () =>
    withMasquerade('set', async (masquerade, netns) => {
      await masquerade.add([attachment(one, '192.168.1.1/24', '2001:db8::1/64'), attachment(two, '192.168.1.2/24')])
      const comment = (container: Container) => /comment "(.*)"/.exec(ruleFor(container, '::/0'))![1]!
      const expected = `table ${TABLE} {
	comment "Masquerading for plugins from github.com/containernetworking/plugins"
	map masq_ipv4 {
		type ipv4_addr : verdict
		comment "xfrmesh: IPv4 addresses and their subnets' chains"
		elements = { 192.168.1.1 comment "${comment(one)}" : jump subnet_192.168.1.0/24,
			     192.168.1.2 comment "${comment(two)}" : jump subnet_192.168.1.0/24 }
	}

	map masq_ipv6 {
		type ipv6_addr : verdict
		comment "xfrmesh: IPv6 addresses and their subnets' chains"
		elements = { 2001:db8::1 comment "${comment(one)}" : jump subnet_2001-db8--/64 }
	}

	chain masq_checks {
		comment "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet"
		ip6 saddr vmap @masq_ipv6 comment "xfrmesh: IPv6 addresses and their subnets' chains"
		ip saddr vmap @masq_ipv4 comment "xfrmesh: IPv4 addresses and their subnets' chains"
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip daddr 224.0.0.0/4 return
		ip6 daddr ff00::/8 return
		goto masq_checks
	}

	chain subnet_192.168.1.0/24 {
		ip daddr != 192.168.1.0/24 masquerade
	}

	chain subnet_2001-db8--/64 {
		ip6 daddr != 2001:db8::/64 masquerade
	}
}
`
      // nft breaks lines where it likes.
      expect((await listTable(netns)).split(/\s+/)).toEqual(expected.split(/\s+/))
      await masquerade.remove([one])
      const half = await listTable(netns)
      expect(half).not.toContain('ipv6')
      expect(half).not.toContain('2001')
      expect(half).toContain('192.168.1.2 comment')
      await masquerade.collect('unit-test', [])
      // As the plugins leave it when all are gone.
      await withNetns(async (expected) => {
        await feedNetns(expected, base, 'nft', '-f', '-')
        expect(await listTable(netns)).toBe(await listTable(expected))
      })
    }))

  test('can be restored from what nft listed', () =>
    withMasquerade('set', async (masquerade, netns) => {
      await masquerade.add([attachment(other, ...many), attachment(long, '172.16.0.9/12')])
      const [text, listed] = [await listTable(netns), await masquerade.list()]
      await inNetns(netns, 'nft', 'flush', 'ruleset')
      await feedNetns(netns, text, 'nft', '-f', '-')
      expect(await masquerade.list()).toEqual(listed)
      // And goes on from there.
      expect(await masquerade.remove([other, long])).toMatchObject({ removed: many.length + 1 })
      expect(await masquerade.list()).toEqual([])
    }))
})

describe.each<[Layout]>([['rules'], ['set']])("with the layout '%s'", (layout) => {
  const has = (container: Container, ...addresses: string[]) => ({
    owner: idOf(container),
    ...container,
    addresses,
  })
  /** In the order of a list. */
  const listed = (...all: ReturnType<typeof has>[]) => all.sort((a, b) => (a.owner < b.owner ? -1 : 1))

  test('an address that two have stays with who is left, whoever goes first', () =>
    withMasquerade(layout, async (masquerade) => {
      for (const [first, second] of [
        [one, two],
        [two, one],
      ] as const) {
        for (const [a, b] of [
          ['192.168.1.1/24', '192.168.1.1/24'],
          ['192.168.1.1/24', '192.168.1.1/16'],
          ['2001:db8::1/64', '2001:db8::1/128'],
        ] as const) {
          await masquerade.add([attachment(one, a)])
          await masquerade.add([attachment(two, b)])
          expect(await masquerade.list()).toEqual(listed(has(one, a), has(two, b)))
          await masquerade.remove([first])
          expect(await masquerade.list()).toEqual([second === one ? has(one, a) : has(two, b)])
          await masquerade.remove([first])
          await masquerade.remove([second])
          expect(await masquerade.list()).toEqual([])
        }
      }
    }))

  test('adding again replaces, in one call too, and what is not there is removed without a word', () =>
    withMasquerade(layout, async (masquerade, netns) => {
      expect(await masquerade.remove([one])).toMatchObject({ added: 0, removed: 0 })
      expect(await masquerade.collect('unit-test', [])).toMatchObject({ added: 0, removed: 0 })
      expect(await masquerade.add([])).toMatchObject({ added: 0, removed: 0 })
      expect(await masquerade.list()).toEqual([])
      expect(await listTable(netns)).toBe('')
      await masquerade.add([attachment(one, '10.0.0.1/24', '10.0.0.2/24'), attachment(two, '10.0.0.3/24')])
      const change = [attachment(one, '10.0.0.1/24'), attachment(two, '10.0.0.4/24'), attachment(one, '10.0.0.2/24')]
      expect(await masquerade.add(change)).toMatchObject({ added: 2, removed: 3 })
      expect(await masquerade.list()).toEqual(listed(has(one, '10.0.0.2/24'), has(two, '10.0.0.4/24')))
      expect(await masquerade.add([attachment(one)])).toMatchObject({ added: 0, removed: 1 })
      expect(await masquerade.list()).toEqual([has(two, '10.0.0.4/24')])
    }))

  test("finds and replaces what the other layout, the plugins or another process wrote, and leaves who else's it is", () =>
    withMasquerade(layout, async (masquerade, netns) => {
      await using another = await Masquerade.open({ netns, layout: layout === 'set' ? 'rules' : 'set' })
      await another.add([attachment(one, '10.0.0.1/24'), attachment(two, '10.0.0.2/24', '2001:db8::2/64')])
      await plugins.add(netns, three, ['10.0.0.3/24'])
      await plugins.add(netns, other, ['10.0.0.1/16'])
      expect(await masquerade.list()).toEqual(
        listed(
          has(one, '10.0.0.1/24'),
          has(two, '10.0.0.2/24', '2001:db8::2/64'),
          has(three, '10.0.0.3/24'),
          has(other, '10.0.0.1/16'),
        ),
      )
      expect(await masquerade.add([attachment(two, '10.0.0.2/24')])).toMatchObject({ added: 1, removed: 2 })
      expect(await masquerade.add([attachment(three, '10.0.0.4/24')])).toMatchObject({ added: 1, removed: 1 })
      expect(await masquerade.remove([one])).toMatchObject({ removed: 1 })
      expect(await another.list()).toEqual(
        listed(has(two, '10.0.0.2/24'), has(three, '10.0.0.4/24'), has(other, '10.0.0.1/16')),
      )
      expect(await another.collect('unit-test', [valid(three)])).toMatchObject({ removed: 1 })
      expect(await masquerade.collect('alternate', [])).toMatchObject({ removed: 1 })
      expect(await masquerade.list()).toEqual([has(three, '10.0.0.4/24')])
    }))

  test('what others write between two calls is seen, whatever it is', () =>
    withMasquerade(layout, async (masquerade, netns) => {
      await masquerade.add([attachment(one, '10.0.0.1/24')])
      // Another table: nothing of ours.
      await inNetns(netns, 'nft', 'add', 'table', 'inet', 'elsewhere')
      expect(await masquerade.add([attachment(two, '10.0.0.2/24')])).toMatchObject({ added: 1, removed: 0 })
      await plugins.add(netns, one, ['10.0.0.5/24'])
      await plugins.remove(netns, two)
      await inNetns(netns, 'nft', 'add', 'table', 'inet', 'elsewhere')
      expect(await masquerade.list()).toEqual(
        listed(
          ...(layout === 'rules' ? [] : [has(two, '10.0.0.2/24')]),
          has(one, ...(layout === 'rules' ? [] : ['10.0.0.1/24']), '10.0.0.5/24'),
        ),
      )
      await masquerade.remove([one, two])
      expect(await masquerade.list()).toEqual([])
      await masquerade.add([attachment(one, '10.0.0.1/24')])
      await inNetns(netns, 'nft', 'flush', 'ruleset')
      expect(await masquerade.remove([one])).toMatchObject({ removed: 0 })
      expect(await masquerade.add([attachment(one, '10.0.0.1/24')])).toMatchObject({ added: 1, removed: 0 })
      await inNetns(netns, 'nft', 'flush', 'chain', ...TABLE.split(' '), 'masq_checks')
      expect(await masquerade.add([attachment(one, '10.0.0.1/24')])).toMatchObject({ added: 1 })
      expect(await masquerade.list()).toEqual([has(one, '10.0.0.1/24')])
      if (layout === 'set') expect(await listTable(netns)).toContain('vmap @masq_ipv4')
    }))

  test('what the kernel refuses changes nothing, is told, and can be done once it is no longer in the way', () =>
    withMasquerade(layout, async (masquerade, netns) => {
      await masquerade.add([attachment(one, '10.0.0.1/24', '2001:db8::1/64')])
      await masquerade.remove([one])
      // From a hook before the route is known nothing may be masqueraded.
      const early = `add chain ${TABLE} early { type nat hook prerouting priority -100 ; }\n`
      await feedNetns(netns, `${early}add rule ${TABLE} early jump masq_checks\n`, 'nft', '-f', '-')
      const before = await listTable(netns)
      const all = [attachment(two, '10.0.0.2/24'), attachment(three, '10.0.0.3/24', '2001:db8::3/64')]
      for (let i = 0; i < 2; i++) {
        await expect(masquerade.add(all)).rejects.toBeInstanceOf(NetlinkError)
        expect(await listTable(netns)).toBe(before)
        expect(await masquerade.list()).toEqual([])
      }
      await inNetns(netns, 'nft', 'delete', 'chain', ...TABLE.split(' '), 'early')
      expect(await masquerade.add(all)).toMatchObject({ added: 3, removed: 0 })
      expect(await masquerade.list()).toEqual(
        listed(has(two, '10.0.0.2/24'), has(three, '10.0.0.3/24', '2001:db8::3/64')),
      )
    }))

  test('what was put in the place of what is remembered is found when the kernel refuses, and nobody else loses', () =>
    withMasquerade(layout, async (masquerade, netns) => {
      await masquerade.add([attachment(one, '10.0.0.1/24'), attachment(two, '10.0.0.2/24')])
      // By a person, who leaves `postrouting` as it is: nothing tells that it is another.
      const text = await inNetns(netns, 'nft', '-a', 'list', 'table', ...TABLE.split(' '))
      const [, handle] = / masquerade comment .* id: one" # handle (\d+)/.exec(text) ?? []
      const swap =
        layout === 'set'
          ? `delete element ${TABLE} masq_ipv4 { 10.0.0.1 }\nadd element ${TABLE} masq_ipv4 { 10.0.0.9 : jump subnet_10.0.0.0/24 }\n`
          : `delete rule ${TABLE} masq_checks handle ${handle}\nadd rule ${TABLE} masq_checks counter\n`
      await feedNetns(netns, swap, 'nft', '-f', '-')
      expect(await masquerade.remove([one])).toMatchObject({ removed: 0 })
      expect(await masquerade.list()).toEqual([has(two, '10.0.0.2/24')])
      expect(await masquerade.remove([two])).toMatchObject({ removed: 1 })
    }))

  test('who is overtaken each time says so, and has changed nothing', () =>
    withMasquerade(layout, async (masquerade, netns) => {
      await masquerade.add([attachment(one, '10.0.0.1/24')])
      const before = await listTable(netns)
      const { value: commit } = Object.getOwnPropertyDescriptor(Nft.prototype, 'commit') as { value: Nft['commit'] }
      let turn = 0
      const overtaken = vi.spyOn(Nft.prototype, 'commit').mockImplementation(async function (this: Nft, ...words) {
        await inNetns(netns, 'nft', 'add', 'table', 'inet', `other${turn++}`)
        return commit.apply(this, words)
      })
      try {
        await expect(masquerade.add([attachment(two, '10.0.0.2/24')])).rejects.toMatchObject({
          code: 'ERR_XFRMESH_BUSY',
        })
      } finally {
        overtaken.mockRestore()
      }
      expect(turn).toBeGreaterThan(10)
      expect(await listTable(netns)).toBe(before)
      expect(await masquerade.add([attachment(two, '10.0.0.2/24')])).toMatchObject({ added: 1 })
    }))

  test('where there was no table when it was opened, the first change takes no look', () =>
    withMasquerade(layout, async (masquerade) => {
      const asked = vi.spyOn(Nft.prototype, 'table')
      try {
        expect(await masquerade.add([attachment(one, '10.0.0.1/24')])).toMatchObject({ added: 1 })
        // What is asked afterwards tells later of others' changes.
        expect(asked).toHaveBeenCalledTimes(1)
      } finally {
        asked.mockRestore()
      }
      expect(await masquerade.list()).toEqual([has(one, '10.0.0.1/24')])
    }))

  test('what was read or made is remembered until others write to the table', () =>
    withMasquerade(layout, async (masquerade, netns) => {
      const lists = vi.spyOn(Nft.prototype, layout === 'set' ? 'elements' : 'rules')
      const readings = () =>
        lists.mock.calls.splice(0).filter(([where]) => layout === 'set' || (where as ChainName).chain === 'masq_checks')
          .length
      try {
        await masquerade.add([attachment(one, '10.0.0.1/24'), attachment(three, '10.0.0.3/24', '2001:db8::3/64')])
        readings()
        expect(await masquerade.add([attachment(two, '10.0.0.2/24')])).toMatchObject({ added: 1, removed: 0 })
        expect(await masquerade.remove([one])).toMatchObject({ removed: 1 })
        expect(await masquerade.add([attachment(two, '10.0.0.9/24')])).toMatchObject({ added: 1, removed: 1 })
        await inNetns(netns, 'nft', 'add', 'table', 'inet', 'elsewhere')
        expect(await masquerade.collect('unit-test', [valid(two)])).toMatchObject({ removed: 2 })
        expect(readings()).toBe(0)
        await plugins.add(netns, one, ['10.0.0.5/24'])
        expect(await masquerade.remove([one])).toMatchObject({ removed: 1 })
        expect(readings()).toBe(1)
        expect(await masquerade.remove([two])).toMatchObject({ removed: 1 })
        expect(readings()).toBe(0)
      } finally {
        lists.mockRestore()
      }
      expect(await masquerade.list()).toEqual([])
    }))

  const made = `add table ${TABLE}\n`
  const shapes: [string, string, string][] = [
    [
      'a filter where the translation should be',
      `${made}add chain ${TABLE} postrouting { type filter hook postrouting priority 100 ; }`,
      'chain postrouting is one of type filter',
    ],
    [
      'another priority',
      `${made}add chain ${TABLE} postrouting { type nat hook postrouting priority 90 ; }`,
      'priority 90',
    ],
    [
      'a policy of drop',
      `${made}add chain ${TABLE} postrouting { type nat hook postrouting priority 100 ; policy drop ; }`,
      'policy drop',
    ],
    [
      'a chain that nothing enters',
      `${made}add chain ${TABLE} postrouting`,
      'chain postrouting is a chain that is jumped to',
    ],
    [
      'checks on their own',
      `${made}add chain ${TABLE} masq_checks { type filter hook forward priority 0 ; }`,
      'chain masq_checks is one of type filter at hook forward',
    ],
    ['a table asleep', `add table ${TABLE} { flags dormant ; }`, 'its flags are 1'],
    [
      'a set by the name of the map',
      `${made}add set ${TABLE} masq_ipv4 { type ipv4_addr ; }`,
      'masq_ipv4 is not a plain map from ipv4_addr to verdicts',
    ],
    [
      'a map from something else',
      `${made}add map ${TABLE} masq_ipv6 { type ipv4_addr : verdict ; }`,
      'masq_ipv6 is not a plain map from ipv6_addr to verdicts',
    ],
    [
      'a map to nowhere of ours',
      `${made}add map ${TABLE} masq_ipv4 { type ipv4_addr : verdict ; elements = { 10.0.0.1 : drop } ; }`,
      'an element that does not lead to a subnet',
    ],
  ]
  test.each(shapes)('a table of that name with %s is refused, and nothing changes', (_, text, difference) =>
    withMasquerade(layout, async (masquerade, netns) => {
      await feedNetns(netns, text, 'nft', '-f', '-')
      const before = await listTable(netns)
      for (const call of [
        () => masquerade.add([attachment(one, '10.0.0.1/24')]),
        () => masquerade.remove([one]),
        () => masquerade.collect('unit-test', []),
        () => masquerade.list(),
      ]) {
        const refused = call()
        await expect(refused).rejects.toBeInstanceOf(InvalidState)
        await expect(refused).rejects.toMatchObject({ code: 'ERR_XFRMESH_OTHER_SHAPE' })
        await expect(refused).rejects.toThrow(difference)
      }
      // What is wrong with the call itself comes first.
      await expect(masquerade.add([attachment(one, '10.0.0.1')])).rejects.toThrow('attachments[0].addresses[0]')
      expect(await listTable(netns)).toBe(before)
      await inNetns(netns, 'nft', 'delete', 'table', ...TABLE.split(' '))
      expect(await masquerade.add([attachment(one, '10.0.0.1/24')])).toMatchObject({ added: 1 })
    }),
  )

  test('bad arguments are refused by name, and nothing changes', () =>
    withMasquerade(layout, async (masquerade, netns) => {
      await masquerade.add([attachment(one, '10.0.0.1/24')])
      const before = await listTable(netns)
      const good = attachment(two, '10.0.0.2/24')
      const cases: [() => Promise<unknown>, string][] = [
        [() => masquerade.add([good, { ...good, network: '' }]), 'attachments[1].network'],
        [() => masquerade.add([{ ...good, interfaceName: 'i'.repeat(16) }]), 'attachments[0].interfaceName'],
        [() => masquerade.add([{ ...good, containerId: 'c'.repeat(256) }]), 'attachments[0].containerId'],
        [() => masquerade.add([{ ...good, addresses: ['10.0.0.2'] }]), 'attachments[0].addresses[0]'],
        [() => masquerade.add([{ ...good, addresses: ['10.0.0.2/24', 'ten/24'] }]), 'attachments[0].addresses[1]'],
        [() => masquerade.add([{ ...good, addresses: ['10.0.0.2/24', '10.0.0.2/16'] }]), 'attachments[0].addresses[1]'],
        [() => masquerade.add([{ ...good, addresses: '10.0.0.2/24' as never }]), 'attachments[0].addresses'],
        [() => masquerade.add([{ ...good, address: '10.0.0.2/24' } as never]), 'attachments[0].address'],
        [() => masquerade.add([null as never]), 'attachments[0]'],
        [() => masquerade.add(good as never), 'attachments'],
        [() => masquerade.remove([one, { ...two, network: 7 as never }]), 'attachments[1].network'],
        [() => masquerade.remove(['one' as never]), 'attachments[0]'],
        [() => masquerade.collect('', []), 'network'],
        [
          () => masquerade.collect('unit-test', [valid(one), { interfaceName: '', containerId: 'x' }]),
          'valid[1].interfaceName',
        ],
        [() => masquerade.collect('unit-test', [one]), 'valid[0].network'],
      ]
      for (const [call, argument] of cases) {
        await expect(call()).rejects.toBeInstanceOf(InvalidArgument)
        await expect(call()).rejects.toMatchObject({ argument })
      }
      expect(await listTable(netns)).toBe(before)
    }))

  test('calls run in the order made, and none after close', () =>
    withMasquerade(layout, async (masquerade, netns) => {
      const calls = [
        masquerade.add([attachment(one, '10.0.0.1/24')]),
        masquerade.remove([one]),
        masquerade.add([attachment(one, '10.0.0.2/24')]),
        masquerade.list(),
      ] as const
      const closed = masquerade.close()
      await expect(masquerade.list()).rejects.toMatchObject({ code: 'ERR_XFRMESH_CLOSED' })
      expect(await calls[3]).toEqual([has(one, '10.0.0.2/24')])
      await closed
      expect(await listTable(netns)).toContain('10.0.0.2')
    }))
})

test('what it is opened with is checked', async () => {
  await expect(Masquerade.open({ layout: 'sets' as Layout })).rejects.toThrow("did you mean 'set'?")
  await expect(Masquerade.open({ timeoutMs: 0 })).rejects.toMatchObject({ argument: 'options.timeoutMs' })
  await expect(Masquerade.open({ netns: '/nowhere' })).rejects.toBeInstanceOf(InvalidArgument)
  await expect(Masquerade.open({ table: 'x' } as never)).rejects.toMatchObject({ argument: 'options.table' })
})
