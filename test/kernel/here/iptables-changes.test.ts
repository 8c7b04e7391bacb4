/** The guard by iptables while it changes, and where one kind of firewall takes over from another: it never opens. */
import { once } from 'node:events'
import { readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, test } from 'vitest'
import { Overlay, PartialFailure } from '../../../lib/index.js'
import { Iptables, type XtVariant } from '../../../lib/kernel/iptables.js'
import { IptablesFirewall } from '../../../lib/overlay/firewall-iptables.js'
import { VniSet } from '../../../lib/overlay/vni-set.js'
import {
  FAMILIES,
  GUARD,
  PREFIX,
  program,
  saved,
  VARIANTS,
  withIptables,
  withPrograms,
  withSystemIptables,
} from '../iptables.js'
import { feedNetns, inNetns, startInNetns, withLink, withNetns } from '../netns.js'
import { Probe } from '../probe.js'

const PORT = 4789
const ENCRYPTED = 4096
const probe = new Probe()
afterAll(() => probe.close())

/** Runs `work` while one namespace sends what is encrypted to the other, and sees to it that none arrives. */
async function underFlood(from: string, to: string, work: () => Promise<void>): Promise<void> {
  const flooding = { to: ['192.0.2.2'], port: PORT, vni: ENCRYPTED }
  const heard = await probe.heardDuring(to, [PORT], async () => {
    expect(await probe.floodDuring(from, flooding, work)).toBeGreaterThan(100)
  })
  expect(heard).toEqual({})
}

const range = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + i * 2)

test.each(VARIANTS)('iptables-%s: a network is guarded at every moment while others come and go', (variant) =>
  withLink((one, other) =>
    withIptables(one, variant, async (firewall) => {
      await firewall.apply({ add: [ENCRYPTED] })
      await underFlood(one, other, async () => {
        for (let i = 0; i < 5; i++) {
          await firewall.restore([ENCRYPTED, ...range(0, 100 * i)])
          await firewall.apply({ add: range(10_000, 300) })
          await firewall.apply({ remove: range(10_000, 300) })
        }
      })
    }),
  ),
)

/** What there is of our guards in a namespace. */
async function guards(netns: string): Promise<string[]> {
  const found = []
  if ((await inNetns(netns, 'nft', 'list', 'tables')).includes('xfrmesh_')) found.push('nftables')
  for (const variant of VARIANTS) {
    const texts = await Promise.all(FAMILIES.map((family) => saved(netns, family, variant)))
    const counts = texts.map((lines) => lines.filter((line) => line.includes(PREFIX)).length)
    if (counts.every((count) => count > 0)) found.push(variant)
    else if (counts.some((count) => count > 0)) found.push(`${variant} in part`)
  }
  return found
}

type Kind = 'nftables' | XtVariant | 'none'

/** Opens an Overlay with a kind of firewall in a namespace for as long as `work` lasts. */
function overlaid(netns: string, kind: Kind, work: (overlay: Overlay) => Promise<unknown>): Promise<void> {
  const firewall = kind === 'legacy' || kind === 'nft' ? 'iptables' : kind
  return withSystemIptables(kind === 'legacy' ? 'legacy' : 'nft', async () => {
    const overlay = await Overlay.open({ local: '192.0.2.1', netns, firewall })
    try {
      await work(overlay)
    } finally {
      await overlay.close()
    }
  })
}

describe('an Overlay that is opened with another kind of firewall', () => {
  test('guards what the one before did, and takes that one away; with none, nothing is touched', () =>
    withLink(async (one, other) => {
      await overlaid(one, 'nftables', (overlay) => overlay.addNetworks([ENCRYPTED, 5000]))
      expect(await guards(one)).toEqual(['nftables'])
      await underFlood(one, other, async () => {
        for (const kind of ['legacy', 'nft', 'nftables', 'nft', 'legacy', 'nftables'] as const) {
          await overlaid(one, kind, async (overlay) => {
            expect(await guards(one)).toEqual([kind])
            // Nobody asked for them yet: what was left is guarded until it is given up.
            const { plan } = await overlay.reconcile({ dryRun: true })
            expect(plan.filter(({ phase }) => phase === 'unguard')).toHaveLength(2)
            await overlay.addNetworks([ENCRYPTED])
            expect((await overlay.status()).firewall).toEqual({
              kind: kind === 'nftables' ? kind : 'iptables',
              intact: true,
              differences: [],
            })
          })
          await overlaid(one, 'none', (overlay) => overlay.addNetworks([ENCRYPTED]))
          expect(await guards(one)).toEqual([kind])
        }
      })
    }))

  test('leaves what others have in those tables', () =>
    withLink(async (one) => {
      await overlaid(one, 'nft', (overlay) => overlay.addNetworks([ENCRYPTED]))
      await inNetns(one, program(4, 'nft'), '-t', 'mangle', '-A', 'INPUT', '-p', 'udp', '-j', 'ACCEPT')
      await overlaid(one, 'nftables', () => Promise.resolve())
      expect(await guards(one)).toEqual(['nftables'])
      expect(await saved(one, 4, 'nft')).toContain('-A INPUT -p udp -j ACCEPT')
    }))

  test('refuses to take over the networks of another port', () =>
    withLink(async (one) => {
      await overlaid(one, 'legacy', (overlay) => overlay.addNetworks([ENCRYPTED]))
      const opening = Overlay.open({ local: '192.0.2.1', netns: one, port: 8472 })
      await expect(opening).rejects.toMatchObject({ code: 'ERR_XFRMESH_OTHER_PORT' })
      expect(await guards(one)).toEqual(['legacy'])
    }))
})

describe('a change that fails', () => {
  /** While `work` runs, this is one of the system's programs. */
  const withProgram = (name: string, script: string, work: () => Promise<void>) =>
    withSystemIptables('legacy', () => withPrograms({ [name]: script }, work))

  /** Says what kind it is, and does that when asked to change something. */
  const restoring = (script: string) => `[ "$1" != --version ] || exit 0\n${script}`

  /** All rules of both families. */
  const rules = (netns: string) => Promise.all(FAMILIES.map((family) => saved(netns, family, 'legacy')))

  test('in one family is taken back in the other, and is in the report', () =>
    withNetns(async (netns) => {
      await overlaid(netns, 'legacy', (overlay) => overlay.addNetworks([5000]))
      const before = await rules(netns)
      await withProgram('ip6tables-restore', 'echo no such luck >&2; exit 1', async () => {
        await using overlay = await Overlay.open({ local: '192.0.2.1', netns, firewall: 'iptables' })
        const error: unknown = await overlay.addNetworks([ENCRYPTED]).catch((reason: unknown) => reason)
        expect(error).toBeInstanceOf(PartialFailure)
        expect((error as PartialFailure).report.failures).toEqual([
          {
            subject: `vni ${ENCRYPTED}`,
            operation: 'guard network',
            errno: 0,
            code: 'ERR_XFRMESH_IPTABLES',
            message: 'ip6tables-restore: no such luck',
          },
        ])
        expect(await rules(netns)).toEqual(before)
      })
    }))

  test('for want of the lock says so', () =>
    withNetns((netns) =>
      withProgram('none', '', async () => {
        await using iptables = await Iptables.open({ netns, variant: 'legacy', timeoutMs: 1500 })
        const firewall = new IptablesFirewall(iptables, GUARD)
        const holder = startInNetns(
          netns,
          'flock',
          '--no-fork',
          '/run/xtables.lock',
          'sh',
          '-c',
          'echo held; exec sleep 60',
        )
        await once(holder.child.stdout!, 'data')
        await expect(firewall.apply({ add: [1] })).rejects.toThrow(/ip6?tables-restore: .*xtables lock/)
        await holder.stop()
        await firewall.apply({ add: [1] })
        expect((await firewall.read()).intact).toBe(true)
      }),
    ))

  test('for want of time says so', () =>
    withNetns((netns) =>
      withProgram('iptables-restore', restoring('exec sleep 60'), async () => {
        await using iptables = await Iptables.open({ netns, timeoutMs: 500 })
        const firewall = new IptablesFirewall(iptables, GUARD)
        await expect(firewall.apply({ add: [1] })).rejects.toMatchObject({ code: 'ERR_XFRMESH_TIMEOUT' })
      }),
    ))

  test('killed at any line leaves a table as it was, or as it should be', () =>
    withNetns(async (netns) => {
      const given = join(tmpdir(), `given-${basename(netns)}`)
      await using iptables = await Iptables.open({ netns, variant: 'legacy' })
      const whole = new IptablesFirewall(iptables, GUARD)
      await withProgram('iptables-restore', restoring(`cat >${given}; exit 1`), async () => {
        await using broken = await Iptables.open({ netns })
        await expect(new IptablesFirewall(broken, GUARD).apply({ add: [1] })).rejects.toThrow()
      })
      const lines = (await readFile(given, 'utf8')).trimEnd().split('\n')
      await rm(given)
      const ends = lines.flatMap((line, i) => (line === 'COMMIT' ? [i + 1] : []))
      const tables = lines.filter((line) => line.startsWith('*')).map((line) => line.slice(1))
      expect(tables).toEqual(['raw', 'filter', 'mangle'])
      for (let i = 1; i < lines.length; i++) {
        await feedNetns(netns, `${lines.slice(0, i).join('\n')}\n`, 'iptables-legacy-restore', '--noflush').catch(
          () => '',
        )
        // Those whose end was read are there, and no other.
        const there = (await saved(netns, 4, 'legacy')).join('\n').split('*')
        const ours = tables.filter((table) => there.some((text) => text.startsWith(table) && text.includes(PREFIX)))
        expect(ours).toEqual(tables.slice(0, ends.filter((end) => end <= i).length))
      }
      await whole.apply({ add: [1] })
      expect(await whole.read()).toMatchObject({ intact: true, networks: new VniSet([1]) })
    }))

  test('CAP_NET_ADMIN is enough, though the tables of iptables are told to root alone', () =>
    withNetns(async (netns) => {
      const script = fileURLToPath(new URL('capable.mjs', import.meta.url))
      const alone = ['inh-caps', 'ambient-caps', 'bounding-set'].map((set) => `--${set}=-all,+net_admin`)
      const words = ['--reuid', '65534', '--regid', '65534', '--clear-groups', ...alone, process.execPath, script]
      expect(JSON.parse(await inNetns(netns, 'setpriv', ...words))).toEqual({ uid: 65534, applied: 1 })
    }))

  test.each([
    ['CAP_NET_ADMIN', 'setpriv --bounding-set=-net_admin --inh-caps=-net_admin', /it takes CAP_NET_ADMIN/],
    ['iptables', 'unshare --mount sh -c \'mount -t tmpfs none /usr/sbin && exec "$0" "$@"\'', /package iptables/],
  ])('for want of %s says so', (missing, under, message) =>
    withNetns(async (netns) => {
      const script = fileURLToPath(new URL('iptables-open.mjs', import.meta.url))
      const said = await inNetns(netns, 'sh', '-c', `exec ${under} ${process.execPath} ${script}`)
      const error = JSON.parse(said) as { code: string; missing: string; message: string }
      expect(error).toMatchObject({ code: 'ERR_XFRMESH_UNSUPPORTED', missing })
      expect(error.message).toMatch(message)
    }),
  )
})
