/** The guard by iptables and ip6tables, of either kind: what is in the kernel, by their own words, and what gets past it. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import type { IptablesFirewall } from '../../../lib/overlay/firewall-iptables.js'
import type { GuardOptions } from '../../../lib/overlay/guard.js'
import { VniSet } from '../../../lib/overlay/vni-set.js'
import { FAMILIES, iptables, PREFIX, program, saved, VARIANTS, withIptables, withPrograms } from '../iptables.js'
import { withLink, withNetns } from '../netns.js'
import { Probe } from '../probe.js'

const probe = new Probe()
afterAll(() => probe.close())

/** Programs that a person can read: what they ask, of IPv4 and of IPv6. */
const FIND_FRAGMENT = [
  '48 0 0 6,1 0 0 40',
  // Past hop-by-hop options, destination options and a routing header.
  ...[0, 60, 43].map((header) => `21 0 7 ${header},80 0 0 1,4 0 0 1,100 0 0 3,12 0 0 0,2 0 0 0,80 0 0 0,97 0 0 0`),
].join(',')
const FIND_UDP_6 = [
  FIND_FRAGMENT,
  // Past a fragment header, and destination options.
  '21 0 5 44,135 0 0 0,4 0 0 8,2 0 0 0,80 0 0 0,97 0 0 0',
  '21 0 7 60,80 0 0 1,4 0 0 1,100 0 0 3,12 0 0 0,2 0 0 0,80 0 0 0,97 0 0 0',
].join(',')
const PROGRAMS = {
  4: {
    readable: '4,177 0 0 0,64 0 0 12,6 0 0 1,6 0 0 0',
    vxlan: '6,177 0 0 0,80 0 0 8,69 0 2 8,64 0 0 12,6 0 0 1,6 0 0 0',
    bare: '4,48 0 0 0,21 0 1 69,6 0 0 1,6 0 0 0',
    quoting:
      '11,177 0 0 0,80 0 0 0,21 2 0 3,21 1 0 11,21 0 5 12,80 0 0 17,21 0 3 17,72 0 0 30,21 0 1 4789,6 0 0 1,6 0 0 0',
    quotingVni:
      '12,177 0 0 0,80 0 0 0,21 2 0 3,21 1 0 11,21 0 6 12,80 0 0 17,21 0 4 17,72 0 0 30,21 0 2 4789,64 0 0 40,6 0 0 1,6 0 0 0',
    quoted: '8,177 0 0 0,64 0 0 40,116 0 0 8,21 3 0 4096,53 0 1 5000,37 0 1 5002,6 0 0 0,6 0 0 1',
    networks: '8,177 0 0 0,64 0 0 12,116 0 0 8,21 3 0 4096,53 0 1 5000,37 0 1 5002,6 0 0 0,6 0 0 1',
  },
  6: {
    readable: `44,${FIND_UDP_6},21 0 2 17,64 0 0 12,6 0 0 1,6 0 0 0`,
    vxlan: `46,${FIND_UDP_6},21 0 4 17,80 0 0 8,69 0 2 8,64 0 0 12,6 0 0 1,6 0 0 0`,
    bare: '4,48 0 0 6,21 0 1 17,6 0 0 1,6 0 0 0',
    quoting:
      '12,1 0 0 40,80 0 0 0,21 3 0 1,21 2 0 2,21 1 0 3,21 0 5 4,80 0 0 14,21 0 3 17,72 0 0 50,21 0 1 4789,6 0 0 1,6 0 0 0',
    quotingVni:
      '13,1 0 0 40,80 0 0 0,21 3 0 1,21 2 0 2,21 1 0 3,21 0 6 4,80 0 0 14,21 0 4 17,72 0 0 50,21 0 2 4789,64 0 0 60,6 0 0 1,6 0 0 0',
    quoted: '8,1 0 0 40,64 0 0 60,116 0 0 8,21 3 0 4096,53 0 1 5000,37 0 1 5002,6 0 0 0,6 0 0 1',
    networks: `48,${FIND_UDP_6},21 0 5 17,64 0 0 12,116 0 0 8,21 3 0 4096,53 0 1 5000,37 0 1 5002,6 0 0 0,6 0 0 1`,
  },
}
const LATER_FRAGMENT = `31,${FIND_FRAGMENT},21 0 3 44,72 0 0 2,69 0 1 65528,6 0 0 1,6 0 0 0`
const NETWORKS = [4096, 5000, 5001, 5002]

const KINDS = [
  { exclusive: false, linksElsewhere: false },
  { exclusive: false, linksElsewhere: true },
  { exclusive: true, linksElsewhere: true },
]
type Kind = (typeof KINDS)[number]

/** Our rules as a person would write them, `~` for what our names begin with, by table and chain. */
function guardText(family: 4 | 6, { exclusive, linksElsewhere }: Kind): Record<string, Record<string, string>> {
  const { readable, vxlan, networks, bare, quoting, quotingVni, quoted } = PROGRAMS[family]
  const bpf = (bytecode: string) => `-m bpf --bytecode "${bytecode}"`
  const toPort = '-p udp -m udp --dport 4789'
  const asked = (use: string) =>
    exclusive ? `${toPort} -g ~${use}-hit` : `${toPort} ${bpf(readable)} -g ~${use}-0\n${toPort} -g ~${use}-hit`
  const found = (use: string) => (exclusive ? {} : { [`~${use}-0`]: `${bpf(networks)} -g ~${use}-hit` })
  const marked = (use: string) => (exclusive ? asked(use) : asked(use).split('\n')[0]!)
  const six = (rule: string) => (family === 6 ? rule : '')
  const icmp = family === 6 ? '-p ipv6-icmp' : '-p icmp'
  const fragment = six(`
    ! -p udp -j RETURN
    -p udp -m udp ! --dport 4789 -j RETURN
    -j DROP`)
  const leaving = (use: string) => ({
    [`~${use}`]: `
      ${later}
      ${asked(use)}
      -p udp -m mark --mark 0x58464d ${bpf(vxlan)} -g ${exclusive ? `~${use}-hit` : `~${use}-0`}
      ${six('-m frag --fragfirst -g ~fragment')}`,
    ...found(use),
    [`~${use}-hit`]: `
      -m policy --dir out --pol ipsec --strict --reqid 5785165 --proto esp --mode transport -j RETURN
      -j DROP`,
    ...(family === 6 && { '~fragment': fragment }),
  })
  const later = six(`${bpf(LATER_FRAGMENT)} -j RETURN`)
  return {
    raw: {
      OUTPUT: '-j ~raw',
      '~raw': `${later}\n${marked('raw')}`,
      ...found('raw'),
      '~raw-hit': '-j CT --notrack',
    },
    filter: { OUTPUT: '-j ~leave', ...leaving('leave') },
    mangle: {
      INPUT: '-j ~in',
      '~in': `
        ${later}
        ${asked('in')}
        -m policy --dir in --pol ipsec --reqid 5785165 -g ~diverted
        ${six('-m frag --fragfirst -g ~fragment')}`,
      ...found('in'),
      '~in-hit': `
        ${bpf(bare)} -m policy --dir in --pol ipsec --reqid 5785165 -j RETURN
        -j DROP`,
      FORWARD: '-j ~fwd',
      '~fwd': `
        ${later}
        ${asked('fwd')}
        -m policy --dir in --pol ipsec --reqid 5785165 -g ~diverted`,
      ...found('fwd'),
      '~fwd-hit': '-j DROP',
      OUTPUT: '-j ~mark',
      '~mark': `
        ${later}
        ${marked('mark')}
        ${exclusive ? '' : `${icmp} ${bpf(quotingVni)} -g ~quoted-0`}
        ${icmp} ${bpf(quoting)} -g ~quoted-hit`,
      ...found('mark'),
      '~mark-hit': `
        ${linksElsewhere ? '-m owner --socket-exists -j DROP' : ''}
        -j MARK --set-xmark 0x58464d/0xffffffff`,
      POSTROUTING: '-j ~out',
      ...leaving('out'),
      '~diverted': '-j DROP',
      ...(!exclusive && { '~quoted-0': `${bpf(quoted)} -g ~quoted-hit` }),
      '~quoted-hit': '-j DROP',
      ...(exclusive && { '~list-0': `${bpf(networks)} -j RETURN` }),
    },
  }
}

/** The same from what iptables-save printed; chains without a rule are left out. */
function asText(lines: readonly string[]): Record<string, Record<string, string>> {
  const tables: Record<string, Record<string, string>> = {}
  let chains: Record<string, string> = {}
  for (const line of lines) {
    if (line.startsWith('*')) chains = tables[line.slice(1)] = {}
    const [, chain, rule] = /^-A (\S+) (.*)$/.exec(line.replaceAll(PREFIX, '~')) ?? []
    if (chain !== undefined) chains[chain] = `${chains[chain] ?? ''}${rule}\n`
  }
  return tables
}

/** One rule a line, and nothing else. */
function tidy(tables: Record<string, Record<string, string>>): Record<string, Record<string, string>> {
  const lines = (text: string) =>
    text
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => line !== '')
  const chains = (table: Record<string, string>) =>
    Object.fromEntries(Object.entries(table).map(([chain, text]) => [chain, `${lines(text).join('\n')}\n`]))
  return Object.fromEntries(Object.entries(tables).map(([table, each]) => [table, chains(each)]))
}

/** What others do to a table, `~` for what our names begin with, and what is said of it. */
const TAMPERED = [
  ['mangle', ['-I INPUT -p udp -j ACCEPT'], ['chain INPUT should begin with one jump to ~in']],
  [
    'mangle',
    ['-D OUTPUT -j ~mark', '-A OUTPUT -p tcp -j ACCEPT', '-A OUTPUT -j ~mark'],
    ['chain OUTPUT should begin with one jump to ~mark'],
  ],
  ['mangle', ['-D FORWARD -j ~fwd'], ['chain FORWARD should begin with one jump to ~fwd']],
  ['mangle', ['-I POSTROUTING -j ~out'], ['chain POSTROUTING should begin with one jump to ~out']],
  ['mangle', ['-I PREROUTING -j ~in'], ['chain PREROUTING should begin with no jump to a chain of ours']],
  ['mangle', ['-F ~out-0'], ['chain ~out-0 has other rules']],
  ['mangle', ['-I ~in-hit -p udp -j RETURN'], ['chain ~in-hit has other rules']],
  ['mangle', [':~x - [0:0]', '-A ~x -j ACCEPT'], ['chain ~x is not ours']],
  [
    'raw',
    ['-D OUTPUT -j ~raw', '-F ~raw', '-F ~raw-0', '-F ~raw-hit', '-X ~raw', '-X ~raw-0', '-X ~raw-hit'],
    ['chains ~raw, ~raw-0, ~raw-hit are missing', 'chain OUTPUT should begin with one jump to ~raw'],
  ],
] as const

const range = (first: number, count: number, step = 1) => Array.from({ length: count }, (_, i) => first + i * step)

describe.each(VARIANTS)('iptables-%s', (variant) => {
  /** A guard in a namespace of its own. */
  function alone(
    work: (firewall: IptablesFirewall, netns: string) => Promise<void>,
    more?: Partial<GuardOptions>,
  ): Promise<void> {
    return withNetns((netns) => withIptables(netns, variant, (firewall) => work(firewall, netns), more))
  }
  /** All that iptables-save prints, of both families. */
  const all = (netns: string) => Promise.all(FAMILIES.map((family) => saved(netns, family, variant)))

  test.each(KINDS)('the rules are those that a person would write: %o', (kind) =>
    alone(async (firewall, netns) => {
      await firewall.apply({ add: NETWORKS })
      for (const family of FAMILIES) {
        expect(tidy(asText(await saved(netns, family, variant)))).toEqual(tidy(guardText(family, kind)))
      }
      expect(await firewall.read()).toEqual({
        exists: true,
        intact: true,
        differences: [],
        networks: new VniSet(NETWORKS),
        otherPort: undefined,
        drops: { in: 0, out: 0, forwarded: 0, diverted: 0, forged: 0, fragments: 0, quoted: 0 },
      })
    }, kind),
  )

  test('guards 4,000 networks, and gives them up', () =>
    alone(async (firewall, netns) => {
      const sparse = range(1, 4000, 4001)
      await firewall.apply({ add: sparse })
      expect(await firewall.read()).toMatchObject({ intact: true, networks: new VniSet(sparse) })
      await firewall.apply({ add: range(0, 4000), remove: sparse })
      const dense = new VniSet(range(0, 4000).filter((vni) => vni !== 1))
      expect(await firewall.read()).toMatchObject({ intact: true, networks: dense })
      await firewall.apply({ remove: [...dense], removeEmpty: true })
      expect(await firewall.read()).toMatchObject({ exists: false, networks: new VniSet() })
      expect((await all(netns)).flat().filter((line) => line.includes(PREFIX))).toEqual([])
    }))

  test('one program for each family makes any number of changes', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'xfrmesh-runs-'))
    const log = join(directory, 'log')
    const names = FAMILIES.map((family) => program(family, variant, 'restore'))
    const logged = (name: string) => `echo ${name} >>${log}\nexec /usr/sbin/${name} "$@"`
    try {
      await withPrograms(Object.fromEntries(names.map((name) => [name, logged(name)])), () =>
        alone(async (firewall) => {
          for (const vnis of [range(1, 4000, 4001), [5]]) {
            await firewall.apply({ add: vnis })
            expect((await readFile(log, 'utf8')).trim().split('\n').sort()).toEqual([...names].sort())
            await rm(log)
          }
        }),
      )
    } finally {
      await rm(directory, { recursive: true })
    }
  })

  test('each network is told from its neighbours, on the way in and out', () =>
    withLink(async (one, other) => {
      // Some alone, some in runs: trees of several levels.
      const guarded = new Set([...range(0, 800, 7).flatMap((vni) => [vni, vni + 2, vni + 3]), 0xffffff])
      const near = [...guarded].flatMap((vni) => [vni - 1, vni, vni + 1])
      const vnis = [...new Set(near)].filter((vni) => vni >= 0 && vni <= 0xffffff)
      const plain = vnis.filter((vni) => !guarded.has(vni)).sort((a, b) => a - b)
      for (const netns of [other, one]) {
        await withIptables(netns, variant, async (firewall) => {
          await firewall.apply({ add: [...guarded] })
          for (const to of ['192.0.2.2', '2001:db8::2']) {
            const heard = await probe.heardDuring(other, [4789], () => probe.send(one, { to: [to], port: 4789, vnis }))
            const came = Object.keys(heard).map((network) => Number(network.split(' ')[1]))
            expect(came.sort((a, b) => a - b)).toEqual(plain)
          }
          await firewall.remove()
        })
      }
    }))

  test('takes any VNI, twice too, and gives up what it does not have', () =>
    alone(async (firewall, netns) => {
      await firewall.apply({ add: [0, 0xffffff, 0xffffff] })
      const before = await all(netns)
      await firewall.apply({ add: [0], remove: [7, 8] })
      await firewall.apply({})
      expect(await all(netns)).toEqual(before)
      await firewall.apply({ add: [1, 2], remove: [2, 0xffffff] })
      expect((await firewall.read()).networks).toEqual(new VniSet([0, 1]))
      await firewall.restore([5])
      expect(await firewall.read()).toMatchObject({ intact: true, networks: new VniSet([5]) })
    }))

  test('stays when its last network goes, unless told otherwise; where there is none, nothing is made', () =>
    alone(async (firewall) => {
      await firewall.apply({ remove: [1], removeEmpty: true })
      await firewall.apply({})
      expect((await firewall.read()).exists).toBe(false)
      await firewall.apply({ add: [1] })
      await firewall.apply({ remove: [1] })
      expect(await firewall.read()).toMatchObject({ exists: true, intact: true, networks: new VniSet() })
      await firewall.apply({ removeEmpty: true })
      expect((await firewall.read()).exists).toBe(false)
      await firewall.remove()
    }))

  test('keeps the networks of an exclusive guard, and those of one that was opened otherwise', () =>
    alone(
      async (firewall, netns) => {
        await firewall.apply({ add: NETWORKS })
        await firewall.apply({ remove: [4096] })
        expect(await firewall.read()).toMatchObject({ intact: true, networks: new VniSet([5000, 5001, 5002]) })
        await withIptables(netns, variant, async (other) => {
          expect(await other.read()).toMatchObject({ intact: false, networks: new VniSet([5000, 5001, 5002]) })
          await other.apply({ add: [1] })
          expect(await other.read()).toMatchObject({ intact: true, networks: new VniSet([1, 5000, 5001, 5002]) })
        })
      },
      { exclusive: true },
    ))

  test('refuses to leave the networks of another port unguarded', () =>
    alone(async (firewall, netns) => {
      await firewall.apply({ add: [1] })
      await withIptables(
        netns,
        variant,
        async (other) => {
          expect((await other.read()).otherPort).toBe(4789)
          await expect(other.apply({ add: [2] })).rejects.toMatchObject({ code: 'ERR_XFRMESH_OTHER_PORT' })
        },
        { port: 8472 },
      )
      expect(await firewall.read()).toMatchObject({ intact: true, networks: new VniSet([1]) })
    }))

  test('touches nobody else, and gets along with a guard of another mark', () =>
    alone(async (firewall, netns) => {
      for (const family of FAMILIES) {
        const of = [family, variant] as const
        await iptables(
          netns,
          of,
          'mangle',
          ':others - [0:0]',
          '-A OUTPUT -j others',
          '-A others -p tcp -j MARK --set-mark 7',
        )
        await iptables(netns, of, 'raw', '-A PREROUTING -p tcp --dport 80 -j CT --notrack')
        await iptables(netns, of, 'filter', '-A INPUT -p udp --dport 4789 -j ACCEPT')
      }
      const before = await all(netns)
      await firewall.apply({ add: NETWORKS })
      await withIptables(
        netns,
        variant,
        async (other) => {
          await other.apply({ add: NETWORKS })
          // Neither claims the other's place.
          for (const each of [firewall, other]) expect(await each.read()).toMatchObject({ intact: true })
          await firewall.restore([1])
          expect(await other.read()).toMatchObject({ intact: true, networks: new VniSet(NETWORKS) })
          await other.remove()
        },
        { mark: 0x58464 },
      )
      expect(await firewall.read()).toMatchObject({ intact: true, networks: new VniSet([1]) })
      await firewall.remove()
      expect(await all(netns)).toEqual(before)
    }))

  test('what was tampered with is told, and mended; rules of others stay', () =>
    alone(async (firewall, netns) => {
      await firewall.apply({ add: NETWORKS })
      let family: 4 | 6 = 4
      for (const [table, commands, said] of TAMPERED) {
        family = family === 4 ? 6 : 4
        const named = commands.map((command) => command.replaceAll('~', PREFIX))
        await iptables(netns, [family, variant], table, ...named)
        const { differences, ...state } = await firewall.read()
        expect(state).toMatchObject({ exists: true, intact: false, networks: new VniSet(NETWORKS) })
        const where = `IPv${family}, table ${table}: `
        expect(differences.map((text) => text.replace(where, '').replaceAll(PREFIX, '~'))).toEqual(said)
        if (family === 4) await firewall.restore(NETWORKS)
        else await firewall.apply({})
        expect(await firewall.read()).toMatchObject({ intact: true, networks: new VniSet(NETWORKS) })
      }
      const others = (await all(netns)).map((lines) => lines.filter((line) => line.endsWith('ACCEPT')))
      expect(others).toEqual([['-A OUTPUT -p tcp -j ACCEPT'], ['-A INPUT -p udp -j ACCEPT']])
    }))

  test('what an administrator’s rule refers to stays when the rest goes, and guards again', () =>
    alone(async (firewall, netns) => {
      await firewall.apply({ add: NETWORKS })
      await iptables(netns, [4, variant], 'mangle', `-A INPUT -p udp -j ${PREFIX}in`)
      expect(await firewall.read()).toMatchObject({ intact: true })
      await firewall.remove()
      const left = (await all(netns)).flat().filter((line) => line.includes(PREFIX))
      expect(left).toEqual([`:${PREFIX}in - [0:0]`, `-A INPUT -p udp -j ${PREFIX}in`])
      await firewall.apply({ add: [7] })
      expect(await firewall.read()).toMatchObject({ intact: true, networks: new VniSet([7]) })
    }))
})
