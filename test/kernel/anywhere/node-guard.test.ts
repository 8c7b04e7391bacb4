/** The guard of a node, which needs no ESP: it holds where the kernel has none, and nothing was encrypted at all. */
import { expect, test } from 'vitest'
import type { Host } from '../../../lib/demo/hosts.js'
import { ping } from '../../../lib/demo/ping.js'
import { PartialFailure } from '../../../lib/base/errors.js'
import { podAddress, remoteOf, withCluster } from '../node-cluster.js'

const FAMILIES = [4, 6] as const

test('from the first call on nothing between pods leaves or enters in the clear, whatever came of it', () =>
  withCluster(2, async (cluster) => {
    const [a, b] = cluster.hosts as [Host, Host]
    const pings = (from: Host, to: Host) =>
      Promise.all(FAMILIES.map((family) => ping(from.container, podAddress(to.number, family), { intervalMs: 20 })))
    expect(await pings(a, b)).toMatchObject([{ lost: 0 }, { lost: 0 }])
    const [before] = await cluster.sent()
    expect(before!.clear).toBe(6)

    const node = await cluster.open(a)
    // Where there is no ESP it says so, of each SA.
    const refused = await node.upsert([remoteOf(2)]).then(
      () => [],
      (error: unknown) => {
        expect(error).toBeInstanceOf(PartialFailure)
        return (error as PartialFailure).report.failures
      },
    )
    expect(
      refused.every(({ operation, subject }) => operation === 'add inbound SA' && subject.startsWith('node2: ')),
    ).toBe(true)

    expect(await pings(a, b)).toMatchObject([{ received: 0 }, { received: 0 }])
    expect((await cluster.sent())[0]!.clear).toBe(6)
    // The other sends in the clear, and is not let in.
    const drops = (await node.status()).guard!.drops.in
    expect(await pings(b, a)).toMatchObject([{ received: 0 }, { received: 0 }])
    expect((await cluster.sent())[1]!.clear).toBe(12)
    expect((await node.status()).guard!.drops.in).toBe(drops + 6)

    // A range that grows, and one that another gave up, are guarded with those before.
    const grown = ['10.2.0.0/24', '10.2.1.0/24', '10.2.3.0/24', 'fd00:2::/64']
    await node.upsert([remoteOf(2, { subnets: grown })]).catch(() => undefined)
    const set = await a.run('nft', ['list', 'set', 'inet', 'xfrmesh_node', 'remote4'])
    expect(set.replace(/\s+/g, ' ')).toContain('elements = { 10.2.0.0/23, 10.2.3.0/24 }')
    await node.upsert([remoteOf(2, { subnets: ['10.2.1.0/24'] })]).catch(() => undefined)
    expect(await a.run('nft', ['list', 'set', 'inet', 'xfrmesh_node', 'remote4'])).toBe(set)

    // Another tool's table does not matter; another tool's change of ours is mended.
    await a.run('nft', ['insert', 'rule', 'inet', 'xfrmesh_node', 'out-pods', 'accept'])
    expect((await node.status()).guard).toMatchObject({
      intact: false,
      differences: ['chain out-pods has 3 rules, not 2'],
    })
    await node.reconcile().catch(() => undefined)
    expect((await node.status()).guard).toMatchObject({ intact: true, differences: [] })
    expect(await pings(a, b)).toMatchObject([{ received: 0 }, { received: 0 }])

    await node.release()
    await node.close({ flush: true })
    expect([await a.policies(), await a.ruleset()]).toEqual([0, ''])
    expect(await pings(a, b)).toMatchObject([{ lost: 0 }, { lost: 0 }])
  }))

test("after a boot the node's own pods send in the clear until the first call, unless the guard's table is restored", () =>
  withCluster(2, async (cluster) => {
    const [a, b] = cluster.hosts as [Host, Host]
    const pings = () =>
      Promise.all(FAMILIES.map((family) => ping(a.container, podAddress(b.number, family), { intervalMs: 20 })))
    const clear = async () => (await cluster.sent())[0]!.clear
    const first = await cluster.open(a)
    await first.upsert([remoteOf(2)]).catch(() => undefined)
    await first.close()
    const table = await a.run('nft', ['list', 'table', 'inet', 'xfrmesh_node'])
    // As a boot leaves it.
    for (const object of ['state', 'policy']) await a.run('ip', ['xfrm', object, 'flush'])
    await a.run('nft', ['flush', 'ruleset'])
    const node = await cluster.open(a)
    const before = await clear()
    expect(await pings()).toMatchObject([{ lost: 0 }, { lost: 0 }])
    expect((await clear()) - before).toBe(6)
    await node.close()

    await a.run('nft', ['-f', '-'], { input: table })
    expect(await pings()).toMatchObject([{ received: 0 }, { received: 0 }])
    const again = await cluster.open(a)
    await again.upsert([remoteOf(2)]).catch(() => undefined)
    // What nft loads holds, but is not all written as ours is: the first call does that.
    expect((await again.status()).guard).toMatchObject({ intact: true, differences: [] })
    expect((await clear()) - before).toBe(6)
    await again.close({ flush: true })
  }))

test("what comes in the clear to the node's own address, and is led to a pod by destination NAT, is not let in", () =>
  withCluster(2, async (cluster) => {
    const [a, b] = cluster.hosts as [Host, Host]
    const pings = () => Promise.all(['192.0.2.1', '2001:db8::1'].map((to) => ping(b.container, to, { intervalMs: 20 })))
    /** Leads pings of the node to an address of its pods: its pod's own, or the node's among them. */
    const lead = (to: string) => {
      const rules = `ip daddr 192.0.2.1 icmp type echo-request dnat ip to 10.1.0.${to};
        ip6 daddr 2001:db8::1 icmpv6 type echo-request dnat ip6 to fd00:1::${to};`
      const chain = `chain in { type nat hook prerouting priority -100; ${rules} }`
      return a.run('nft', ['-f', '-'], {
        input: `table inet nat\ndelete table inet nat\ntable inet nat { ${chain}\n}\n`,
      })
    }
    for (const to of ['2', '1']) {
      await lead(to)
      expect(await pings()).toMatchObject([{ lost: 0 }, { lost: 0 }])
    }
    const node = await cluster.open(a)
    await node.upsert([remoteOf(2)]).catch(() => undefined)
    for (const [i, to] of ['2', '1'].entries()) {
      await lead(to)
      expect(await pings()).toMatchObject([{ received: 0 }, { received: 0 }])
      expect((await node.status()).guard).toMatchObject({ intact: true, drops: { in: 6 * (i + 1), out: 0 } })
    }
  }))

test('what an earlier process guarded, here and there, stays guarded until it is given up; what somebody takes out is told', () =>
  withCluster(1, async (cluster) => {
    const [a] = cluster.hosts as [Host]
    const { addresses } = remoteOf(1)
    const open = (subnets: string[]) => cluster.open(a, { local: { addresses, subnets } })
    const set = async (name: string) => {
      const text = await a.run('nft', ['list', 'set', 'inet', 'xfrmesh_node', name])
      return /elements = \{ (.*?) \}/.exec(text.replace(/\s+/g, ' '))?.[1]
    }
    const before = await open(['10.1.0.0/24', '10.7.0.0/24'])
    await before.upsert([remoteOf(2)]).catch(() => undefined)
    await before.close()

    const node = await open(['10.1.0.0/24', '10.8.0.0/24'])
    await node.upsert([remoteOf(3)]).catch(() => undefined)
    expect([await set('local4'), await set('remote4')]).toEqual([
      '10.1.0.0/24, 10.7.0.0/24, 10.8.0.0/24',
      '10.2.0.0/24, 10.3.0.0/24',
    ])
    // Another node has one of them now.
    await node.upsert([remoteOf(7)]).catch(() => undefined)
    expect([await set('local4'), await set('remote4')]).toEqual([
      '10.1.0.0/24, 10.8.0.0/24',
      '10.2.0.0/24, 10.3.0.0/24, 10.7.0.0/24',
    ])
    expect((await node.status()).guard).toMatchObject({ intact: true })

    await a.run('nft', ['delete', 'element', 'inet', 'xfrmesh_node', 'remote4', '{ 10.7.0.0/24 }'])
    expect((await node.status()).guard).toMatchObject({ intact: false, differences: ['its sets hold other ranges'] })
    await node.reconcile().catch(() => undefined)
    expect((await node.status()).guard).toMatchObject({ intact: true, differences: [] })

    await node.release()
    expect([await set('local4'), await set('remote4')]).toEqual([
      '10.1.0.0/24, 10.8.0.0/24',
      '10.3.0.0/24, 10.7.0.0/24',
    ])
    expect((await node.status()).guard).toMatchObject({ intact: true, differences: [] })
  }))

test('the switches that tunnels depend on are looked at, each with what it is for', () =>
  withCluster(1, async (cluster) => {
    const [a] = cluster.hosts as [Host]
    const node = await cluster.open(a)
    expect((await node.sysctls()).filter(({ ok }) => !ok)).toEqual([])
    await a.ip([['link', 'add', 'veth.5', 'type', 'veth']])
    await a.run('sysctl', ['-qw', 'net.ipv6.conf.all.forwarding=0', 'net/ipv4/conf/veth.5/disable_xfrm=1'])
    expect((await node.sysctls()).filter(({ ok }) => !ok)).toMatchObject([
      { name: 'net.ipv6.conf.all.forwarding', value: '0', wanted: '1' },
      { name: 'net.ipv4.conf.veth/5.disable_xfrm', value: '1', wanted: '0' },
    ])
    await node.enableIPv6Forwarding()
    expect(await a.run('sysctl', ['-n', 'net.ipv6.conf.all.forwarding'])).toBe('1\n')
  }))
