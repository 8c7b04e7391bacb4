/** What becomes of a node when its agent is killed, when other tools change what is its own, and when clocks are set. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { PartialFailure } from '../../lib/base/errors.js'
import {
  loadKeysFile,
  NodeEncryption,
  type NodeEncryptionOptions,
  parseKeys,
  type RemoteNode,
} from '../../lib/node/index.js'
import { type Dump, dump, objects } from './dump.js'
import { inNetns, startInNetns, withNetns } from './netns.js'
import { bootIdOf, keysOf, remoteOf } from './node-cluster.js'
import { ipBatch } from './xfrm-oracle.js'

const { addresses, subnets, bootId } = remoteOf(1)
const local = { addresses, subnets: subnets!, bootId }
const OTHERS = [remoteOf(2), remoteOf(3)]
const numbered = (nodes: readonly RemoteNode[]) => nodes.map((node, i) => ({ ...node, id: i + 2 }))

/** A node of two others in a namespace of its own. */
function withNode(
  more: Partial<NodeEncryptionOptions>,
  work: (node: NodeEncryption, netns: string) => Promise<void>,
): Promise<void> {
  return withNetns(async (netns) => {
    await using node = await NodeEncryption.open({ netns, local, keys: keysOf(3), ...more })
    await node.upsert(more.marks === 'cilium' ? numbered(OTHERS) : OTHERS)
    await work(node, netns)
  })
}

/** Of each SA in a namespace, which way it leads and under which key: 'in 3' or 'out 4', in order, each once. */
async function keysIn(netns: string): Promise<string[]> {
  const states = await objects(netns, 'state')
  const found = states.map((state) => {
    const [, source, digit] = /^src (\S+) .*? spi 0x[0-9a-f]*([0-9a-f])\(/s.exec(state)!
    return `${addresses.includes(source!) ? 'out' : 'in'} ${parseInt(digit!, 16)}`
  })
  return [...new Set(found)].sort()
}

describe('an agent that is killed', () => {
  let directory: string
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'xfrmesh-node-'))
    for (const id of [3, 4]) await writeFile(file(id), textOf(id), { mode: 0o600 })
  })
  afterAll(() => rm(directory, { recursive: true }))
  const file = (id: number) => join(directory, `keys-${id}`)
  const textOf = (id: number) => `${id} rfc4106(gcm(aes)) 0x${'0f1e2d3c4b'.repeat(3)}${'a'.repeat(9)}${id} 128\n`

  /** Starts an agent with the key file of an id, and kills it once it has said a word. */
  async function killedAfter(
    word: string,
    netns: string,
    id: number,
    steps: [step: string, path?: string][],
  ): Promise<void> {
    const work = JSON.stringify({ options: { netns, local, keys: file(id) }, nodes: OTHERS, steps })
    const child = spawn(process.execPath, [new URL('node-agent.mjs', import.meta.url).pathname, work], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    onTestFinished(() => void child.kill('SIGKILL'))
    const ended = once(child, 'exit')
    let said = ''
    child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()))
    while (!said.split('\n').includes(word)) {
      if (child.exitCode !== null) throw new Error(`it ended before it said '${word}'; is dist/ built?`)
      await sleep(5)
    }
    child.kill('SIGKILL')
    await ended
  }

  /** The one that comes after it. */
  const next = async (netns: string, id: number) => {
    const node = await NodeEncryption.open({ netns, local, keys: await loadKeysFile(file(id)) })
    onTestFinished(() => node.close())
    return node
  }

  test('between prepare and commit: the next goes on under the old key, until it commits itself', () =>
    withNetns(async (netns) => {
      await killedAfter('prepare', netns, 3, [['prepare', file(4)]])
      const before = await dump(netns)
      expect(await keysIn(netns)).toEqual(['in 3', 'in 4', 'out 3'])
      // With the old file no key goes, and none is taken for another.
      const old = await next(netns, 3)
      await old.upsert(OTHERS)
      const other = parseKeys(textOf(4).replace('0f1e', 'ffff'))
      await expect(old.prepare(other)).rejects.toThrow(/key id 4 is in use by other keys: increment the key id/)
      await old.reclaim({ after: 0 })
      expect(await dump(netns)).toEqual(before)
      await old.close()
      // The next has the new file, which was cut short when it was first read.
      await writeFile(file(5), textOf(4).slice(0, 60))
      await expect(loadKeysFile(file(5))).rejects.toMatchObject({ code: 'ERR_XFRMESH_KEY_FILE' })
      const node = await next(netns, 4)
      expect(await node.upsert(OTHERS)).toMatchObject({ operations: 0 })
      expect(await dump(netns)).toEqual(before)
      expect((await node.status()).keys).toEqual({ current: 3, prepared: 4, ready: false, old: [] })
      await expect(node.commit()).rejects.toThrow(/no key was prepared on all nodes/)
      await node.prepare(await loadKeysFile(file(4)))
      await node.commit()
      expect(await keysIn(netns)).toEqual(['in 3', 'in 4', 'out 4'])
      await node.reclaim({ after: 0 })
      expect(await keysIn(netns)).toEqual(['in 4', 'out 4'])
      await node.close()
    }))

  test('between commit and reclaim: the next waits for what is left of the time, and no key in use goes', () =>
    withNetns(async (netns) => {
      await killedAfter('commit', netns, 3, [['prepare', file(4)], ['commit']])
      expect(await keysIn(netns)).toEqual(['in 3', 'in 4', 'out 4'])
      const node = await next(netns, 4)
      await node.upsert(OTHERS)
      expect((await node.status()).keys).toEqual({ current: 4, prepared: null, ready: false, old: [] })
      const abort = new AbortController()
      const waiting = node.reclaim({ after: 300_000, signal: abort.signal })
      // It is in no call's way while it waits.
      expect(await node.reconcile({ dryRun: true })).toMatchObject({ plan: [] })
      expect(await keysIn(netns)).toEqual(['in 3', 'in 4', 'out 4'])
      abort.abort()
      await expect(waiting).rejects.toMatchObject({ code: 'ERR_XFRMESH_ABORTED' })
      // As the kernel listed them, the oldest of what leads out.
      const states = (await inNetns(netns, 'env', 'TZ=UTC', 'ip', '-s', 'xfrm', 'state')).split(/^(?=src )/m)
      const out = states.filter((state) => addresses.some((address) => state.startsWith(`src ${address} `)))
      const added = out.map((state) => Date.parse(`${/add (\S+ \S+) /.exec(state)![1]!.replace(' ', 'T')}Z`))
      const committed = Math.min(...added)
      await node.reclaim({ after: 6000 })
      expect(Date.now() - committed).toBeGreaterThanOrEqual(6000)
      expect(await keysIn(netns)).toEqual(['in 4', 'out 4'])
      await node.close()
    }))
})

describe('reclaim()', () => {
  afterEach(() => vi.useRealTimers())

  test('waits as long as it says, though the clock is set forward, or back', () =>
    withNode({}, async (node, netns) => {
      await node.prepare(keysOf(4))
      await node.commit()
      const started = performance.now()
      vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 3_600_000 })
      const waiting = node.reclaim({ after: 1500 })
      expect(await keysIn(netns)).toEqual(['in 3', 'in 4', 'out 4'])
      await waiting
      expect(performance.now() - started).toBeGreaterThanOrEqual(1490)
      expect(await keysIn(netns)).toEqual(['in 4', 'out 4'])
      await node.prepare(keysOf(5))
      await node.commit()
      vi.setSystemTime(0)
      await node.reclaim({ after: 100 })
      expect(await keysIn(netns)).toEqual(['in 5', 'out 5'])
    }))
})

test('with marks, after a restart with the old file, reclaim() does not guess which key encrypts', () =>
  withNode({ marks: 'cilium' }, async (node, netns) => {
    await node.prepare(keysOf(4))
    await node.commit()
    await node.close()
    const before = await dump(netns)
    const open = (id: number) => NodeEncryption.open({ netns, local, keys: keysOf(id), marks: 'cilium' })
    const stale = await open(3)
    await stale.upsert(numbered(OTHERS))
    await expect(stale.reclaim({ after: 0 })).rejects.toMatchObject({ code: 'ERR_XFRMESH_INVALID_STATE' })
    expect(await dump(netns)).toEqual(before)
    await stale.close()
    await using right = await open(4)
    await right.upsert(numbered(OTHERS))
    await right.reclaim({ after: 0 })
    expect(await keysIn(netns)).toEqual(['in 4', 'out 4'])
  }))

const key = `aead rfc4106(gcm(aes)) 0x${'07'.repeat(20)} 128`
const tunnel = 'mode tunnel replay-window 1024 flag esn'

/** What another tool did, and the steps that mend it, in order. */
const damages: {
  what: string
  options?: Partial<NodeEncryptionOptions>
  ip?: string[]
  nft?: string
  steps: string[]
}[] = [
  {
    what: 'an SA deleted',
    ip: ['xfrm state delete src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x20d3'],
    steps: ['encrypt: add outbound SA, node2: 192.0.2.1 to 192.0.2.2'],
  },
  {
    what: 'an SA of another key',
    ip: [
      'xfrm state delete src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x20e3',
      `xfrm state add src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x20e3 reqid 1 ${tunnel} ${key}`,
    ],
    steps: ['delete', 'add'].map((verb) => `decrypt: ${verb} inbound SA, node2: 192.0.2.2 to 192.0.2.1`),
  },
  {
    what: 'an SA and policies of ours for nobody',
    ip: [
      `xfrm state add src 192.0.2.1 dst 192.0.2.77 proto esp spi 0x20d3 reqid 1 ${tunnel} ${key}`,
      'xfrm policy add src 10.1.0.0/24 dst 10.77.0.0/24 dir out tmpl src 192.0.2.1 dst 192.0.2.77 proto esp spi 0x20d3 reqid 1 mode tunnel',
      'xfrm policy add src 10.77.0.0/24 dst 10.1.0.0/24 dir in tmpl src 192.0.2.77 dst 192.0.2.1 proto esp reqid 1 mode tunnel',
    ],
    steps: [
      'retire encryption: delete outbound SA, of no node: 192.0.2.1 to 192.0.2.77',
      'retire policies: delete in policy, of no node: 10.77.0.0/24 to 10.1.0.0/24',
      'retire policies: delete out policy, of no node: 10.1.0.0/24 to 10.77.0.0/24',
    ],
  },
  {
    what: 'policies deleted, and one that asks for nothing any more',
    ip: [
      'xfrm policy delete src 10.1.0.0/24 dst 10.2.0.0/24 dir out',
      'xfrm policy delete src fd00:3::/64 dst fd00:1::/64 dir in',
      'xfrm policy update src 10.3.0.0/24 dst 10.1.0.0/24 dir in tmpl src 192.0.2.3 dst 192.0.2.1 proto esp reqid 1 mode tunnel level use',
    ],
    steps: [
      'select: add out policy, node2: 10.1.0.0/24 to 10.2.0.0/24',
      'select: update in policy, node3: 10.3.0.0/24 to 10.1.0.0/24',
      'select: add in policy, node3: fd00:3::/64 to fd00:1::/64',
    ],
  },
  {
    what: 'a range taken out of the guard, and a chain of it emptied',
    nft: 'delete element inet xfrmesh_node remote4 { 10.2.0.0/24 }; flush chain inet xfrmesh_node in-pods',
    steps: ['guard sets: update guard, chain in-pods has 0 rules, not 7'],
  },
  {
    what: 'the guard deleted',
    nft: 'flush ruleset',
    steps: ['guard sets: update guard, there is no table xfrmesh_node'],
  },
  {
    what: 'one policy that drops deleted, and the other made to let all out',
    options: { marks: 'cilium' },
    ip: [
      'xfrm policy delete src 0.0.0.0/0 dst 0.0.0.0/0 dir out mark 0xe00 mask 0xf00',
      'xfrm policy update src ::/0 dst ::/0 dir out mark 0xe00 mask 0xf00',
    ],
    steps: [
      'guard: add out policy, all nodes: 0.0.0.0/0 to 0.0.0.0/0',
      'guard: update out policy, all nodes: ::/0 to ::/0',
    ],
  },
]

/** Without the numbers of packets sent, which go on in an SA that is put back. */
const numberless = ({ states, ...others }: Dump) => ({
  states: states.map((state) => state.replace(/ oseq 0x[0-9a-f]+$/m, '')),
  ...others,
})

describe('reconcile() plans and mends', () => {
  test.each(damages)('$what', ({ options = {}, ip = [], nft = '', steps }) =>
    withNode(options, async (node, netns) => {
      const right = await dump(netns)
      await ipBatch(netns, ip)
      await inNetns(netns, 'nft', nft === '' ? 'list ruleset' : nft)
      const damaged = await dump(netns)
      expect(damaged).not.toEqual(right)
      const { plan } = await node.reconcile({ dryRun: true })
      expect(plan.map(({ phase, operation, subject }) => `${phase}: ${operation}, ${subject}`)).toEqual(steps)
      expect(await dump(netns)).toEqual(damaged)
      await node.reconcile()
      expect(numberless(await dump(netns))).toEqual(numberless(right))
      expect(await node.reconcile()).toEqual({ added: 0, updated: 0, removed: 0, plan: [] })
    }),
  )
})

test("another's tunnels from our address, under our reqid, to our gateway and to others, stay as they are", () =>
  withNetns(async (netns) => {
    const theirs = ['192.0.2.2', '192.0.2.77'].flatMap((gateway, i) => {
      const [out, back] = [`src 192.0.2.1 dst ${gateway}`, `src ${gateway} dst 192.0.2.1`]
      const [here, there] = ['10.1.0.0/24', `172.${16 + i}.0.0/24`]
      const [sa, template] = [`reqid 1 mode tunnel ${key}`, 'proto esp reqid 1 mode tunnel']
      return [
        `xfrm state add ${out} proto esp spi 0xc1a2b3c${i} replay-window 32 ${sa}`,
        `xfrm state add ${back} proto esp spi 0xc4d5e6f${i} replay-window 1024 flag esn ${sa}`,
        // As strongSwan has it, and as one may write it by hand.
        `xfrm policy add src ${here} dst ${there} dir out priority 371327 tmpl ${out} ${template}`,
        `xfrm policy add src ${there} dst ${here} dir in tmpl ${back} ${template}`,
        `xfrm policy add src ${there} dst ${here} dir fwd tmpl ${back} ${template}`,
      ]
    })
    await ipBatch(netns, theirs)
    const before = await dump(netns)
    const still = async () => {
      const { states, policies } = await dump(netns)
      expect(states).toEqual(expect.arrayContaining(before.states))
      expect(policies).toEqual(expect.arrayContaining(before.policies))
    }
    const node = await NodeEncryption.open({ netns, local, keys: keysOf(3) })
    onTestFinished(() => node.close())
    await node.upsert(OTHERS)
    await still()
    expect(await node.reconcile()).toMatchObject({ plan: [] })
    await node.remove(['node2'])
    await still()
    await node.close({ flush: true })
    expect(await dump(netns)).toEqual(before)
  }))

test("a policy of another's in the place of ours is named, and left as it is", () =>
  withNode({ marks: 'cilium' }, async (node, netns) => {
    // Without our reqid it is not ours; the kernel has one policy for a selector and mark.
    await ipBatch(netns, ['xfrm policy update src ::/0 dst ::/0 dir in mark 0xd00 mask 0xf00'])
    const theirs = await objects(netns, 'policy')
    await expect(node.reconcile()).rejects.toMatchObject({
      report: { failures: [{ subject: 'all nodes: ::/0 to ::/0', operation: 'add in policy', code: 'EEXIST' }] },
    })
    expect(await objects(netns, 'policy')).toEqual(theirs)
    await inNetns(netns, 'ip', ...'xfrm policy delete src ::/0 dst ::/0 dir in mark 0xd00 mask 0xf00'.split(' '))
    expect(await node.reconcile()).toMatchObject({ added: 1, updated: 0, removed: 0 })
  }))

test("another's policy in the place of a node's holds up that node alone, in a rotation too", () =>
  withNode({}, async (node, netns) => {
    const place = 'src 10.1.0.0/24 dst 10.2.0.0/24 dir out'
    await ipBatch(netns, [`xfrm policy delete ${place}`, `xfrm policy add ${place} action block`])
    const failures = [{ subject: 'node2: 10.1.0.0/24 to 10.2.0.0/24', operation: 'add out policy', code: 'EEXIST' }]
    for (const step of [() => node.reconcile(), () => node.prepare(keysOf(4)), () => node.commit()]) {
      await expect(step()).rejects.toMatchObject({ report: { failures } })
    }
    expect(await node.status()).toMatchObject({ keys: { current: 4 }, nodes: { degraded: [{ name: 'node2' }] } })
    const out = async () =>
      (await objects(netns, 'policy')).filter(
        (policy) => policy.includes('dir out') && policy.startsWith('src 10.1.0.0/24'),
      )
    expect((await out()).map((policy) => /spi 0x[0-9a-f]*4\b/.test(policy))).toEqual([false, true])
    await inNetns(netns, 'ip', 'xfrm', 'policy', 'delete', ...place.split(' '))
    expect(await node.reconcile()).toMatchObject({ updated: 0 })
    expect(await keysIn(netns)).toEqual(['in 3', 'in 4', 'out 4'])
    expect((await out()).map((policy) => /spi 0x[0-9a-f]*4\b/.test(policy))).toEqual([true, true])
  }))

test('a node that is started anew with other addresses of its own takes over what it had', () =>
  withNode({}, async (node, netns) => {
    await node.close()
    const moved = { netns, local: { ...local, addresses: ['192.0.2.9', '2001:db8::9'] }, keys: keysOf(3) }
    const next = await NodeEncryption.open(moved)
    expect(await next.upsert(OTHERS)).toMatchObject({ applied: 2 })
    const found = await dump(netns)
    expect(await next.reconcile()).toMatchObject({ plan: [] })
    await next.close({ flush: true })
    await using fresh = await NodeEncryption.open(moved)
    await fresh.upsert(OTHERS)
    expect(numberless(found)).toEqual(numberless(await dump(netns)))
  }))

/** Makes an SA to an address, and removes it, until a monitor has told of that: what came before it was told before it. */
async function heardOf(netns: string, address: string, heard: () => string): Promise<void> {
  while (!heard().includes(`dst ${address}`)) {
    const place = `src 198.51.100.9 dst ${address} proto esp spi 0x1000`
    await ipBatch(netns, [`xfrm state add ${place} reqid 9 mode tunnel ${key}`, `xfrm state delete ${place}`])
    await sleep(50)
  }
}

describe('an SA that is there', () => {
  test('stays as it is under the same key; is changed in place where only its output mark differs; else is swapped', () =>
    withNode({ marks: 'cilium' }, async (node, netns) => {
      expect(await node.upsert(numbered(OTHERS))).toMatchObject({ operations: 0, unchanged: 2 })
      await node.close()
      const monitor = startInNetns(netns, 'stdbuf', '-oL', 'ip', '-o', 'xfrm', 'monitor', 'SA')
      let heard = ''
      monitor.child.stdout!.on('data', (chunk: Buffer) => (heard += chunk.toString()))
      await heardOf(netns, '198.51.100.1', () => heard)
      await using zero = await NodeEncryption.open({
        netns,
        local,
        keys: keysOf(3),
        marks: 'cilium',
        zeroOutputMark: true,
      })
      expect(await zero.upsert(numbered(OTHERS))).toMatchObject({ applied: 2, operations: 4 })
      const rebooted = numbered([remoteOf(2, { bootId: bootIdOf(2, 2) })])
      expect(await zero.upsert(rebooted)).toMatchObject({ applied: 1, operations: 8 })
      await heardOf(netns, '198.51.100.2', () => heard)
      const events = (await monitor.stop()).split('\n').filter((line) => line !== '' && !line.includes(' 198.51.100.'))
      const kinds = events.map((line) => /^(Updated|Deleted|)/.exec(line)![1])
      expect(kinds).toEqual([...Array<string>(4).fill('Updated'), ...Array<string[]>(4).fill(['Deleted', '']).flat()])
      // ip shows an output mark of nought by its mask alone, or not at all.
      const states = (await objects(netns, 'state')).filter((state) => /mark 0x[23]0d00\//.test(state))
      expect(states).toHaveLength(4)
      expect(states.filter((state) => state.includes('output-mark 0xd00'))).toEqual([])
    }))

  test('of a general mark, which the kernel takes for ours, is led around, and goes on as it was', () =>
    withNetns(async (netns) => {
      const place = 'src 0.0.0.0 dst 192.0.2.1 proto esp spi 3'
      const general = `xfrm state add ${place} reqid 9 mode tunnel mark 0xd00 mask 0xf00 ${key} replay-window 32 replay-seq 0x64 replay-oseq 0x9`
      await ipBatch(netns, [general])
      const theirs = await objects(netns, 'state')
      await using node = await NodeEncryption.open({ netns, local, keys: keysOf(3), marks: 'cilium' })
      // They are there first: ours could not be added behind it.
      await node.upsert(numbered(OTHERS))
      const both = await objects(netns, 'state')
      expect(both).toHaveLength(8 + 1)
      expect(both).toEqual(expect.arrayContaining(theirs))
      await node.reconcile()
      // A swap, and nodes that go: the kernel, asked for one of ours, may take the other.
      await node.upsert(numbered([remoteOf(2, { bootId: bootIdOf(2, 2) })]))
      expect(await objects(netns, 'state')).toEqual(expect.arrayContaining(theirs))
      await node.remove(['node2', 'node3'])
      expect(await objects(netns, 'state')).toEqual(theirs)
      expect(await node.reconcile()).toMatchObject({ plan: [] })
    }))
})

test('an SA is put back though somebody listened, and the kernel keeps its place for a packet that found none', () =>
  withNode({}, async (node, netns) => {
    await ipBatch(netns, [
      'link add v0 type veth peer name v1',
      'address add 192.0.2.1/24 dev v0',
      'address add 10.1.0.1/24 dev v0',
      'link set v1 up',
      'link set v0 up',
      'route add 10.2.0.0/24 dev v0',
    ])
    const right = await objects(netns, 'state')
    const listener = startInNetns(netns, 'ip', 'xfrm', 'monitor', 'acquire')
    await ipBatch(netns, ['xfrm state delete src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x20d3'])
    const place = 'src 192.0.2.1 dst 192.0.2.2\n\tproto esp spi 0x000020d3'
    const held = async () => (await objects(netns, 'state')).find((state) => state.startsWith(place))
    while ((await held()) === undefined) {
      await inNetns(netns, 'ping', '-c1', '-W1', '-I', '10.1.0.1', '10.2.0.2').catch(() => undefined)
    }
    expect(await held()).not.toContain('aead')
    expect(await node.reconcile()).toMatchObject({ added: 1, removed: 1 })
    await listener.stop()
    const without = (state: string) => state.replace(/ oseq 0x[0-9a-f]+$/m, '')
    expect((await objects(netns, 'state')).map(without)).toEqual(right.map(without))
    expect(await node.reconcile()).toMatchObject({ plan: [] })
  }))

test('what the kernel has no algorithm for is refused in clear words, and the keys before stay', () =>
  withNode({}, async (node, netns) => {
    const before = await dump(netns)
    const long = parseKeys(`4 rfc4106(gcm(aes)) ${'07'.repeat(20)} 256`)
    const failure = await node.prepare(long).then(
      () => undefined,
      (error: unknown) => error as PartialFailure,
    )
    expect(failure).toBeInstanceOf(PartialFailure)
    expect(failure!.report.failures).toHaveLength(4)
    expect(failure!.report.failures[0]!.message).toMatch(
      /an ICV of 256 bits, which no AEAD of the kernel has; 128 is the most/,
    )
    expect(await dump(netns)).toEqual(before)
    await expect(node.commit()).rejects.toThrow(/no key was prepared on all nodes/)
    // The way out of it.
    await node.prepare(keysOf(5))
    await node.commit()
    await node.reclaim({ after: 0 })
    expect(await keysIn(netns)).toEqual(['in 5', 'out 5'])
  }))
