/** The sysctls that a host has once for all its namespaces: what they cost a node that lacks them, and what tuneHost makes of them. */
import { basename } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { run, start } from '../../lib/demo/processes.js'
import { checkHost, tuneHost } from '../../lib/index.js'
import { feedNetns, inNetns, withNetns } from './netns.js'

const script = fileURLToPath(new URL('networks.mjs', import.meta.url))

async function sysctl(name: string): Promise<number> {
  return Number(await run('sysctl', ['-n', name]))
}

async function set(values: Readonly<Record<string, number>>): Promise<void> {
  await run('sysctl', ['-qw', ...Object.entries(values).map(([name, value]) => `${name}=${value}`)])
}

/** Thresholds of the neighbour tables, of both families, each counted from 1. */
function thresholds(...values: readonly number[]): Record<string, number> {
  const names = (version: number) => values.map((_, i) => `net.ipv${version}.neigh.default.gc_thresh${i + 1}`)
  return Object.fromEntries([4, 6].flatMap((version) => names(version).map((name, i) => [name, values[i]!])))
}

/** Sends a datagram to each of many neighbours, and says how many it could not send. */
const sender = `
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
failed = 0
for i in range(int(sys.argv[1])):
    try:
        sender.sendto(bytes(20), (f'198.18.{i >> 8}.{i & 255}', 9))
    except OSError:
        failed += 1
print(failed)
`
const PEERS = 1500

// Elsewhere these sysctls are those of a machine that is more than a lab.
test.runIf(process.env['XFRMESH_LAB'] === 'vm')(
  'of more neighbours than the table holds packets are lost, and who sends them is not told, until the host is tuned',
  () =>
    withNetns((one) =>
      withNetns(async (other) => {
        await set(thresholds(128, 512, 1024))
        // One link with all peers on it: the other end is each of them. Permanent neighbours, such as those of Endpoints, are
        // on another.
        await feedNetns(
          one,
          [
            `link add eth0 type veth peer name eth0 netns ${basename(other)}`,
            'link add dummy0 type dummy',
            'address add 192.0.2.1/24 dev eth0',
            ...['eth0', 'dummy0'].map((name) => `link set ${name} up`),
            'route add 198.18.0.0/15 dev eth0',
            ...Array.from(
              { length: 1200 },
              (_, i) => `neigh add 10.9.${i >> 8}.${i & 255} lladdr 02:00:00:00:00:01 dev dummy0 nud permanent`,
            ),
            '',
          ].join('\n'),
          'ip',
          '-batch',
          '-',
        )
        const far = 'link set eth0 up\nroute add local 198.18.0.0/15 dev lo\nroute add 192.0.2.0/24 dev eth0\n'
        await feedNetns(other, far, 'ip', '-batch', '-')
        const counting = `table ip counting {
        counter arrived { }
        chain input {
          type filter hook input priority 0;
          udp dport 9 counter name arrived
        }
      }\n`
        await feedNetns(other, counting, 'nft', '-f', '-')
        const arrived = async (count: number) => {
          expect(await inNetns(one, 'python3', '-c', sender, String(count))).toBe('0\n')
          const counters = await inNetns(other, 'nft', 'reset', 'counters')
          return Number(/packets (\d+)/.exec(counters)?.[1])
        }
        expect(await arrived(800)).toBe(800)

        const checked = await checkHost({ peers: PEERS })
        expect(checked.filter(({ ok }) => !ok).map(({ name, has, wants }) => [name, has, wants])).toEqual(
          Object.entries(thresholds(128, 512, 1024)).map(([name, has]) => [
            name,
            has,
            thresholds(8192, 49_152, 65_536)[name],
          ]),
        )
        expect(await arrived(PEERS)).toBeLessThan(1100)

        expect((await tuneHost({ peers: PEERS, dryRun: true })).changed).toHaveLength(6)
        expect(await sysctl('net.ipv4.neigh.default.gc_thresh3')).toBe(1024)
        const { changed, refused } = await tuneHost({ peers: PEERS })
        expect(refused).toEqual([])
        expect(changed.map(({ name, scope, to }) => [name, scope, to])).toEqual(
          Object.entries(thresholds(8192, 49_152, 65_536)).map(([name, to]) => [name, 'host', to]),
        )
        for (const { name, to } of changed) expect(await sysctl(name)).toBe(to)
        expect(await arrived(PEERS)).toBe(PEERS)
        // From another namespace the host's are seen and raised all the same, and what is higher stays.
        await set({ 'net.ipv4.neigh.default.gc_thresh3': 1_000_000, 'net.ipv4.neigh.default.gc_thresh2': 50_000 })
        const more = await tuneHost({ peers: 60_000, netns: other })
        expect(more.changed.map(({ name, from, to }) => [name, from, to])).toEqual([
          ['net.ipv4.neigh.default.gc_thresh1', 8192, 10_000],
          ['net.ipv4.neigh.default.gc_thresh2', 50_000, 60_000],
          ['net.ipv6.neigh.default.gc_thresh1', 8192, 10_000],
          ['net.ipv6.neigh.default.gc_thresh2', 49_152, 60_000],
          ['net.ipv6.neigh.default.gc_thresh3', 65_536, 80_000],
        ])
        expect(await sysctl('net.ipv4.neigh.default.gc_thresh3')).toBe(1_000_000)
        await set(thresholds(128, 512, 1024))
      }),
    ),
)

test.runIf(process.env['XFRMESH_LAB'] === 'vm')(
  'of more networks than one send holds, a process without privileges is told by checkHost what it takes',
  async () => {
    const networks = 30_000
    const limit = await sysctl('net.core.wmem_max')
    await set({ 'net.core.wmem_max': 212_992 })
    // In a user namespace of its own: root there, and nobody on the host.
    const words = ['--user', '--map-root-user', '--net', process.execPath, script, String(networks)]
    const running = start('unshare', words)
    const answers = createInterface(running.child.stdout!)[Symbol.asyncIterator]()
    const attempt = async () =>
      JSON.parse((await answers.next()).value as string) as { check: { ok: boolean; wants: number }; outcome: object }
    const { check, outcome } = await attempt()
    expect(outcome).toEqual({ missing: 'net.core.wmem_max' })
    expect(check.ok).toBe(false)
    expect(check.wants).toBeLessThan(300_000)
    await set({ 'net.core.wmem_max': check.wants })
    running.child.stdin!.end('again\n')
    expect(await attempt()).toMatchObject({ check: { ok: true, wants: null }, outcome: { applied: networks } })
    await running.ended
    await set({ 'net.core.wmem_max': limit })
  },
)
