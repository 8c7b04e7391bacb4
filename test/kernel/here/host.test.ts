/**
 * What checkHost says is what sysctl(8) says, and matters; what tuneHost says it did is all it did. On this machine's kernel,
 * and without what a host has once for all its namespaces: that is the lab's, test/kernel/host.test.ts.
 */
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { checkHost, type HostCheck, type HostTuning, tuneHost, type TuneOptions } from '../../../lib/index.js'
import { feedNetns, inNetns, withNetns } from '../netns.js'
import { withPath } from '../path.js'

const script = fileURLToPath(new URL('host.mjs', import.meta.url))

const FORWARDING = ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding']

async function set(netns: string, values: Readonly<Record<string, number>>): Promise<void> {
  await inNetns(netns, 'sysctl', '-qw', ...Object.entries(values).map(([name, value]) => `${name}=${value}`))
}

/** The sysctls of a namespace, as sysctl(8) lists them. */
async function all(netns: string): Promise<Map<string, string>> {
  const lines = (await inNetns(netns, 'sysctl', '-a', '--pattern', '^net')).split('\n')
  return new Map(lines.map((line) => line.split(' = ') as [string, string]))
}

const own = ({ scope }: { scope: string }) => scope === 'namespace'

/** Whether a ping is answered; one that should be gets its time. */
function passes(netns: string, to: string, expected: boolean, ...words: string[]): Promise<boolean> {
  return inNetns(netns, 'ping', '-n', '-q', '-c', '1', '-W', expected ? '5' : '0.5', ...words, to).then(
    () => true,
    () => false,
  )
}

/** Two namespaces joined by two links, of which the second has IPv4 alone. */
function withLinks<T>(work: (one: string, other: string) => Promise<T>): Promise<T> {
  return withNetns((one) =>
    withNetns(async (other) => {
      for (const [i, netns] of [one, other].entries()) {
        const making = ['eth0', 'eth1'].map(
          (name) => `link add ${name} type veth peer name ${name} netns ${basename(other)}`,
        )
        const lines = [
          ...(i === 0 ? making : []),
          ...[`192.0.2.${i + 1}/24`, `2001:db8::${i + 1}/64`].map((address) => `address add ${address} dev eth0`),
          `address add 198.51.100.${i + 1}/24 dev eth1`,
          ...['eth0', 'eth1'].map((name) => `link set ${name} up`),
        ]
        await set(netns, { 'net.ipv6.conf.default.accept_dad': 0 })
        await feedNetns(netns, lines.map((line) => `${line}\n`).join(''), 'ip', '-batch', '-')
      }
      return work(one, other)
    }),
  )
}

describe('what is checked', () => {
  test('is as sysctl has it, in that namespace', () =>
    withNetns(async (netns) => {
      await set(netns, { 'net.ipv4.conf.all.rp_filter': 1, 'net.ipv4.conf.all.disable_xfrm': 1 })
      const checks = await checkHost({ peers: 1000, netns })
      const there = await all(netns)
      for (const { name, has } of checks.filter(own)) expect(`${name} ${has}`).toBe(`${name} ${there.get(name)}`)
      expect(checks.filter(own).filter(({ ok }) => !ok)).toMatchObject([
        { name: 'net.ipv4.conf.all.disable_xfrm', has: 1, wants: 0 },
      ])
      expect(checks.find(({ name }) => name.endsWith('rp_filter'))).toMatchObject({ has: 1, wants: null, ok: true })
      expect(JSON.parse(JSON.stringify(checks))).toEqual(checks)
    }))

  test('takes the policies out of the way, or is what drops packets that come by another device than answers leave by', () =>
    withLinks(async (one, other) => {
      for (const [name, from, to, direction] of [
        ['net.ipv4.conf.all.disable_xfrm', '192.0.2.1', '192.0.2.2', 'out'],
        ['net.ipv4.conf.all.disable_policy', '192.0.2.1', '192.0.2.2', 'in'],
        ['net.ipv6.conf.all.disable_policy', '2001:db8::1', '2001:db8::2', 'in'],
        // A device's own, where that of all is off.
        ['net.ipv4.conf.eth0.disable_xfrm', '192.0.2.1', '192.0.2.2', 'out'],
        ['net.ipv4.conf.eth0.disable_policy', '192.0.2.1', '192.0.2.2', 'in'],
        ['net.ipv6.conf.eth0.disable_policy', '2001:db8::1', '2001:db8::2', 'in'],
      ] as const) {
        const ends = ['src', from, 'dst', to]
        const where = direction === 'in' ? other : one
        const template = ['tmpl', ...ends, 'proto', 'esp', 'mode', 'transport', 'reqid', '7']
        const policy = (verb: string, ...words: string[]) =>
          inNetns(where, 'ip', 'xfrm', 'policy', verb, ...ends, 'dir', direction, ...words)
        expect(await passes(one, to, true)).toBe(true)
        await policy('add', ...template)
        expect(await passes(one, to, false), name).toBe(false)
        await set(where, { [name]: 1 })
        expect((await checkHost({ netns: where })).find((check) => check.name === name)).toMatchObject({ ok: false })
        // Routes that were looked up before are looked up again.
        await inNetns(where, 'ip', 'route', 'flush', 'cache')
        expect(await passes(one, to, true), name).toBe(true)
        await policy('delete')
        await set(where, { [name]: 0 })
        expect((await checkHost({ netns: where })).filter(own).filter(({ ok }) => !ok)).toEqual([])
      }
      for (const [value, expected] of [
        [0, true],
        [1, false],
        [2, true],
      ] as const) {
        await set(other, { 'net.ipv4.conf.all.rp_filter': value })
        expect(await passes(one, '198.51.100.2', expected, '-I', '192.0.2.1'), `rp_filter ${value}`).toBe(expected)
      }
    }))
})

test('what devices that are made from now on will have is checked, beside what devices have', () =>
  withNetns(async (netns) => {
    const switches = ['ipv4.conf.x.disable_xfrm', 'ipv4.conf.x.disable_policy', 'ipv6.conf.x.disable_policy']
    const of = (device: string) => switches.map((name) => `net.${name.replace('x', device)}`)
    const wrong = async () => (await checkHost({ netns })).filter(own).filter(({ ok }) => !ok)
    const names = async () => (await wrong()).map(({ name }) => name)
    await inNetns(netns, 'ip', 'link', 'add', 'before', 'type', 'bridge')
    await set(netns, Object.fromEntries(of('default').map((name) => [name, 1])))
    expect(await names()).toEqual(of('default'))
    for (const { why } of await wrong()) expect(why).toMatch(/^of devices that are made from now on: else /)
    await inNetns(netns, 'ip', 'link', 'add', 'after', 'type', 'bridge')
    expect(await names()).toEqual([...of('default'), ...of('after')])
  }))

describe('what is tuned', () => {
  test('is what was asked for, and nothing else', () =>
    withNetns(async (netns) => {
      const before = await all(netns)
      const dry = await tuneHost({ forwarding: true, netns, dryRun: true })
      expect(dry.changed.filter(own)).toEqual(FORWARDING.map((name) => ({ name, scope: 'namespace', from: 0, to: 1 })))
      expect(await all(netns)).toEqual(before)

      expect((await tuneHost({ netns })).changed.filter(own)).toEqual([])
      const tuned = await tuneHost({ forwarding: true, netns })
      expect(tuned.changed.filter(own)).toEqual(dry.changed.filter(own))
      // What else the kernel changes with them it changes for sysctl(8) too.
      const alike = await withNetns(async (other) => {
        for (const name of FORWARDING) await set(other, { [name]: 1 })
        return all(other)
      })
      expect(await all(netns)).toEqual(alike)
      expect((await tuneHost({ forwarding: true, netns })).changed).toEqual([])
    }))

  test('is never lowered, and said to be so', () =>
    withNetns(async (netns) => {
      const name = 'net.ipv4.conf.all.disable_policy'
      await set(netns, { [name]: 1 })
      const { changed, refused } = await tuneHost({ netns })
      expect(changed.filter(own)).toEqual([])
      expect(refused.filter(own)).toEqual([
        {
          ...{ name, scope: 'namespace', has: 1, wants: 0, errno: 0, code: 'ERR_XFRMESH_NOT_RAISED' },
          message: expect.stringContaining(`sysctl -w ${name}=0`) as string,
        },
      ])
      expect(await inNetns(netns, 'sysctl', '-n', name)).toBe('1\n')
    }))

  test('lets containers through, where nothing passed before', () =>
    withPath(async ({ near, router, far }) => {
      const pass = async (expected: boolean) => [
        await passes(near.netns, far.address[4], expected),
        await passes(near.netns, far.address[6], expected),
      ]
      for (const name of FORWARDING) await set(router.netns, { [name]: 0 })
      expect(await pass(false)).toEqual([false, false])
      await tuneHost({ forwarding: true, netns: router.netns })
      expect(await pass(true)).toEqual([true, true])
    }))

  describe('is refused, with errno and what to do,', () => {
    const nobody = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups', '--inh-caps=-all']
    const readOnly = ['unshare', '--mount', 'sh', '-c', 'mount --bind -o ro /proc/sys /proc/sys && exec "$0" "$@"']
    test.each([
      ['to a process without privileges', nobody, 13, 'EACCES'],
      ['where /proc/sys is read-only, as in a container,', readOnly, 30, 'EROFS'],
    ] as const)('%s', (_, words, errno, code) =>
      withNetns(async (netns) => {
        const options: TuneOptions = { peers: 2 ** 24, forwarding: true }
        const [command, ...rest] = [...words, process.execPath, script, JSON.stringify(options)]
        const printed = await inNetns(netns, command, ...rest)
        const { tuned, checks } = JSON.parse(printed) as { tuned: HostTuning; checks: HostCheck[] }
        expect(tuned.changed).toEqual([])
        expect(tuned.refused.filter(own)).toEqual(
          FORWARDING.map((name) => ({
            ...{ name, scope: 'namespace', has: 0, wants: 1, errno, code },
            message: expect.stringContaining(`sysctl -w ${name}=1`) as string,
          })),
        )
        const thresholds = tuned.refused.filter(({ name }) => name.includes('gc_thresh'))
        expect(thresholds).toHaveLength(6)
        // Who may not see the host's is told that.
        for (const { errno: said } of thresholds) expect([2, errno]).toContain(said)
        const failing = checks.filter(own).filter(({ ok }) => !ok)
        expect(failing.map(({ name }) => name)).toEqual(FORWARDING)
      }),
    )
  })
})
