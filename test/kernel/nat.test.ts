/** The overlay over NAT of every kind: it works where it should, loses what the NAT itself drops and no more, and leaks nothing. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { ping, RunningPing } from '../../lib/demo/ping.js'
import { cleartext, Sniffer } from '../../lib/demo/sniffer.js'
import { type Mapping, Overlay, type OverlayOptions, type PeerInput } from '../../lib/index.js'
import { Xfrm } from '../../lib/kernel/xfrm.js'
import { Endpoints } from '../../lib/vxlan/index.js'
import { keyOf } from './keys.js'
import { few, PORT, Taps, VNI } from './mesh.js'
import { hardware, inner, Links, MAPPED, NatPath, type Node, type PortRange, refused } from './nat-path.js'

/** A port of VXLAN's beside the usual: Linux's own default. */
const OTHER_PORT = 8472

let path: NatPath
let taps: Taps
let sniffer: Sniffer
const links = new Links()
beforeAll(async () => {
  path = await NatPath.create()
  taps = await Taps.set(path.fabric)
  // What is to catch packets in the clear does.
  const [one, other] = [path.node(1, 4), path.node(3, 4)]
  await path.oneToOne(1, 4)
  await links.link(one, other, { checksum: false })
  await ping(one.where, inner(other), few)
  expect(await taps.total()).toEqual({ clear: 2 * few.count, esp: 0 })
  sniffer = await Sniffer.start(path.fabric.switch, 'any', [PORT, OTHER_PORT].map(cleartext).join(' or '))
})
afterAll(() => path.fabric.close())

/** What the kernel refused on each node, and what crossed the open in the clear, and as ESP without UDP. */
function counted(nodes: readonly Node[]): Promise<unknown[]> {
  return Promise.all([taps.total(), ...nodes.map(refused)])
}

/** Two nodes that encrypt a network between them, for as long as the work lasts. */
async function between(
  nodes: readonly [Node, Node],
  {
    checksum,
    ports,
    port = PORT,
    ...options
  }: Partial<OverlayOptions> & { checksum: boolean; ports?: readonly [number, number] },
  work: (overlays: readonly [Overlay, Overlay]) => Promise<void>,
): Promise<void> {
  await links.link(...nodes, { checksum, port })
  const overlays: Overlay[] = []
  try {
    for (const { where, local, advertise } of nodes) {
      overlays.push(await Overlay.open({ local, advertise, netns: where.netns, port, ...options }))
    }
    const peers = nodes.map(({ advertise }, i) =>
      ports === undefined ? advertise : { address: advertise, port: ports[i]! },
    )
    await Promise.all(overlays.map((overlay, i) => encrypt(overlay, peers[1 - i]!)))
    await work(overlays as [Overlay, Overlay])
  } finally {
    await Promise.all(overlays.map((overlay) => overlay.close({ flush: true })))
  }
}

/** Has an overlay do what it is there for; returns how many operations its peer took. */
async function encrypt(overlay: Overlay, peer: PeerInput, tags = [2, 1]): Promise<number> {
  await overlay.addNetworks([VNI])
  await overlay.setKeys(tags.map(keyOf))
  return (await overlay.addPeers([peer])).operations
}

/** Pings both ways while the work lasts; returns what was sent and what was lost. */
async function whilePinging(
  [one, other]: readonly [Node, Node],
  work: () => Promise<void>,
): Promise<{ sent: number; lost: number }> {
  const pings: RunningPing[] = []
  // One after the other: where a flow's first packets meet in a NAT from both ends, its conntrack may drop one, and that
  // loss would be none of what is done here.
  for (const [from, to] of [
    [one, other],
    [other, one],
  ] as const) {
    const running = RunningPing.start(from.where, inner(to), { intervalMs: 20 })
    pings.push(running)
    while (running.received === 0) await sleep(20)
  }
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

const isOf = (port: number | undefined, [first, last]: PortRange) => port !== undefined && port >= first && port <= last

type InUdp = Required<Pick<OverlayOptions, 'policies' | 'exclusive' | 'port'>> & { natPort: number }

const inUdp: Record<4 | 6, readonly InUdp[]> = {
  4: [
    { policies: 'shared', exclusive: false, port: OTHER_PORT, natPort: 14500 },
    // The SPIs towards the open begin with a byte that has the bit of a VXLAN header's flags.
    { policies: 'shared', exclusive: true, port: PORT, natPort: 4500 },
  ],
  6: [{ policies: 'per-peer', exclusive: true, port: OTHER_PORT, natPort: 14500 }],
}

describe.each([4, 6] as const)('over IPv%i', (family) => {
  const behindAndOpen = (): [Node, Node] => [path.node(1, family), path.node(3, family)]

  test('with one address turned into another, and no UDP checksums, all arrives, during a rotation too', async () => {
    const nodes = behindAndOpen()
    await path.oneToOne(1, family)
    const form = family === 4 ? {} : ({ policies: 'per-peer', port: OTHER_PORT } as const)
    await between(nodes, { checksum: false, ...form }, async (overlays) => {
      const before = await Promise.all(nodes.map(refused))
      expect((await whilePinging(nodes, () => rotate(overlays))).lost).toBe(0)
      expect(await Promise.all(nodes.map(refused))).toEqual(before)
    })
  })

  test.each(inUdp[family])(
    'in UDP, port $natPort, and VXLAN at $port, all arrives with checksums, during a rotation too, with $policies policies, exclusive: $exclusive',
    async ({ natPort, ...options }) => {
      const nodes = behindAndOpen()
      const [near, far] = nodes
      await path.oneToOne(1, family)
      await between(nodes, { checksum: true, nat: { port: natPort }, ...options }, async (overlays) => {
        const before = await counted(nodes)
        expect((await whilePinging(nodes, () => rotate(overlays))).lost).toBe(0)
        expect(await counted(nodes)).toEqual(before)
        for (const overlay of overlays) {
          expect(await overlay.reconcile({ dryRun: true })).toMatchObject({ plan: [] })
          expect((await overlay.status()).degraded).toEqual([])
        }
        if (!options.exclusive) return
        // What the SPD enforces alone, it does for what comes in UDP too.
        await Promise.all(nodes.map(({ where }) => where.run('nft', ['flush', 'ruleset'])))
        expect(await ping(near.where, inner(far), few)).toMatchObject({ lost: 0 })
        await near.where.run('ip', ['xfrm', 'state', 'flush'])
        expect(await ping(near.where, inner(far), few)).toMatchObject({ lost: few.count })
      })
    },
  )

  test('with checksums and bare ESP, which keeps them from the NAT, all is lost: the far end counts each as wrong, during a rotation too', async () => {
    const nodes = behindAndOpen()
    const [near, far] = nodes
    await path.oneToOne(1, family)
    await between(nodes, { checksum: true }, async (overlays) => {
      const [left, before] = await Promise.all([taps.total(), refused(far)])
      const pinging = RunningPing.start(near.where, inner(far), { intervalMs: 20 })
      while ((await refused(far)).checksums === before.checksums) await sleep(20)
      await rotate(overlays)
      const { sent, lost } = await pinging.stop({ timeoutMs: few.timeoutMs })
      expect(lost).toBe(sent)
      const { clear, esp } = await taps.total()
      expect(clear).toBe(left.clear)
      expect(esp - left.esp).toBeGreaterThanOrEqual(sent)
      expect(await refused(far)).toEqual({ ...before, checksums: before.checksums + esp - left.esp })
    })
  })

  test('a port that the NAT chooses is learned, and followed when it chooses another: what the NAT drops meanwhile is lost, and no more, during a rotation too', async () => {
    const nodes = behindAndOpen()
    const [near, far] = nodes
    await path.mapPort(1, family, MAPPED[0])
    const told: Mapping[] = []
    const nat = { onMapping: (mapping: Mapping) => told.push(mapping) }
    await between(nodes, { checksum: true, nat }, async (overlays) => {
      const [, overlay] = overlays
      const port = () => overlay.peers.get(near.advertise)?.port
      const before = await path.unmapped(1)
      const { lost } = await whilePinging(nodes, async () => {
        expect(port()?.from).toBe('learned')
        expect(isOf(port()?.number, MAPPED[0])).toBe(true)
        await path.mapPort(1, family, MAPPED[1])
        while (!isOf(port()?.number, MAPPED[1])) await sleep(20)
        await rotate(overlays)
      })
      const dropped = (await path.unmapped(1)) - before
      console.log(`${lost} lost, ${dropped} dropped by the NAT`)
      expect(dropped).toBeGreaterThan(0)
      expect(lost).toBeLessThanOrEqual(dropped)
      expect(await ping(far.where, inner(near), few)).toMatchObject({ lost: 0 })
      const followed = { peer: near.advertise, address: near.advertise, followed: true }
      expect(
        told.map(({ port, ...mapping }) => ({ ...mapping, among: MAPPED.findIndex((range) => isOf(port, range)) })),
      ).toEqual(MAPPED.map((_, among) => ({ ...followed, among })))
      const learned = { number: told[1]!.port, from: 'learned' }
      expect(port()).toEqual(learned)
      expect(await overlay.reconcile({ dryRun: true })).toMatchObject({ plan: [] })
      expect((await overlay.status()).nat).toMatchObject({ ports: { assumed: 0, given: 0, learned: 1 }, strays: [] })

      // Another process takes over the port with the SAs: the path works before a packet has come to it.
      await overlay.close()
      await using next = await Overlay.open({ local: far.local, netns: far.where.netns, nat: {} })
      expect(await encrypt(next, near.advertise, [3, 2])).toBe(0)
      expect(next.peers.get(near.advertise)?.port).toEqual(learned)
      expect(await ping(far.where, inner(near), few)).toMatchObject({ lost: 0 })
      await next.close({ flush: true })
    })
  })

  test('endpoints bring a peer, whose SAs are turned to the port that is given to it while they are there', async () => {
    const nodes = behindAndOpen()
    const [near, far] = nodes
    await path.keepPort(1, family, 41000)
    await links.link(...nodes, { checksum: true })
    // Without endpoints there are no neighbours.
    onTestFinished(() => links.unlink())
    const open = async ({ local, advertise, where }: Node, there: Node) => {
      const overlay = await Overlay.open({ local, advertise, netns: where.netns, nat: {} })
      const endpoints = new Endpoints({ link: 'vx', netns: where.netns })
      onTestFinished(async () => {
        await overlay.close({ flush: true })
        await endpoints.close()
      })
      await overlay.addNetworks([VNI])
      await overlay.setKeys([keyOf(1)])
      const endpoint = { ip: inner(there), mac: hardware(there), vtep: there.advertise }
      expect(await overlay.addEndpoints(endpoints, [endpoint])).toMatchObject({ applied: 1, failures: [] })
      return overlay
    }
    const [overlay] = await Promise.all([open(far, near), open(near, far)])
    const before = await counted(nodes)
    expect(await ping(far.where, inner(near), few)).toMatchObject({ lost: few.count })
    const given = { address: near.advertise, port: 41000 }
    expect(await overlay.addPeers([given])).toMatchObject({ applied: 1, failures: [], operations: 2 })
    expect(await ping(far.where, inner(near), few)).toMatchObject({ lost: 0 })
    const port = { number: 41000, from: 'given' }
    expect(overlay.peers.get(near.advertise)).toMatchObject({ references: 2, state: 'active', port })
    expect(await overlay.reconcile({ dryRun: true })).toMatchObject({ plan: [] })
    expect(await counted(nodes)).toEqual(before)
  })

  test('both behind NAT, each at a port that its router keeps for it, reach each other, during a rotation too', async () => {
    const nodes = [path.node(1, family), path.node(2, family)] as const
    const ports = [41000, 42000] as const
    await Promise.all([path.keepPort(1, family, ports[0]), path.keepPort(2, family, ports[1])])
    await between(nodes, { checksum: true, nat: {}, ports, policies: 'per-peer' }, async (overlays) => {
      const before = await counted(nodes)
      expect((await whilePinging(nodes, () => rotate(overlays))).lost).toBe(0)
      expect(await counted(nodes)).toEqual(before)
      for (const [i, overlay] of overlays.entries()) {
        const { advertise } = nodes[1 - i]!
        expect(overlay.peers.get(advertise)?.port).toEqual({ number: ports[1 - i], from: 'given' })
      }
    })
  })
})

test('an address that the NAT changes is told of and not followed: the peer is reached again once it is removed, and added by the new one', async () => {
  const nodes = [path.node(1, 4), path.node(3, 4)] as const
  const [near, far] = nodes
  const known = near.advertise
  await path.mapPort(1, 4, MAPPED[0])
  const told: Mapping[] = []
  const nat = { onMapping: (mapping: Mapping) => told.push(mapping) }
  await between(nodes, { checksum: true, nat }, async ([before, overlay]) => {
    while ((await ping(near.where, inner(far), few)).lost > 0);
    expect(told).toMatchObject([{ peer: known, address: known, followed: true }])
    const moved = await path.mapElsewhere(1, '192.0.2.19', MAPPED[1])
    expect(await ping(near.where, inner(far), few)).toMatchObject({ lost: few.count })
    while (told.length < 2) await sleep(20)
    const { port, ...stray } = told[1]!
    expect(stray).toEqual({ peer: known, address: moved.advertise, followed: false })
    expect(isOf(port, MAPPED[1])).toBe(true)
    expect((await overlay.status()).nat!.strays).toEqual([{ peer: known, address: moved.advertise, port }])

    // SPIs derive from the address: the node itself is to know that it has another.
    await before.close({ flush: true })
    await links.link(moved, far, { checksum: true })
    const { local, advertise } = moved
    await using next = await Overlay.open({ local, advertise, netns: moved.where.netns, nat: {} })
    await encrypt(next, far.advertise)
    await overlay.removePeers([known])
    await overlay.addPeers([advertise])
    while ((await ping(near.where, inner(far), few)).lost > 0);
    expect(await ping(far.where, inner(near), few)).toMatchObject({ lost: 0 })
    expect((await overlay.status()).nat!.strays).toEqual([])
    await next.close({ flush: true })
  })
})

/** Catches an ESP packet in UDP that leaves, and for each line of input sends it again, from that port. */
const REPLAYER = `
import socket, sys
source, destination = sys.argv[1:3]
link = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
link.bind(('eth0', 3))
print('listening', flush=True)
while True:
    packet = link.recv(65536)
    udp = packet[4 * (packet[0] & 15):]
    if packet[9] == 17 and packet[16:20] == socket.inet_aton(destination) and udp[2:4] == bytes([4500 >> 8, 4500 & 255]) and len(udp) > 40:
        break
print('caught', flush=True)
senders = []
for line in sys.stdin:
    senders.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    senders[-1].bind((source, int(line)))
    senders[-1].sendto(udp[8:], (destination, 4500))
`

test.each([0, 32])(
  "a packet that is sent again from another port of the peer's address, with a replayWindow of %i: without one ESP goes there until the peer's next packet, with one never",
  async (replayWindow) => {
    const nodes = [path.node(1, 4), path.node(3, 4)] as [Node, Node]
    const [near, far] = nodes
    await path.oneToOne(1, 4)
    const told: Mapping[] = []
    const nat = { onMapping: (mapping: Mapping) => told.push(mapping) }
    await between(nodes, { checksum: true, nat, replayWindow }, async ([, overlay]) => {
      const port = () => overlay.peers.get(near.advertise)?.port?.number
      const seen = async () => (await refused(far)).xfrm['XfrmInStateSeqError'] ?? 0
      const before = await seen()
      // The router has the peer's address.
      const replayer = path.routers[0].start('python3', ['-c', REPLAYER, near.advertise, far.advertise])
      onTestFinished(() => void replayer.child.kill('SIGKILL'))
      const says = createInterface(replayer.child.stdout!)[Symbol.asyncIterator]()
      expect(await says.next()).toMatchObject({ value: 'listening' })
      expect(await ping(near.where, inner(far), few)).toMatchObject({ lost: 0 })
      expect(await says.next()).toMatchObject({ value: 'caught' })
      replayer.child.stdin!.write('40999\n')
      if (replayWindow > 0) {
        while ((await seen()) === before) await sleep(20)
        expect(await ping(near.where, inner(far), few)).toMatchObject({ lost: 0 })
        expect(told).toEqual([])
      } else {
        while (port() !== 40999) await sleep(20)
        expect(await ping(far.where, inner(near), { ...few, count: 1 })).toMatchObject({ lost: 1 })
        await ping(near.where, inner(far), few)
        while (port() !== 4500) await sleep(20)
        expect(told.map(({ port, followed }) => [port, followed])).toEqual([
          [40999, true],
          [4500, true],
        ])
      }
      expect(port()).toBe(4500)
      expect(await ping(far.where, inner(near), few)).toMatchObject({ lost: 0 })
    })
  },
)

test('of packets that come from elsewhere all the time the kernel tells once in five seconds, and of another port at once', async () => {
  const nodes = [path.node(1, 4), path.node(3, 4)] as [Node, Node]
  const [near, far] = nodes
  await path.mapPort(1, 4, MAPPED[0])
  // A port that was given is not followed.
  await between(nodes, { checksum: true, nat: {}, ports: [41000, 4500] }, async () => {
    const xfrm = await Xfrm.open({ netns: far.where.netns })
    const monitor = xfrm.monitor(['mapping'])
    await monitor.ready
    const ports: number[] = []
    const listening = (async () => {
      for await (const event of monitor) if (event.type === 'mapping') ports.push(event.newSourcePort)
    })()
    const among = (range: PortRange) => ports.filter((port) => isOf(port, range)).length
    const started = performance.now()
    const pinging = RunningPing.start(near.where, inner(far), { intervalMs: 20 })
    while (among(MAPPED[0]) === 0) await sleep(20)
    await sleep(1000)
    await path.mapPort(1, 4, MAPPED[1])
    while (among(MAPPED[1]) === 0) await sleep(20)
    await sleep(1000)
    const { sent } = await pinging.stop({ timeoutMs: few.timeoutMs })
    const most = 1 + Math.floor((performance.now() - started) / 5000)
    await xfrm.close()
    await listening.catch(() => undefined)
    console.log(`${ports.length} messages of ${sent} packets`)
    expect(sent).toBeGreaterThan(8 * most)
    for (const range of MAPPED) expect(among(range)).toBeLessThanOrEqual(most)
  })
})

test('a NAT that forgets within 2 s loses what comes after a pause, unless keepalives remind it each second', async () => {
  const nodes = [path.node(1, 4), path.node(3, 4)] as const
  const [near, far] = nodes
  await path.mapPort(1, 4, MAPPED[0])
  const timeouts = ['net.netfilter.nf_conntrack_udp_timeout=2', 'net.netfilter.nf_conntrack_udp_timeout_stream=2']
  await path.routers[0].run('sysctl', ['-qw', ...timeouts])
  const afterPause = async () => {
    // The way back is by the port that was learned.
    while ((await ping(near.where, inner(far), few)).lost > 0);
    await sleep(3000)
    return ping(far.where, inner(near), few)
  }
  await between(nodes, { checksum: true, nat: { keepalive: 0 } }, async ([forgotten]) => {
    expect(await afterPause()).toMatchObject({ lost: few.count })
    expect((await forgotten.status()).nat!.keepalives).toEqual({ seconds: 0, sent: 0, failed: 0 })
    await forgotten.close()
    const { local, advertise } = near
    await using kept = await Overlay.open({ local, advertise, netns: near.where.netns, nat: { keepalive: 1 } })
    expect(await encrypt(kept, far.advertise)).toBe(0)
    expect(await afterPause()).toMatchObject({ lost: 0 })
    const { sent, ...others } = (await kept.status()).nat!.keepalives
    expect(sent).toBeGreaterThan(0)
    expect(others).toEqual({ seconds: 1, failed: 0 })
    await kept.close({ flush: true })
  })
})

/** A process that holds a node's overlay, by a socket of somebody else's, until it is killed. */
async function hold(
  { where, local }: Node,
  peer: Node,
  socket: number,
): Promise<{ said: string; kill: () => Promise<void> }> {
  const keys = [keyOf(2), keyOf(1)].map(({ tag, value }) => ({ tag, value: [...value] }))
  const options = { local, netns: where.netns, nat: { socket: 3 } }
  const wish = { options, networks: [VNI], keys, peers: [peer.advertise] }
  const script = fileURLToPath(new URL('nat-holder.mjs', import.meta.url))
  const child = spawn(process.execPath, [script, JSON.stringify(wish)], {
    stdio: ['ignore', 'pipe', 'inherit', socket],
  })
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

test('with its holder killed the path never ends while the socket is in other hands; with nobody holding that it does, until another takes over, by the same SAs', async () => {
  const nodes = [path.node(1, 4), path.node(3, 4)] as const
  const [near, far] = nodes
  const here = { local: far.local, netns: far.where.netns }
  // Somebody who is not killed has the socket: here the overlay of another mark.
  await using keeper = await Overlay.open({ ...here, mark: 5, firewall: 'none', nat: {} })
  const holding = hold(far, near, keeper.natSocket!)
  await path.oneToOne(1, 4)
  await links.link(...nodes, { checksum: true })
  const { local, advertise, where } = near
  await using overlay = await Overlay.open({ local, advertise, netns: where.netns, nat: {} })
  await encrypt(overlay, far.advertise)
  const reached = () => ping(near.where, inner(far), few)

  const holder = await holding
  expect(holder.said).toContain('after 3 operations')
  expect(await reached()).toMatchObject({ lost: 0 })
  const before = await made(far)
  expect(before).toHaveLength(3)
  const { lost, sent } = await whilePinging(nodes, async () => {
    await holder.kill()
    await sleep(1000)
  })
  expect(sent).toBeGreaterThan(0)
  expect(lost).toBe(0)
  expect(await made(far)).toEqual(before)

  await keeper.close()
  expect(await reached()).toMatchObject({ lost: few.count })
  await using next = await Overlay.open({ ...here, nat: {} })
  expect(await encrypt(next, near.advertise)).toBe(0)
  expect(await reached()).toMatchObject({ lost: 0 })
  expect(await made(far)).toEqual(before)
  await Promise.all([next, overlay].map((each) => each.close({ flush: true })))
})

test('nothing of all that crossed the open in the clear', async () => {
  expect(await sniffer.stop()).toEqual({ packets: 0, dropped: 0 })
  expect((await taps.total()).clear).toBe(2 * few.count)
})
