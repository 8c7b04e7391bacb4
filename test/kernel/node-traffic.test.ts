/**
 * Pods on three nodes talk through tunnels, over IPv4 and IPv6, and nothing of theirs is ever in the clear: with the ranges
 * as selectors and a guard, and with the marks of a datapath.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Host } from '../../lib/demo/hosts.js'
import { ping } from '../../lib/demo/ping.js'
import { stopAll } from '../../lib/demo/sniffer.js'
import { type NodeEncryption, parseKeys, type RemoteNode } from '../../lib/node/index.js'
import { bootIdOf, Cluster, FAMILIES, keysOf, overlayAddress, podAddress, remoteOf } from './node-cluster.js'

/** Few pings, soon given up, over both families. */
const COUNT = 3
const few = { count: COUNT, intervalMs: 20, timeoutMs: 300 }
const FEW = COUNT * FAMILIES.length

const pings = (from: Host, to: Host) =>
  Promise.all(FAMILIES.map((family) => ping(from.container, podAddress(to.number, family), few)))
const answered = [{ lost: 0 }, { lost: 0 }]

/** The SAs that lead from one node's IPv4 address to another's, as `ip` lists them. */
async function statesBetween(from: Host, to: Host): Promise<string[]> {
  const [source, destination] = [from, to].map(({ number }) => remoteOf(number).addresses[0]!)
  const text = await from.run('ip', ['xfrm', 'state', 'list', 'src', source!, 'dst', destination!])
  return text.split(/^(?=src )/m).filter((state) => state !== '')
}

/** Has these SAs go on after a number, as if so much had been sent. `high` is its upper half. */
async function leap(from: Host, to: Host, sent: number, high: number): Promise<void> {
  for (const state of await statesBetween(from, to)) {
    const word = (pattern: RegExp) => pattern.exec(state)?.[1]
    const [place, mark, output] = [word(/^(src \S+ dst \S+)/), word(/^\s+mark (\S+)/m), word(/output-mark (\S+)/)]
    const [spi, reqid, aead] = [word(/spi (0x[0-9a-f]+)/), word(/reqid (\d+)/), word(/aead (\S+ 0x[0-9a-f]+ \d+)/)]
    const masked = (name: string, given?: string) =>
      given === undefined ? [] : `${name} ${given.replace('/', ' mask ')}`.split(' ')
    const named = `${place} proto esp spi ${spi}`.split(' ')
    await from.run('ip', ['xfrm', 'state', 'delete', ...named, ...masked('mark', mark)])
    const rest = `reqid ${reqid} mode tunnel aead ${aead} replay-window 1024 flag esn replay-oseq ${sent} replay-oseq-hi ${high}`
    await from.run('ip', [
      ...['xfrm', 'state', 'add', ...named, ...masked('mark', mark), ...rest.split(' ')],
      ...masked('output-mark', output),
    ])
  }
}

let cluster: Cluster
let hosts: [Host, Host, Host]
beforeAll(async () => {
  cluster = await Cluster.create(3)
  hosts = cluster.hosts as [Host, Host, Host]
})
afterAll(() => cluster[Symbol.asyncDispose]())

describe.each([false, 'cilium'] as const)('with marks: %s', (marks) => {
  const overlay = (number: number) => ({ overlay: FAMILIES.map((family) => overlayAddress(number, family)) })
  const more = (number: number): Partial<RemoteNode> => ({ ...overlay(number), ...(marks !== false && { id: number }) })
  const others = (host: Host) => cluster.others(host, more)
  const open = (host: Host, keyId: number, boot = 1) => {
    const { addresses, subnets } = remoteOf(host.number)
    const local = { addresses, subnets: subnets!, bootId: bootIdOf(host.number, boot), ...overlay(host.number) }
    return cluster.open(host, { marks, keys: keysOf(keyId), local })
  }
  /** What a datapath does once its node encrypts under a key. */
  const mark = async (host: Host, keyId: number) => {
    if (marks !== false) await cluster.datapath(host, keyId)
  }
  /** Packets in the clear that each node sent while the work went on. */
  const clearDuring = async (work: () => Promise<unknown>) => {
    const before = await cluster.sent()
    await work()
    return (await cluster.sent()).map(({ clear }, i) => clear - before[i]!.clear)
  }
  const nothing = [0, 0, 0]
  const unanswered = [{ received: 0 }, { received: 0 }]

  let nodes: [NodeEncryption, NodeEncryption, NodeEncryption]
  let keyId = 3

  test('nodes come one after the other: what goes between them is dropped, then it is ESP', async () => {
    const opened: NodeEncryption[] = []
    const [a] = hosts
    expect(await pings(a, hosts[1])).toMatchObject(answered)
    for (const host of hosts) {
      const node = await open(host, keyId)
      opened.push(node)
      expect(await node.upsert(others(host))).toMatchObject({ requested: 2, applied: 2, failures: [] })
      await mark(host, keyId)
      // The first one that is encrypted lets nothing out to the others, nor in from them.
      if (opened.length === 1) {
        const clear = await clearDuring(async () => {
          expect(await pings(host, hosts[1])).toMatchObject(unanswered)
          expect(await pings(hosts[1], host)).toMatchObject(unanswered)
        })
        // The second's agent is still to come: its own packets are in the clear, and are not let in.
        expect(clear).toEqual([0, FEW, 0])
      }
    }
    nodes = opened as typeof nodes
    const [before] = await cluster.sent()
    expect(await clearDuring(() => Promise.all([pings(hosts[0], hosts[1]), pings(hosts[0], hosts[2])]))).toEqual(
      nothing,
    )
    expect((await cluster.sent())[0]!.esp - before!.esp).toBe(2 * FEW)
    expect(await Promise.all(hosts.map((host) => host.xfrmErrors()))).toMatchObject([{}, {}, {}])
  })

  test('a rotation loses nothing if all have prepared before any commits, however slow one of them is', async () => {
    const errors = await Promise.all(hosts.map((host) => host.xfrmErrors()))
    const sniffers = await cluster.sniff()
    const traffic = cluster.traffic()
    await traffic.flows()
    const next = ++keyId
    const clear = await clearDuring(async () => {
      const slow = sleep(500).then(() => nodes[2].prepare(keysOf(next)))
      await Promise.all([nodes[0].prepare(keysOf(next)), nodes[1].prepare(keysOf(next)), slow])
      for (const [i, node] of nodes.entries()) {
        await node.commit()
        await mark(hosts[i]!, next)
        await traffic.flows()
      }
      for (const node of nodes) await node.reclaim({ after: 0 })
      await traffic.flows()
    })
    const sum = await traffic.stop()
    const sniffed = await stopAll(sniffers)
    console.log('rotation:', sum)
    expect(sum.lost).toBe(0)
    expect(clear).toEqual(nothing)
    expect(sniffed).toEqual({ packets: 0, dropped: 0 })
    expect(await Promise.all(hosts.map((host) => host.xfrmErrors()))).toEqual(errors)
    for (const host of hosts) {
      const spis = (await host.run('ip', ['xfrm', 'state'])).matchAll(/ spi 0x[0-9a-f]*([0-9a-f]) /g)
      expect(new Set(Array.from(spis, ([, digit]) => digit))).toEqual(new Set([next.toString(16)]))
    }
  })

  test('a commit before all have prepared loses packets, in neither direction in the clear', async () => {
    const next = ++keyId
    const traffic = cluster.traffic([[hosts[0], hosts[2]]])
    await traffic.flows()
    const missed = async () => (await hosts[2].xfrmErrors())['XfrmInNoStates'] ?? 0
    const before = await missed()
    const clear = await clearDuring(async () => {
      await nodes[0].prepare(keysOf(next))
      await nodes[0].commit()
      await mark(hosts[0], next)
      while ((await missed()) < before + 5) await sleep(20)
      // The slow one, and then it goes on.
      await nodes[2].prepare(keysOf(next))
      await traffic.flows()
    })
    const sum = await traffic.stop()
    console.log('out of order:', sum)
    expect(sum.lost).toBeGreaterThanOrEqual(5)
    expect(clear).toEqual(nothing)
    await nodes[1].prepare(keysOf(next))
    for (const [i, node] of nodes.entries()) {
      if (i > 0) await node.commit()
      await mark(hosts[i]!, next)
      await node.reclaim({ after: 0 })
    }
  })

  test('a node that has booted anew is answered once the others know its boot id', async () => {
    const traffic = cluster.traffic([[hosts[0], hosts[1]]])
    await traffic.flows()
    const clear = await clearDuring(async () => {
      await nodes[1].close()
      for (const object of ['state', 'policy']) await hosts[1].run('ip', ['xfrm', object, 'flush'])
      await hosts[1].run('nft', ['flush', 'ruleset'])
      nodes[1] = await open(hosts[1], keyId, 2)
      await nodes[1].upsert(others(hosts[1]))
      await mark(hosts[1], keyId)
      // Its keys are others now, and they do not fit.
      const errors = async () => (await hosts[1].xfrmErrors())['XfrmInStateProtoError'] ?? 0
      const before = await errors()
      while ((await errors()) === before) await sleep(20)
      for (const i of [0, 2]) {
        const report = await nodes[i]!.upsert([remoteOf(2, { ...more(2), bootId: bootIdOf(2, 2) })])
        expect(report).toMatchObject({ applied: 1 })
      }
      await traffic.flows()
    })
    await traffic.stop()
    expect(clear).toEqual(nothing)
  })

  test('a node that boots while its pods send: that leaves in the clear until its first upsert(), and never after it', async () => {
    const traffic = cluster.traffic([[hosts[1], hosts[0]]])
    await traffic.flows()
    await nodes[1].close()
    for (const object of ['state', 'policy']) await hosts[1].run('ip', ['xfrm', object, 'flush'])
    await hosts[1].run('nft', ['flush', 'ruleset'])
    nodes[1] = await open(hosts[1], keyId, 4)
    const sent = async () => (await cluster.sent())[1]!
    const { clear } = await sent()
    while ((await sent()).clear < clear + 5) await sleep(20)
    await nodes[1].upsert(others(hosts[1]))
    await mark(hosts[1], keyId)
    const after = await clearDuring(async () => {
      const { esp } = await sent()
      while ((await sent()).esp < esp + 5) await sleep(20)
      for (const i of [0, 2]) await nodes[i]!.upsert([remoteOf(2, { ...more(2), bootId: bootIdOf(2, 4) })])
      await traffic.flows()
    })
    await traffic.stop()
    expect(after).toEqual(nothing)
  })

  test('a boot that was missed while the agent was away is made up for', async () => {
    await nodes[0].close()
    await nodes[1].close()
    for (const object of ['state', 'policy']) await hosts[1].run('ip', ['xfrm', object, 'flush'])
    const clear = await clearDuring(async () => {
      nodes[1] = await open(hosts[1], keyId, 3)
      await nodes[1].upsert(others(hosts[1]))
      nodes[0] = await open(hosts[0], keyId)
      const rebooted = { ...more(2), bootId: bootIdOf(2, 3) }
      // What is of the node that did not boot is right as it is.
      expect(await nodes[0].upsert([remoteOf(2, rebooted), remoteOf(3, more(3))])).toMatchObject({
        applied: 1,
        unchanged: 1,
      })
      await nodes[2].upsert([remoteOf(2, rebooted)])
      expect(await pings(hosts[0], hosts[1])).toMatchObject(answered)
    })
    expect(clear).toEqual(nothing)
  })

  test('SAs that another tool took away are put back, and their numbers go on', async () => {
    // A node that boots begins with numbers that were seen, until the others know of it.
    const repeated = () => Promise.all(hosts.map(async (host) => (await host.xfrmErrors())['XfrmInStateSeqError'] ?? 0))
    const before = await repeated()
    const traffic = cluster.traffic([[hosts[0], hosts[1]]])
    await traffic.flows(40)
    const clear = await clearDuring(async () => {
      await hosts[0].run('ip', ['xfrm', 'state', 'flush'])
      expect(await nodes[0].reconcile()).toMatchObject({ updated: 0, removed: 0 })
      await traffic.flows()
    })
    await traffic.stop()
    expect(clear).toEqual(nothing)
    expect(await repeated()).toEqual(before)
    expect(await nodes[0].reconcile({ dryRun: true })).toMatchObject({ plan: [] })
  })

  test('numbers go on past 2^32, by those who were removed and named again too', async () => {
    const clear = await clearDuring(async () => {
      // As after so many packets: leaps that the receiver follows. A process that was started anew began half way.
      for (const [sent, high] of [
        [0xc000_0000, 0],
        [0xffff_fffe, 0],
        [0x7fff_ffff, 1],
      ] as const) {
        await leap(hosts[0], hosts[1], sent, high)
        expect(await pings(hosts[0], hosts[1])).toMatchObject(answered)
      }
      await nodes[0].remove(['node2'])
      await nodes[0].upsert([remoteOf(2, { ...more(2), bootId: bootIdOf(2, 3) })])
      expect(await pings(hosts[0], hosts[1])).toMatchObject(answered)
      // And on the other side, which heard of them.
      await nodes[1].remove(['node1'])
      await nodes[1].upsert(others(hosts[1]))
      expect(await pings(hosts[0], hosts[1])).toMatchObject(answered)
    })
    expect(clear).toEqual(nothing)
    for (const state of await statesBetween(hosts[0], hosts[1])) expect(state).toContain('oseq-hi 0x1,')
  })

  test('overlay traffic between nodes goes through tunnels of its own', async () => {
    const esp = async () => (await cluster.sent())[0]!.esp
    const before = await esp()
    const clear = await clearDuring(async () => {
      for (const family of FAMILIES) {
        const to = overlayAddress(2, family)
        await hosts[0].run('bash', ['-c', `for i in 1 2 3; do echo > /dev/udp/${to}/8472; done`])
      }
    })
    expect(clear).toEqual(nothing)
    expect((await esp()) - before).toBe(6)
    const states = (await hosts[1].run('ip', ['-s', 'xfrm', 'state'])).split(/^(?=src )/m)
    expect(states.filter((state) => state.includes(' reqid 2') && state.includes(' 3(packets)'))).toHaveLength(2)
  })

  if (marks === false) {
    test('with the policies flushed by another tool the guard lets nothing out, and reconcile() brings them back', async () => {
      const clear = await clearDuring(async () => {
        await hosts[0].run('ip', ['xfrm', 'policy', 'flush'])
        expect(await pings(hosts[0], hosts[1])).toMatchObject(unanswered)
      })
      expect(clear).toEqual(nothing)
      expect((await nodes[0].status()).guard!.drops.out).toBeGreaterThanOrEqual(FEW)
      await nodes[0].reconcile()
      expect(await pings(hosts[0], hosts[1])).toMatchObject(answered)
    })
  } else {
    test('with the policies flushed by another tool what is marked leaves in the clear, until reconcile() brings them back', async () => {
      const clear = await clearDuring(async () => {
        await hosts[0].run('ip', ['xfrm', 'policy', 'flush'])
        await pings(hosts[0], hosts[1])
      })
      expect(clear).toEqual([FEW, 0, 0])
      await nodes[0].reconcile()
      const clearAgain = await clearDuring(async () => {
        expect(await pings(hosts[0], hosts[1])).toMatchObject(answered)
      })
      expect(clearAgain).toEqual(nothing)
    })
  }

  test('a node that was removed is sent nothing in the clear, nor is anything taken from it', async () => {
    const clear = await clearDuring(async () => {
      expect(await nodes[0].remove(['node2'])).toMatchObject({ requested: 1, applied: 1 })
      expect(await pings(hosts[0], hosts[1])).toMatchObject(unanswered)
      expect(await pings(hosts[1], hosts[0])).toMatchObject(unanswered)
      expect(await pings(hosts[0], hosts[2])).toMatchObject(answered)
    })
    expect(clear).toEqual(nothing)
    if (marks !== false) expect(await hosts[0].xfrmErrors()).toMatchObject({ XfrmOutPolBlock: FEW })
    // One that comes back goes on with its numbers: the other kept its own.
    await nodes[0].upsert([remoteOf(2, { ...more(2), bootId: bootIdOf(2, 3) })])
    expect(await pings(hosts[0], hosts[1])).toMatchObject(answered)
  })

  test('drops are counted by what they were for', async () => {
    const counters = await nodes[2].statistics()
    const found = Object.fromEntries(counters.map(({ counter, count }) => [counter, count]))
    expect(Object.fromEntries(Object.entries(found).filter(([, count]) => count > 0))).toEqual(
      await hosts[2].xfrmErrors(),
    )
    expect(counters.find(({ counter }) => counter === 'XfrmInNoStates')).toMatchObject({
      direction: 'inbound',
      error: 'no_states',
    })
    expect(counters.filter(({ meaning }) => meaning.includes('not known here'))).toEqual([])
  })

  test('closed with flush, nothing of it is left', async () => {
    for (const node of nodes) await node.close({ flush: true })
    for (const host of hosts) {
      expect([await host.states(), await host.policies()]).toEqual([0, 0])
      expect(await host.ruleset()).not.toContain('xfrmesh')
      await host.run('nft', ['flush', 'ruleset'])
    }
  })
})

describe('with the algorithms of a key file', () => {
  const [half, other] = ['0123456789abcdef0123456789abcdef', 'fedcba9876543210fedcba9876543210']
  const [sha256, cbc] = ['auth-trunc hmac\\(sha256\\) 0x[0-9a-f]{64} \\d+', 'enc cbc\\(aes\\) 0x[0-9a-f]{32}']
  const both = new RegExp(`${sha256}\\n\\s+${cbc}\\n`)

  test.each<[what: string, file: string, shown: RegExp, ofTheFirst?: RegExp]>([
    ['authentication and encryption', `5 hmac(sha256) ${half}${other} cbc(aes) ${half}`, both],
    ['null', '6 digest_null "" cipher_null ""', /auth-trunc digest_null\s+(0x)? *0\n\s+enc ecb\(cipher_null\)/],
    ['an ICV of 96 bits', `7 rfc4106(gcm(aes)) ${half}01020304 96`, /aead rfc4106\(gcm\(aes\)\) 0x[0-9a-f]{40} 96\n/],
    [
      'others of what one address sends',
      `8 hmac(sha256) ${half}${other} cbc(aes) ${half}\n8 hmac(sha1) ${half} cbc(aes) ${half}${other} 192.0.2.1`,
      both,
      /auth-trunc hmac\(sha1\) 0x[0-9a-f]{32} \d+\n\s+enc cbc\(aes\) 0x[0-9a-f]{64}\n/,
    ],
  ])('%s', async (_, file, shown, ofTheFirst = shown) => {
    const [a, b] = hosts
    const errors = await Promise.all([a.xfrmErrors(), b.xfrmErrors()])
    const nodes = await Promise.all([a, b].map((host) => cluster.open(host, { keys: parseKeys(file) })))
    try {
      await nodes[0]!.upsert([remoteOf(b.number)])
      await nodes[1]!.upsert([remoteOf(a.number)])
      const before = await cluster.sent()
      expect(await pings(a, b)).toMatchObject(answered)
      expect(await pings(b, a)).toMatchObject(answered)
      const sent = (await cluster.sent()).map(({ clear, esp }, i) => [clear - before[i]!.clear, esp - before[i]!.esp])
      expect(sent).toEqual([
        [0, 2 * FEW],
        [0, 2 * FEW],
        [0, 0],
      ])
      for (const host of [a, b]) {
        const states = (await host.run('ip', ['-s', 'xfrm', 'state'])).split(/^(?=src )/m)
        expect(states).toHaveLength(4)
        for (const state of states) {
          const algorithms = state.replace(/ \(\d+ bits\)/g, '')
          expect(algorithms).toMatch(state.startsWith('src 192.0.2.1 ') ? ofTheFirst : shown)
          // What was asked, and what was answered.
          expect(state).toContain(` ${2 * COUNT}(packets)`)
        }
      }
      expect(await Promise.all([a.xfrmErrors(), b.xfrmErrors()])).toEqual(errors)
    } finally {
      for (const node of nodes) await node.close({ flush: true })
    }
  })
})
