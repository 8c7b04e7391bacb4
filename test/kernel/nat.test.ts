/** The overlay over NAT of every kind: it works where it should, loses what the NAT itself drops and no more, and leaks nothing. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { ping, RunningPing } from '../../lib/demo/ping.js'
import { cleartext, Sniffer } from '../../lib/demo/sniffer.js'
import { type Mapping, Overlay, type OverlayOptions } from '../../lib/index.js'
import { keyOf } from './keys.js'
import { few, PORT, Taps, VNI } from './mesh.js'
import { checksumErrors, inner, link, MAPPED, NatPath, type Node, unlink } from './nat-path.js'

let path: NatPath
let taps: Taps
let sniffer: Sniffer
beforeAll(async () => {
  path = await NatPath.create()
  taps = await Taps.set(path.fabric)
  // What is to catch packets in the clear does.
  const [one, other] = [path.node(1, 4), path.node(3, 4)]
  await path.oneToOne(1, 4)
  await link(one, other, { checksum: false })
  await ping(one.where, inner(other), few)
  expect(await clear()).toBe(2 * few.count)
  await unlink(one, other)
  sniffer = await Sniffer.start(path.fabric.switch, 'any', cleartext(PORT))
})
afterAll(() => path.fabric.close())

/** Packets of the encrypted network that crossed the open in the clear, since the beginning. */
async function clear(): Promise<number> {
  const sent = await Promise.all(path.fabric.hosts.map((host) => taps.sent(host)))
  return sent.reduce((sum, each) => sum + each.clear, 0)
}

/** Packets of ESP without UDP. */
async function bareEsp(): Promise<number> {
  const sent = await Promise.all(path.fabric.hosts.map((host) => taps.sent(host)))
  return sent.reduce((sum, each) => sum + each.esp, 0)
}

/** What the kernel refused on each node, since the node was made. */
function xfrmErrors(nodes: readonly Node[]): Promise<unknown[]> {
  return Promise.all(nodes.map(({ where }) => where.xfrmErrors()))
}

/** Two nodes that encrypt a network between them, for as long as the work lasts. */
async function between(
  nodes: readonly [Node, Node],
  { checksum, ports, ...options }: Partial<OverlayOptions> & { checksum: boolean; ports?: readonly [number, number] },
  work: (overlays: readonly [Overlay, Overlay]) => Promise<void>,
): Promise<void> {
  await link(...nodes, { checksum })
  const overlays: Overlay[] = []
  try {
    for (const { where, local, advertise } of nodes) {
      overlays.push(await Overlay.open({ local, advertise, netns: where.netns, ...options }))
    }
    for (const [i, overlay] of overlays.entries()) {
      await overlay.addNetworks([VNI])
      await overlay.setKeys([keyOf(2), keyOf(1)])
      const address = nodes[1 - i]!.advertise
      const port = ports?.[1 - i]
      await overlay.addPeers([port === undefined ? address : { address, port }])
    }
    await work(overlays as [Overlay, Overlay])
  } finally {
    await unlink(...nodes)
    await Promise.all(overlays.map((overlay) => overlay.close({ flush: true })))
  }
}

/** Pings both ways while the work lasts; returns what was sent and what was lost. */
async function whilePinging(
  [one, other]: readonly [Node, Node],
  work: () => Promise<void>,
): Promise<{ sent: number; lost: number }> {
  const pings = [
    RunningPing.start(one.where, inner(other), { intervalMs: 20 }),
    RunningPing.start(other.where, inner(one), { intervalMs: 20 }),
  ]
  while (pings.some(({ received }) => received === 0)) await sleep(20)
  await work()
  const [there, back] = await Promise.all(pings.map((running) => running.stop()))
  return { sent: there!.sent + back!.sent, lost: there!.lost + back!.lost }
}

/** Takes a new key into use and an old one out, each step on both nodes before the next. */
async function rotate(overlays: readonly [Overlay, Overlay]): Promise<void> {
  for (const change of [{ add: keyOf(3) }, { primary: 3 }, { prune: 1 }]) {
    for (const overlay of overlays) await overlay.updateKeys(change)
  }
}

describe.each([4, 6] as const)('one address turned into another, over IPv%i', (family) => {
  const nodes = (): [Node, Node] => [path.node(1, family), path.node(3, family)]

  test('with UDP checksums all is lost, as bare ESP keeps them from the NAT: the far end counts them as wrong', async () => {
    await path.oneToOne(1, family)
    await between(nodes(), { checksum: true }, async () => {
      const [near, far] = nodes()
      const before = await checksumErrors(far)
      expect(await ping(near.where, inner(far), few)).toMatchObject({ sent: few.count, lost: few.count })
      expect((await checksumErrors(far)) - before).toBe(few.count)
    })
  })

  test('without them all arrives, during a rotation too', async () => {
    await path.oneToOne(1, family)
    await between(nodes(), { checksum: false, policies: family === 4 ? 'shared' : 'per-peer' }, async (overlays) => {
      const errors = await xfrmErrors(nodes())
      expect((await whilePinging(nodes(), () => rotate(overlays))).lost).toBe(0)
      expect(await xfrmErrors(nodes())).toEqual(errors)
    })
  })
})

test.each([
  { family: 4, policies: 'shared', exclusive: false, port: 4500 },
  // The SPIs towards the open begin with a byte that has the bit of a VXLAN header's flags.
  { family: 4, policies: 'shared', exclusive: true, port: 4500 },
  { family: 6, policies: 'per-peer', exclusive: true, port: 14500 },
] as const)(
  'in UDP, port $port, all arrives with checksums, during a rotation too, over IPv$family with $policies policies, exclusive: $exclusive',
  async ({ family, port, ...options }) => {
    const nodes = [path.node(1, family), path.node(3, family)] as const
    const [near, far] = nodes
    await path.oneToOne(1, family)
    await between(nodes, { checksum: true, nat: { port }, ...options }, async (overlays) => {
      const counted = async () => [await checksumErrors(far), await bareEsp(), await xfrmErrors(nodes)]
      const before = await counted()
      expect((await whilePinging(nodes, () => rotate(overlays))).lost).toBe(0)
      expect(await counted()).toEqual(before)
      for (const overlay of overlays) {
        expect(await overlay.reconcile({ dryRun: true })).toMatchObject({ plan: [] })
        expect((await overlay.status()).degraded).toEqual([])
      }
      if (!options.exclusive) return
      // What the SPD enforces alone, it does for what comes in UDP too.
      for (const { where } of nodes) await where.run('nft', ['flush', 'ruleset'])
      expect(await ping(near.where, inner(far), few)).toMatchObject({ lost: 0 })
      await near.where.run('ip', ['xfrm', 'state', 'flush'])
      expect(await ping(near.where, inner(far), few)).toMatchObject({ lost: few.count })
    })
  },
)

test('both behind NAT, each at a port that its router keeps for it, reach each other, during a rotation too', async () => {
  const nodes = [path.node(1, 4), path.node(2, 4)] as const
  const ports = [41000, 42000] as const
  for (const [i, router] of ([1, 2] as const).entries()) await path.keepPort(router, 4500, ports[i]!)
  await between(nodes, { checksum: true, nat: {}, ports, policies: 'per-peer' }, async (overlays) => {
    const errors = await xfrmErrors(nodes)
    expect((await whilePinging(nodes, () => rotate(overlays))).lost).toBe(0)
    expect(await xfrmErrors(nodes)).toEqual(errors)
    for (const [i, overlay] of overlays.entries()) {
      const { advertise } = nodes[1 - i]!
      expect(overlay.peers.get(advertise)?.port).toEqual({ number: ports[1 - i], from: 'given' })
    }
  })
})

test('a port that the NAT chooses is learned, and followed when it chooses another: what the NAT drops meanwhile is lost, and no more', async () => {
  const nodes = [path.node(1, 4), path.node(3, 4)] as const
  const [near, far] = nodes
  await path.mapPort(1, MAPPED[0])
  const told: Mapping[] = []
  const nat = { onMapping: (mapping: Mapping) => told.push(mapping) }
  await between(nodes, { checksum: true, nat }, async (overlays) => {
    const [, overlay] = overlays
    const port = () => overlay.peers.get(near.advertise)?.port
    const before = await path.unmapped(1)
    const { lost } = await whilePinging(nodes, async () => {
      expect(port()).toEqual({ number: MAPPED[0], from: 'learned' })
      await path.mapPort(1, MAPPED[1])
      while (port()?.number !== MAPPED[1]) await sleep(20)
      await rotate(overlays)
    })
    const dropped = (await path.unmapped(1)) - before
    console.log(`${lost} lost, ${dropped} dropped by the NAT`)
    expect(dropped).toBeGreaterThan(0)
    expect(lost).toBeLessThanOrEqual(dropped)
    expect(await ping(far.where, inner(near), few)).toMatchObject({ lost: 0 })
    const followed = { peer: near.advertise, address: near.advertise, followed: true }
    expect(told).toEqual(MAPPED.map((number) => ({ ...followed, port: number })))
    expect(await overlay.reconcile({ dryRun: true })).toMatchObject({ plan: [] })
    expect((await overlay.status()).nat).toMatchObject({ ports: { assumed: 0, given: 0, learned: 1 }, strays: [] })

    // Another process takes over the port with the SAs: the path works before a packet has come to it.
    await overlay.close()
    await using next = await Overlay.open({ local: far.local, netns: far.where.netns, nat: {} })
    await next.addNetworks([VNI])
    await next.setKeys([keyOf(3), keyOf(2)])
    expect(await next.addPeers([near.advertise])).toMatchObject({ operations: 0 })
    expect(next.peers.get(near.advertise)?.port).toEqual({ number: MAPPED[1], from: 'learned' })
    expect(await ping(far.where, inner(near), few)).toMatchObject({ lost: 0 })
    await next.close({ flush: true })
  })
})

test.each([
  [1, 0],
  [0, few.count],
])(
  'with a keepalive every %i s, a NAT that forgets within 2 s loses %i of what comes after a pause',
  async (keepalive, lost) => {
    const nodes = [path.node(1, 4), path.node(3, 4)] as const
    const [near, far] = nodes
    await path.mapPort(1, MAPPED[0])
    const timeouts = ['net.netfilter.nf_conntrack_udp_timeout=2', 'net.netfilter.nf_conntrack_udp_timeout_stream=2']
    await path.routers[0].run('sysctl', ['-qw', ...timeouts])
    await between(nodes, { checksum: true, nat: { keepalive } }, async ([overlay, there]) => {
      await ping(near.where, inner(far), few)
      await vi.waitFor(() => expect(there.peers.get(near.advertise)?.port?.from).toBe('learned'), { timeout: 60_000 })
      await sleep(6000)
      expect(await ping(far.where, inner(near), few)).toMatchObject({ lost })
      const { nat } = await overlay.status()
      expect(nat!.keepalives).toMatchObject({ seconds: keepalive, failed: 0 })
      expect(nat!.keepalives.sent > 0).toBe(keepalive > 0)
    })
  },
)

/** A process that holds a node's overlay until it is killed; by whose socket, if not its own. */
async function hold(
  { where, local }: Node,
  peer: Node,
  socket?: number,
): Promise<{ said: string; kill: () => Promise<void> }> {
  const nat = socket === undefined ? {} : { socket: 3 }
  const keys = [keyOf(2), keyOf(1)].map(({ tag, value }) => ({ tag, value: [...value] }))
  const wish = { options: { local, netns: where.netns, nat }, networks: [VNI], keys, peers: [peer.advertise] }
  const script = fileURLToPath(new URL('nat-holder.mjs', import.meta.url))
  const stdio = ['ignore', 'pipe', 'inherit', ...(socket === undefined ? [] : [socket])] as const
  const child = spawn(process.execPath, [script, JSON.stringify(wish)], { stdio: [...stdio] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const ended = once(child, 'exit')
  const [said] = (await Promise.race([once(child.stdout!, 'data'), ended])) as [unknown]
  const kill = async () => {
    child.kill('SIGKILL')
    await ended
  }
  return { said: String(said), kill }
}

/** When each SA of a node was made. */
async function made({ where }: Node): Promise<string[]> {
  const text = await where.run('ip', ['-s', 'xfrm', 'state'])
  return Array.from(
    text.matchAll(/ spi (0x[0-9a-f]{8})[^]*? add (\S+ \S+) use/g),
    ([, spi, time]) => `${spi} ${time}`,
  ).sort()
}

test('with its holder killed the path comes back as another takes over, by the same SAs; with the socket in other hands it never ends', async () => {
  const nodes = [path.node(1, 4), path.node(3, 4)] as const
  const [near, far] = nodes
  await path.oneToOne(1, 4)
  await link(...nodes, { checksum: true })
  await using overlay = await Overlay.open({
    local: near.local,
    advertise: near.advertise,
    netns: near.where.netns,
    nat: {},
  })
  await overlay.addNetworks([VNI])
  await overlay.setKeys([keyOf(2), keyOf(1)])
  await overlay.addPeers([far.advertise])
  const reached = () => ping(near.where, inner(far), few)

  const first = await hold(far, near)
  expect(first.said).toContain('after 3 operations')
  expect(await reached()).toMatchObject({ lost: 0 })
  const before = await made(far)
  expect(before).toHaveLength(3)
  await first.kill()
  expect(await reached()).toMatchObject({ lost: few.count })
  const second = await hold(far, near)
  expect(second.said).toContain('after 0 operations')
  expect(await reached()).toMatchObject({ lost: 0 })
  expect(await made(far)).toEqual(before)
  await second.kill()

  // Somebody who is not killed has the socket: here the overlay of another mark.
  await using keeper = await Overlay.open({
    local: far.local,
    netns: far.where.netns,
    mark: 5,
    firewall: 'none',
    nat: {},
  })
  const third = await hold(far, near, keeper.natSocket)
  const { lost, sent } = await whilePinging(nodes, async () => {
    await third.kill()
    await sleep(1000)
  })
  expect(sent).toBeGreaterThan(0)
  expect(lost).toBe(0)
  expect(await made(far)).toEqual(before)

  await using last = await Overlay.open({
    local: far.local,
    netns: far.where.netns,
    nat: { socket: keeper.natSocket! },
  })
  await unlink(...nodes)
  await last.close({ flush: true })
  await overlay.close({ flush: true })
})

test('nothing of all that crossed the open in the clear', async () => {
  expect(await sniffer.stop()).toEqual({ packets: 0, dropped: 0 })
  expect(await clear()).toBe(2 * few.count)
})
