import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { Nft } from '../../../lib/kernel/nft.js'
import { Firewall } from '../../../lib/overlay/firewall.js'
import { VniSet } from '../../../lib/overlay/vni-set.js'
import { feedNetns, inNetns, withLink, withNetns } from '../netns.js'
import { Probe } from '../probe.js'

const MARK = 0x58464d
const PORT = 4789
const TABLE = ['inet', 'xfrmesh_58464d'] as const
const ENCRYPTED = 4096
const PLAIN = 5000

interface Kind {
  exclusive: boolean
  linksElsewhere: boolean
}
const KINDS = [
  { exclusive: false, linksElsewhere: false },
  { exclusive: false, linksElsewhere: true },
  { exclusive: true, linksElsewhere: true },
]

/** The guard as a person would write it; the file has that of networks whose links live elsewhere. */
function guardText({ exclusive, linksElsewhere }: Kind): string {
  let text = readFileSync(new URL('../../data/guard.nft', import.meta.url), 'utf8')
  if (exclusive) text = text.replace(/^.* != @encrypted-vnis return\n/gm, '').replace('@th,96,24 @encrypted-vnis', '')
  if (!linksElsewhere)
    text = text.replace(/^.* goto guard-forged\n/m, '').replace(/^ {2}chain guard-forged [^}]*}\n/m, '')
  return text
}

async function withFirewall(
  netns: string,
  work: (firewall: Firewall, nft: Nft) => Promise<void>,
  kind?: Kind,
): Promise<void> {
  const nft = await Nft.open({ netns })
  try {
    await work(new Firewall({ nft, mark: MARK, port: PORT, ...kind }), nft)
  } finally {
    await nft.close()
  }
}

/** A firewall in a namespace of its own. */
function alone(work: (firewall: Firewall, netns: string, nft: Nft) => Promise<void>, kind?: Kind): Promise<void> {
  return withNetns((netns) => withFirewall(netns, (firewall, nft) => work(firewall, netns, nft), kind))
}

/** What `nft` lists, with every handle, and what was counted, left out. */
async function ruleset(netns: string): Promise<unknown> {
  const text = await inNetns(netns, 'nft', '-j', 'list', 'ruleset')
  const plain = (key: string, value: unknown) =>
    key === 'handle' || key === 'packets' || key === 'bytes' ? undefined : value
  const { nftables } = JSON.parse(text, plain) as { nftables: { set?: { elem?: number[] } }[] }
  for (const { set } of nftables) set?.elem?.sort((a, b) => a - b)
  return nftables
}

/** The networks that `nft` lists. */
async function networksOf(netns: string): Promise<VniSet> {
  const text = await inNetns(netns, 'nft', '-j', 'list', 'set', ...TABLE, 'encrypted-vnis')
  const { nftables } = JSON.parse(text) as { nftables: { set?: { elem?: number[] } }[] }
  return new VniSet(nftables.flatMap(({ set }) => set?.elem ?? []))
}

const range = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i)

describe('the table', () => {
  test.each(KINDS)('is what nft makes of its text: %o', (kind) =>
    alone(async (firewall, ours) => {
      await firewall.apply({ add: [4096, 4097] })
      await withNetns(async (theirs) => {
        await feedNetns(theirs, guardText(kind), 'nft', '-f', '-')
        expect(await ruleset(ours)).toEqual(await ruleset(theirs))
        await withFirewall(
          theirs,
          async (reader) => {
            expect(await reader.read()).toEqual({
              exists: true,
              intact: true,
              differences: [],
              networks: new VniSet([4096, 4097]),
              drops: { in: 0, out: 0, forwarded: 0, diverted: 0, forged: 0, fragments: 0, quoted: 0 },
            })
          },
          kind,
        )
      })
    }, kind),
  )

  test('takes 4,000 networks in one transaction, the first one too', () =>
    alone(async (firewall, _, nft) => {
      const before = await nft.generation()
      await firewall.apply({ add: range(0, 4000) })
      expect(await nft.generation()).toBe(before + 1)
      await firewall.apply({ add: range(4000, 4000), remove: range(0, 1000) })
      expect(await nft.generation()).toBe(before + 2)
      expect((await firewall.read()).networks).toEqual(new VniSet(range(1000, 7000)))
    }))

  test('takes any VNI, twice too, and gives up what it does not have', () =>
    alone(async (firewall, _, nft) => {
      await firewall.apply({ add: [0, 0xffffff, 0xffffff] })
      const before = await nft.generation()
      await firewall.apply({ add: [0], remove: [7, 8] })
      await firewall.apply({})
      expect(await nft.generation()).toBe(before)
      expect((await firewall.read()).networks).toEqual(new VniSet([0, 0xffffff]))
      await firewall.apply({ add: [1, 2], remove: [2, 0xffffff] })
      expect((await firewall.read()).networks).toEqual(new VniSet([0, 1]))
    }))

  test('is listed only if somebody else changed something since', () =>
    alone(async (firewall, netns, nft) => {
      const listed = vi.spyOn(nft, 'keys')
      const kept: number[] = []
      const guard = async (vni: number) => {
        listed.mockClear()
        const networks = await firewall.apply({ add: [vni], keep: () => kept })
        kept.push(vni)
        expect(networks).toEqual(await networksOf(netns))
        expect(networks).toEqual(new VniSet(kept))
        return listed.mock.calls.length > 0
      }
      await guard(1)
      expect(await guard(2)).toBe(false)
      expect(await guard(4096)).toBe(false)
      await firewall.apply({ remove: [kept.pop()!] })
      expect(await guard(4097)).toBe(false)

      await inNetns(netns, 'nft', 'delete', 'element', ...TABLE, 'encrypted-vnis', '{ 1, 4097 }')
      expect(await guard(4098)).toBe(true)
      expect(await guard(4099)).toBe(false)
      await inNetns(netns, 'nft', 'add', 'table', 'inet', 'other')
      expect(await guard(4100)).toBe(true)
      await inNetns(netns, 'nft', 'flush', 'ruleset')
      await guard(4101)
      expect(await guard(4102)).toBe(false)
      await inNetns(netns, 'nft', 'flush', 'chain', ...TABLE, 'guard-in')
      expect(await guard(4103)).toBe(true)
      expect(await firewall.read()).toMatchObject({ intact: true })
    }))

  test('stays when its last network goes, unless told otherwise', () =>
    alone(async (firewall, netns) => {
      await firewall.apply({ add: [1, 2] })
      await firewall.apply({ remove: [1, 2] })
      expect(await firewall.read()).toMatchObject({ exists: true, intact: true, networks: new VniSet() })
      await firewall.apply({ add: [1] })
      await firewall.apply({ remove: [1], removeEmpty: true })
      expect(await firewall.read()).toMatchObject({ exists: false, intact: false })
      expect(await inNetns(netns, 'nft', 'list', 'ruleset')).toBe('')
      await firewall.remove()
    }))

  test('is the only one that is touched', () =>
    alone(async (firewall, netns) => {
      const others = 'table inet xfrmesh_1 {\n\tchain output {\n\t\taccept\n\t}\n}\n'
      await feedNetns(netns, others, 'nft', '-f', '-')
      await firewall.apply({ add: [1] })
      await firewall.restore([2])
      await firewall.remove()
      expect(await inNetns(netns, 'nft', 'list', 'ruleset')).toBe(others)
    }))

  test('loses nothing to changes made at the same time', () =>
    alone(async (firewall, netns) => {
      await withFirewall(netns, async (other) => {
        const vnis = range(1, 8)
        await Promise.all(vnis.map((vni) => (vni % 2 === 0 ? firewall : other).apply({ add: [vni] })))
        expect(await firewall.read()).toMatchObject({ intact: true, networks: new VniSet(vnis) })
      })
    }))
})

describe('damage is seen, and mended for the networks that there are', () => {
  let firewall: Firewall
  let netns: string
  let whole: unknown
  let leave: () => void
  let left: Promise<void>

  beforeAll(
    () =>
      new Promise<void>((resolve, reject) => {
        left = alone(async (...place) => {
          ;[firewall, netns] = place
          await firewall.apply({ add: [4096, 4097] })
          whole = await ruleset(netns)
          const until = new Promise<void>((end) => (leave = end))
          resolve()
          await until
        })
        left.catch(reject)
      }),
  )
  afterAll(() => {
    leave()
    return left
  })

  const [family, table] = TABLE
  const damages: [string, string, string][] = [
    ['a rule put ahead', `insert rule ${family} ${table} input accept`, 'chain input has 4 rules, not 3'],
    ['a rule put last', `add rule ${family} ${table} guard-in accept`, 'chain guard-in has 11 rules, not 10'],
    ['a chain flushed', `flush chain ${family} ${table} guard-out`, 'chain guard-out has 0 rules, not 3'],
    ['all rules flushed', `flush table ${family} ${table}`, 'chain output has 0 rules, not 1'],
    [
      'a rule replaced by one that is nearly it',
      `flush chain ${family} ${table} forward; add rule ${family} ${table} forward udp dport 4790 goto guard-forward;
       add rule ${family} ${table} forward meta ipsec exists jump guard-diverted`,
      'rule 1 of chain forward is another',
    ],
    [
      'a jump for the goto',
      `flush chain ${family} ${table} forward; add rule ${family} ${table} forward udp dport 4789 jump guard-forward;
       add rule ${family} ${table} forward meta ipsec exists jump guard-diverted`,
      'rule 1 of chain forward is another',
    ],
    [
      'another policy',
      `add chain ${family} ${table} output { policy drop; }`,
      'chain output hangs elsewhere or has another policy',
    ],
    [
      'a chain hung elsewhere',
      `flush chain ${family} ${table} input; delete chain ${family} ${table} input;
       add chain ${family} ${table} input { type filter hook forward priority raw; };
       add rule ${family} ${table} input udp dport 4789 goto guard-in`,
      'chain input hangs elsewhere or has another policy',
    ],
    [
      'a chain deleted',
      `flush chain ${family} ${table} postrouting; delete chain ${family} ${table} postrouting`,
      'chain postrouting is missing',
    ],
    ['a chain of somebody else', `add chain ${family} ${table} theirs`, 'chain theirs is not ours'],
    ['a set of somebody else', `add set ${family} ${table} theirs { type mark; }`, 'set theirs is not ours'],
    ['the table asleep', `add table ${family} ${table} { flags dormant; }`, 'the table has flags 1'],
  ]
  test.each(damages)('%s', async (_, commands, sentence) => {
    await feedNetns(netns, `${commands}\n`, 'nft', '-f', '-')
    const state = await firewall.read()
    expect(state).toMatchObject({ exists: true, intact: false, networks: new VniSet([4096, 4097]) })
    expect(state.differences.join('\n')).toContain(sentence)
    await firewall.restore([4096, 4097])
    expect(await ruleset(netns)).toEqual(whole)
  })

  test('the set emptied', async () => {
    await inNetns(netns, 'nft', 'flush', 'set', ...TABLE, 'encrypted-vnis')
    expect(await firewall.read()).toMatchObject({ intact: true, networks: new VniSet() })
    await firewall.restore([4096, 4097])
  })

  test('the whole ruleset flushed', async () => {
    await inNetns(netns, 'nft', 'flush', 'ruleset')
    expect(await firewall.read()).toMatchObject({
      exists: false,
      intact: false,
      differences: ['there is no table xfrmesh_58464d'],
      networks: new VniSet(),
    })
    await firewall.restore([4096, 4097])
    expect(await ruleset(netns)).toEqual(whole)
  })

  test('by a change too, for the networks that the set still holds', async () => {
    await inNetns(netns, 'nft', 'flush', 'chain', ...TABLE, 'guard-out')
    await firewall.apply({ add: [4098] })
    expect(await firewall.read()).toMatchObject({ intact: true, networks: new VniSet([4096, 4097, 4098]) })
  })
})

describe('without ESP, an encrypted network', () => {
  const probe = new Probe()
  afterAll(() => probe.close())
  const sending = { to: ['192.0.2.2', '2001:db8::2'], port: PORT }

  test('is neither sent nor received in the clear; a plain one on the same port is; what was dropped is counted', () =>
    withLink(async (one, other) => {
      const arrived = () =>
        probe.heardDuring(other, [PORT], () => probe.send(one, { ...sending, vnis: [ENCRYPTED, PLAIN], times: 5 }))
      const plain = { [`${PORT} ${PLAIN}`]: { sent: 10 } }
      await withFirewall(one, async (firewall) => {
        await firewall.apply({ add: [ENCRYPTED] })
        expect(await arrived()).toEqual(plain)
        // What was counted is no damage.
        expect(await firewall.read()).toMatchObject({ intact: true, drops: { out: 10 } })
        await firewall.remove()
      })
      await withFirewall(other, async (firewall) => {
        await firewall.apply({ add: [ENCRYPTED] })
        expect(await arrived()).toEqual(plain)
        expect(await firewall.read()).toMatchObject({ intact: true, drops: { in: 10 } })

        // Mended, it goes on counting: by a change, and whole.
        await inNetns(other, 'nft', 'flush', 'chain', ...TABLE, 'guard-out')
        await firewall.apply({ add: [4097] })
        expect(await firewall.read()).toMatchObject({ intact: true, drops: { in: 10, out: 0 } })
        await firewall.restore([ENCRYPTED])
        await probe.send(one, { ...sending, vnis: [ENCRYPTED], times: 5 })
        expect((await firewall.read()).drops).toMatchObject({ in: 20, out: 0 })
      })
    }))

  // Under emulation it is too slow for many.
  const rounds = process.env['XFRMESH_LAB'] === 'vm' ? 10 : 100
  test.each(['sent', 'received'])(
    'is not %s at any moment, while the table is replaced and networks come and go',
    (way) =>
      withLink((one, other) =>
        withFirewall(way === 'sent' ? one : other, async (firewall) => {
          await firewall.apply({ add: [ENCRYPTED] })
          let tried = 0
          const arrived = await probe.heardDuring(other, [PORT], async () => {
            tried = await probe.floodDuring(one, { ...sending, vni: ENCRYPTED }, async () => {
              for (let i = 0; i < rounds; i++) {
                await firewall.restore([ENCRYPTED, ...range(0, i)])
                await firewall.apply({ add: range(10_000, 100) })
                await firewall.apply({ remove: range(10_000, 100) })
              }
            })
          })
          expect(tried).toBeGreaterThan(100)
          expect(arrived).toEqual({})
          const { in: received, out } = (await firewall.read()).drops
          expect([received > 0, out > 0]).toEqual([way === 'received', way === 'sent'])
        }),
      ),
  )
})
