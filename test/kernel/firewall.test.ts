import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { InvalidArgument } from '../../lib/base/errors.js'
import { Nft } from '../../lib/kernel/nft.js'
import { Firewall } from '../../lib/overlay/firewall.js'
import { feedNetns, inNetns, startInNetns, withLink, withNetns } from './netns.js'

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

/** The guard as a person would write it. */
function guardText(elements: string, { exclusive, linksElsewhere }: Kind): string {
  const encrypted = exclusive ? '' : '@th,96,24 @encrypted-vnis'
  const plain = exclusive ? '' : '@th,96,24 != @encrypted-vnis return'
  const forged = linksElsewhere ? 'udp dport 4789 meta skuid != 4294967295 goto guard-forged' : ''
  const reqid = `reqid ${MARK}`
  return `
  table inet xfrmesh_58464d {
    comment "networks that xfrmesh encrypts"
    set encrypted-vnis { typeof @th,96,24; ${elements} }
    chain output {
      type route hook output priority mangle; policy accept;
      ${forged}
      udp dport 4789 ${encrypted} counter meta mark set ${MARK}
    }
    ${linksElsewhere ? `chain guard-forged { ${plain}\ncounter drop\n}` : ''}
    chain input {
      type filter hook input priority raw; policy accept;
      udp dport 4789 goto guard-in
      meta ipsec exists jump guard-diverted
      frag frag-off 0 goto guard-fragment
    }
    chain guard-in {
      ${plain}
      ipsec in ${reqid} return
      ipsec in spnum 1 ${reqid} return
      ipsec in spnum 2 ${reqid} return
      ipsec in spnum 3 ${reqid} return
      ipsec in spnum 4 ${reqid} return
      ipsec in spnum 5 ${reqid} return
      counter drop
    }
    chain forward {
      type filter hook forward priority raw; policy accept;
      udp dport 4789 goto guard-forward
      meta ipsec exists jump guard-diverted
    }
    chain guard-forward { ${plain}\ncounter drop\n}
    chain guard-diverted {
      ipsec in ${reqid} counter drop
      ipsec in spnum 1 ${reqid} counter drop
      ipsec in spnum 2 ${reqid} counter drop
      ipsec in spnum 3 ${reqid} counter drop
      ipsec in spnum 4 ${reqid} counter drop
      ipsec in spnum 5 ${reqid} counter drop
    }
    chain postrouting {
      type filter hook postrouting priority 300; policy accept;
      udp dport 4789 goto guard-out
      meta mark ${MARK} meta l4proto udp @th,64,32 0x08000000 goto guard-out
      frag frag-off 0 goto guard-fragment
    }
    chain guard-out {
      ${plain}
      ipsec out ${reqid} return
      counter drop
    }
    chain guard-fragment {
      meta l4proto != udp return
      th dport >= 0 return
      counter drop
    }
  }
`
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

const range = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i)

describe('the table', () => {
  test.each(KINDS)('is what nft makes of its text: %o', (kind) =>
    alone(async (firewall, ours) => {
      await firewall.apply({ add: [4096, 4097] })
      await withNetns(async (theirs) => {
        await feedNetns(theirs, guardText('elements = { 0x1000, 0x1001 };', kind), 'nft', '-f', '-')
        expect(await ruleset(ours)).toEqual(await ruleset(theirs))
        await withFirewall(
          theirs,
          async (reader) => {
            expect(await reader.read()).toEqual({
              exists: true,
              intact: true,
              differences: [],
              networks: new Set([4096, 4097]),
              drops: { in: 0, out: 0, forwarded: 0, diverted: 0, forged: 0, fragments: 0 },
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
      expect((await firewall.read()).networks).toEqual(new Set(range(1000, 7000)))
    }))

  test('takes any VNI, twice too, and gives up what it does not have', () =>
    alone(async (firewall, _, nft) => {
      await firewall.apply({ add: [0, 0xffffff, 0xffffff] })
      const before = await nft.generation()
      await firewall.apply({ add: [0], remove: [7, 8] })
      await firewall.apply({})
      expect(await nft.generation()).toBe(before)
      expect((await firewall.read()).networks).toEqual(new Set([0, 0xffffff]))
      await firewall.apply({ add: [1, 2], remove: [2, 0xffffff] })
      expect((await firewall.read()).networks).toEqual(new Set([0, 1]))
    }))

  test('stays when its last network goes, unless told otherwise', () =>
    alone(async (firewall, netns) => {
      await firewall.apply({ add: [1, 2] })
      await firewall.apply({ remove: [1, 2] })
      expect(await firewall.read()).toMatchObject({ exists: true, intact: true, networks: new Set() })
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
        expect(await firewall.read()).toMatchObject({ intact: true, networks: new Set(vnis) })
      })
    }))

  test('refuses what is no VNI, before anything is done', () =>
    alone(async (firewall) => {
      for (const vni of [-1, 0x1000000, 1.5, Number.NaN, '1' as unknown as number]) {
        await expect(firewall.apply({ add: [1, vni] })).rejects.toThrow(InvalidArgument)
      }
      await expect(firewall.apply({ add: [1, -1] })).rejects.toThrow(
        'change.add[1] must be an integer from 0 to 16777215',
      )
      expect((await firewall.read()).exists).toBe(false)
    }))
})

describe('damage is seen, and mended for the networks that there are', () => {
  const [family, table] = TABLE
  const damages: [string, string, string][] = [
    ['a rule put ahead', `insert rule ${family} ${table} input accept`, 'chain input has 4 rules, not 3'],
    ['a rule put last', `add rule ${family} ${table} guard-in accept`, 'chain guard-in has 9 rules, not 8'],
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
  for (const [name, commands, sentence] of damages) {
    test(name, () =>
      alone(async (firewall, netns) => {
        await firewall.apply({ add: [4096, 4097] })
        const whole = await ruleset(netns)
        await feedNetns(netns, `${commands}\n`, 'nft', '-f', '-')
        const state = await firewall.read()
        expect(state).toMatchObject({ exists: true, intact: false, networks: new Set([4096, 4097]) })
        expect(state.differences.join('\n')).toContain(sentence)
        await firewall.restore([4096, 4097])
        expect(await ruleset(netns)).toEqual(whole)
      }),
    )
  }

  test('the set emptied', () =>
    alone(async (firewall, netns) => {
      await firewall.apply({ add: [4096] })
      await inNetns(netns, 'nft', 'flush', 'set', ...TABLE, 'encrypted-vnis')
      expect(await firewall.read()).toMatchObject({ intact: true, networks: new Set() })
    }))

  test('the whole ruleset flushed', () =>
    alone(async (firewall, netns) => {
      await firewall.apply({ add: [4096, 4097] })
      const whole = await ruleset(netns)
      await inNetns(netns, 'nft', 'flush', 'ruleset')
      expect(await firewall.read()).toMatchObject({
        exists: false,
        intact: false,
        differences: ['there is no table xfrmesh_58464d'],
        networks: new Set(),
      })
      await firewall.restore([4096, 4097])
      expect(await ruleset(netns)).toEqual(whole)
    }))

  test('by a change too, for the networks that the set still holds', () =>
    alone(async (firewall, netns) => {
      await firewall.apply({ add: [4096] })
      await inNetns(netns, 'nft', 'flush', 'chain', ...TABLE, 'guard-out')
      await firewall.apply({ add: [4097] })
      expect(await firewall.read()).toMatchObject({ intact: true, networks: new Set([4096, 4097]) })
    }))
})

const script = fileURLToPath(new URL('packets.py', import.meta.url))

function packets(netns: string, ...words: (string | number)[]): Promise<string> {
  return inNetns(netns, 'python3', '-B', script, ...words.map(String))
}

/** Starts what runs until it is stopped, and waits until it does. `stop` gives what it then printed, as JSON. */
async function packetsUntil(netns: string, ...words: (string | number)[]): Promise<{ stop: () => Promise<unknown> }> {
  const running = startInNetns(netns, 'python3', '-B', script, ...words.map(String))
  await once(running.child.stdout!, 'data')
  return { stop: async () => JSON.parse((await running.stop()).replace('ready\n', '')) as unknown }
}

/** What arrives at the port while `work` runs: datagrams by VNI. */
async function arrivedDuring(netns: string, work: () => Promise<void>): Promise<unknown> {
  const counting = await packetsUntil(netns, 'count', PORT)
  try {
    await work()
  } catch (error) {
    await counting.stop()
    throw error
  }
  return counting.stop()
}

/** The second host of a link. */
const ADDRESSES = ['192.0.2.2', '2001:db8::2']

/** Five datagrams of either network to each address. */
async function sendBoth(netns: string, addresses: readonly string[]): Promise<void> {
  await packets(netns, 'send', PORT, 5, `${ENCRYPTED},${PLAIN}`, addresses.join(','))
}

describe('without ESP, an encrypted network', () => {
  test('does not leave in the clear, over IPv4 or IPv6; a plain one on the same port does', () =>
    withLink((one, other) =>
      withFirewall(one, async (firewall) => {
        await firewall.apply({ add: [ENCRYPTED] })
        expect(await arrivedDuring(other, () => sendBoth(one, ADDRESSES))).toEqual({ [PLAIN]: 10 })
        // What was counted is no damage.
        expect(await firewall.read()).toMatchObject({ intact: true, drops: { out: 10 } })
      }),
    ))

  test('is not received in the clear, over IPv4 or IPv6; a plain one on the same port is', () =>
    withLink((one, other) =>
      withFirewall(other, async (firewall) => {
        await firewall.apply({ add: [ENCRYPTED] })
        expect(await arrivedDuring(other, () => sendBoth(one, ADDRESSES))).toEqual({ [PLAIN]: 10 })
        expect(await firewall.read()).toMatchObject({ intact: true, drops: { in: 10 } })

        // Mended, it goes on counting: by a change, and whole.
        await inNetns(other, 'nft', 'flush', 'chain', ...TABLE, 'guard-out')
        await firewall.apply({ add: [4097] })
        expect(await firewall.read()).toMatchObject({ intact: true, drops: { in: 10, out: 0 } })
        await firewall.restore([ENCRYPTED])
        await sendBoth(one, ADDRESSES)
        expect((await firewall.read()).drops).toMatchObject({ in: 20, out: 0 })
      }),
    ))

  test('neither leaves nor is received in IPv6 fragments whose first has no VNI', () =>
    withLink(async (one, other) => {
      const send = async () => {
        await packets(one, 'fragments', '2001:db8::1', '2001:db8::2', PORT, ENCRYPTED, 5)
      }
      // Without a guard they arrive: what is shown below is the guard's doing.
      expect(await arrivedDuring(other, send)).toEqual({ [ENCRYPTED]: 5 })
      for (const guarded of [one, other]) {
        await withFirewall(guarded, async (firewall) => {
          await firewall.apply({ add: [ENCRYPTED] })
          expect(await arrivedDuring(other, send)).toEqual({})
          await firewall.remove()
        })
      }
    }))

  test('does not leave when source NAT is at work', () =>
    withLink((one, other) =>
      withFirewall(one, async (firewall) => {
        const nat = 'table ip nat { chain out { type nat hook postrouting priority srcnat; masquerade; }; }\n'
        await feedNetns(one, nat, 'nft', '-f', '-')
        await firewall.apply({ add: [ENCRYPTED] })
        expect(await arrivedDuring(other, () => sendBoth(one, ['192.0.2.2']))).toEqual({ [PLAIN]: 5 })
      }),
    ))

  test('is not forwarded in the clear; a plain one is', () =>
    withLink((one, router) =>
      withNetns(async (far) => {
        const name = (path: string) => path.slice('/run/netns/'.length)
        const ip = (path: string, ...words: string[]) => inNetns(path, 'ip', ...words)
        await ip(router, 'link', 'add', 'eth1', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name(far))
        await ip(router, 'address', 'add', '198.51.100.1/24', 'dev', 'eth1')
        await ip(router, 'link', 'set', 'eth1', 'up')
        await ip(far, 'address', 'add', '198.51.100.2/24', 'dev', 'eth0')
        await ip(far, 'link', 'set', 'eth0', 'up')
        await ip(far, 'route', 'add', 'default', 'via', '198.51.100.1')
        await ip(one, 'route', 'add', 'default', 'via', '192.0.2.2')
        await inNetns(router, 'sysctl', '-qw', 'net.ipv4.ip_forward=1')
        await withFirewall(router, async (firewall) => {
          await firewall.apply({ add: [ENCRYPTED] })
          expect(await arrivedDuring(far, () => sendBoth(one, ['198.51.100.2']))).toEqual({ [PLAIN]: 5 })
        })
      }),
    ))

  test('is guarded at every moment while the table is replaced and networks come and go', () =>
    withLink((one, other) =>
      withFirewall(one, async (firewall) => {
        await firewall.apply({ add: [ENCRYPTED] })
        let tried: unknown
        const arrived = await arrivedDuring(other, async () => {
          const flooding = await packetsUntil(one, 'flood', '192.0.2.2', PORT, ENCRYPTED)
          for (let i = 0; i < 50; i++) {
            await firewall.restore([ENCRYPTED, ...range(0, i)])
            await firewall.apply({ add: range(10_000, 100) })
            await firewall.apply({ remove: range(10_000, 100) })
          }
          tried = await flooding.stop()
        })
        expect(tried).toBeGreaterThan(100)
        expect(arrived).toEqual({})
      }),
    ))
})
