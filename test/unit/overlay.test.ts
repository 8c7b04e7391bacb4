import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test, vi } from 'vitest'
import {
  deriveSpi,
  InvalidArgument,
  NetlinkError,
  Overlay,
  PartialFailure,
  type Report,
  Unsupported,
  XfrmeshError,
} from '../../lib/index.js'
import { Operation, State } from '../../lib/kernel/records.js'
import { Encap } from '../../lib/overlay/writer.js'
import { ModelNat } from './heard.js'
import { portsOf } from './model.js'
import { fair, LOCAL, ModelPorts, PEERS } from './stories.js'

/** What an Overlay makes of what its ports answer, call by call. */

const [A, B] = PEERS as [string, string]
const value = new Uint8Array(16).fill(7)
const stormy = { ...fair, refuses: () => true }

async function opened(options: Partial<Parameters<typeof Overlay.over>[0]> = {}) {
  const ports = new ModelPorts()
  const overlay = Overlay.over({ local: LOCAL, ...options }, ports)
  await overlay.setKeys([{ tag: 1, value }])
  return { ports, overlay }
}

async function refusedBy(call: Promise<Report>): Promise<Report> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(PartialFailure)
  return (error as PartialFailure).report
}

test('arguments are taken when the call is made', async () => {
  const ports = new ModelPorts()
  const overlay = Overlay.over({ local: LOCAL }, ports)
  const mine = Buffer.from('8e1a64f0c93b5d2716af08cb43e97d52', 'hex')
  const peers = [A]
  const networks = [4096]
  const calls = [overlay.setKeys([{ tag: 1, value: mine }]), overlay.addPeers(peers), overlay.addNetworks(networks)]
  const hex = mine.toString('hex')
  mine.fill(0)
  peers[0] = B
  networks[0] = 5000
  await Promise.all(calls)
  expect([...ports.kernel.states.values()].map(({ key }) => key)).toEqual([hex, hex])
  expect([...overlay.peers].map(({ address }) => address)).toEqual([A])
  expect([...overlay.networks]).toEqual([4096])
})

test('the caller keeps its key', async () => {
  const overlay = Overlay.over({ local: LOCAL }, new ModelPorts())
  const mine = Buffer.from(value)
  await overlay.setKeys([{ tag: 1, value: mine }])
  expect(mine).toEqual(Buffer.from(value))
})

test('a network whose guard was refused is not taken for guarded when it is added again', async () => {
  const { ports, overlay } = await opened()
  const apply = ports.firewall.apply
  ports.firewall.apply = () => Promise.reject(new NetlinkError('firewall', 12, 'no memory'))
  expect(await refusedBy(overlay.addNetworks([4096, 5000]))).toMatchObject({ applied: 0, unchanged: 0 })
  expect(await refusedBy(overlay.addNetworks([4096]))).toMatchObject({ applied: 0, unchanged: 0 })
  ports.firewall.apply = apply
  expect(await overlay.addNetworks([4096])).toMatchObject({ applied: 1, unchanged: 0 })
  // The other was still wanted, and came along.
  expect(await overlay.addNetworks([4096, 5000])).toMatchObject({ applied: 0, unchanged: 2 })
  expect(ports.guarded).toEqual(new Set([4096, 5000]))
})

test('a network that was released without an answer is guarded when it is added again', async () => {
  const { ports, overlay } = await opened()
  await overlay.addNetworks([4096, 5000])
  const apply = ports.firewall.apply
  ports.firewall.apply = ({ remove = [] }) => {
    for (const vni of remove) ports.guarded.delete(vni)
    return Promise.reject(new XfrmeshError('ERR_XFRMESH_ANSWER_LOST', 'nftables transaction: the answer was lost'))
  }
  await expect(overlay.removeNetworks([4096])).rejects.toMatchObject({ code: 'ERR_XFRMESH_ANSWER_LOST' })
  ports.firewall.apply = apply
  expect(ports.guarded).toEqual(new Set([5000]))
  await overlay.addNetworks([4096])
  expect(ports.guarded).toEqual(new Set([4096, 5000]))
})

test('a reading of the guard ends before the next call begins, though that of SAs has failed', async () => {
  const { ports, overlay } = await opened()
  await overlay.addNetworks([4096, 5000])
  const { read } = ports.firewall
  const failing = vi.spyOn(ports.xfrm, 'read').mockRejectedValue(new NetlinkError('SAs', 12, 'out of memory'))
  const late = vi.spyOn(ports.firewall, 'read').mockImplementation(async () => {
    const state = await read()
    await sleep(10)
    return state
  })
  const reconciled = expect(overlay.reconcile()).rejects.toThrow('out of memory')
  const removed = overlay.removeNetworks([4096])
  await reconciled
  for (const spy of [failing, late]) spy.mockRestore()
  await removed
  await sleep(20)
  await overlay.addNetworks([4096])
  expect(ports.guarded).toEqual(new Set([4096, 5000]))
})

test('a network that is being guarded while SAs cannot be read is known to be guarded when the call has failed', async () => {
  const { ports, overlay } = await opened()
  const { apply } = ports.firewall
  const failure = new NetlinkError('SAs', 12, 'out of memory')
  vi.spyOn(ports.xfrm, 'read').mockRejectedValueOnce(failure).mockRejectedValueOnce(failure)
  vi.spyOn(ports.firewall, 'apply').mockImplementationOnce(async (change) => {
    await sleep(10)
    return apply(change)
  })
  const added = expect(overlay.addNetworks([4096])).rejects.toThrow('out of memory')
  const removed = overlay.removeNetworks([4096])
  await added
  expect(ports.guarded).toEqual(new Set([4096]))
  expect(await removed).toMatchObject({ applied: 1 })
  expect(ports.guarded).toEqual(new Set())
  expect((await overlay.status()).degraded).toEqual([])
})

test('a network that was guarded before SAs could not be read for want of rights is still wanted, and can be removed', async () => {
  const { ports, overlay } = await opened()
  const refusal = new Unsupported('CAP_NET_ADMIN', 'SAs: not permitted')
  vi.spyOn(ports.xfrm, 'read').mockRejectedValueOnce(refusal).mockRejectedValueOnce(refusal)
  await expect(overlay.addNetworks([4096])).rejects.toThrow('not permitted')
  expect([ports.guarded, overlay.networks]).toEqual([new Set([4096]), new Set([4096])])
  expect(await overlay.removeNetworks([4096])).toMatchObject({ applied: 1 })
  expect(ports.guarded).toEqual(new Set())
})

test('what refused the guard is told, though SAs could not be read either', async () => {
  const { ports, overlay } = await opened()
  const unreadable = new NetlinkError('SAs', 12, 'out of memory')
  const fail = (error: Error) => {
    vi.spyOn(ports.xfrm, 'read').mockRejectedValueOnce(unreadable).mockRejectedValueOnce(unreadable)
    vi.spyOn(ports.firewall, 'apply').mockRejectedValueOnce(error)
  }
  fail(new NetlinkError('firewall', 28, 'no room'))
  const { failures } = await refusedBy(overlay.addNetworks([4096, 5000]))
  expect(failures.map(({ subject, code }) => [subject, code])).toEqual([
    ['vni 4096', 'ENOSPC'],
    ['vni 5000', 'ENOSPC'],
    ['SAs and policies', 'ERR_XFRMESH_NETLINK'],
  ])
  fail(new Unsupported('CONFIG_NF_TABLES_INET', 'this kernel lacks it'))
  await expect(overlay.addNetworks([4096])).rejects.toBeInstanceOf(Unsupported)
})

test('SAs are known still when the guard cannot be read', async () => {
  const { ports, overlay } = await opened()
  await overlay.addPeers([A])
  const failing = vi.spyOn(ports.firewall, 'read').mockRejectedValue(new NetlinkError('tables', 12, 'out of memory'))
  await expect(overlay.reconcile()).rejects.toThrow('out of memory')
  failing.mockRestore()
  expect((await overlay.status()).degraded).toEqual([])
})

test('what another tool took away comes back with a removal, and what an earlier process left too', async () => {
  const { ports, overlay } = await opened()
  ports.guarded.add(1)
  await overlay.addNetworks([2, 3])
  ports.guarded.clear()
  await overlay.removeNetworks([2])
  expect(ports.guarded).toEqual(new Set([1, 3]))
  ports.guarded.clear()
  await overlay.addNetworks([4])
  expect(ports.guarded).toEqual(new Set([1, 3, 4]))
  await overlay.reconcile()
  expect(ports.guarded).toEqual(new Set([3, 4]))
})

test('what an earlier process left of networks is one removal each', async () => {
  const { ports, overlay } = await opened()
  ports.guarded.add(1)
  expect(await overlay.reconcile({ dryRun: true })).toMatchObject({ added: 0, updated: 0, removed: 1 })
  expect(await overlay.reconcile()).toMatchObject({ added: 0, updated: 0, removed: 1 })
  expect(ports.guarded.size).toBe(0)
})

test('with exclusive, a network is not taken for encrypted while its policies are refused', async () => {
  const { ports, overlay } = await opened({ exclusive: true })
  ports.weather = stormy
  await refusedBy(overlay.addNetworks([4096]))
  await refusedBy(overlay.addNetworks([4096]))
  expect((await overlay.status()).degraded).not.toEqual([])
  ports.weather = fair
  await overlay.addNetworks([4096])
  expect(ports.kernel.policies.size).toBe(3)
  expect((await overlay.status()).degraded).toEqual([])
})

test('a peer is degraded until the kernel has all it should', async () => {
  const { ports, overlay } = await opened()
  const read = ports.xfrm.read
  ports.xfrm.read = () => Promise.reject(new NetlinkError('reading states', 110, 'timed out'))
  await expect(overlay.addPeers([A])).rejects.toThrow(NetlinkError)
  expect(overlay.peers.get(A)?.state).toBe('degraded')
  const status = await overlay.status()
  expect(status.peers).toEqual({ wanted: 1, active: 0, degraded: [A] })
  expect(status.degraded.length).toBeGreaterThan(0)
  ports.xfrm.read = read
  expect(await overlay.addPeers([A])).toMatchObject({ applied: 1, unchanged: 0, operations: 3 })
  expect(overlay.peers.get(A)).toMatchObject({ state: 'active', references: 2 })
})

test('a peer that is refused stands in nobody else’s way', async () => {
  const { ports, overlay } = await opened()
  ports.kernel.states.set(`${LOCAL} ${deriveSpi(A, LOCAL, 1)}`, foreign())
  const report = await refusedBy(overlay.addPeers([A]))
  expect(report.failures).toEqual([
    expect.objectContaining({ subject: A, operation: 'add inbound SA', code: 'EEXIST' }),
  ])
  expect(report).toMatchObject({ requested: 1, applied: 0, unchanged: 0 })
  expect(await overlay.addPeers([B])).toMatchObject({ applied: 1 })
  const { reads } = ports
  expect(await overlay.addNetworks([4096])).toMatchObject({ applied: 1 })
  expect(await overlay.removeNetworks([4096])).toMatchObject({ applied: 1 })
  expect(await overlay.removePeers([B])).toMatchObject({ applied: 1 })
  expect(ports.reads).toBe(reads)
  expect(overlay.peers.get(A)?.state).toBe('degraded')
})

test('what could not be removed is removed by asking again', async () => {
  const { ports, overlay } = await opened()
  await overlay.addPeers([A, B])
  ports.weather = stormy
  expect(await refusedBy(overlay.removePeers([A]))).toMatchObject({ applied: 0, unchanged: 0 })
  expect((await overlay.status()).degraded).not.toEqual([])
  ports.weather = fair
  expect(await overlay.removePeers([A])).toMatchObject({ applied: 1, operations: 2 })
  expect(ports.kernel.states.size).toBe(2)
  expect((await overlay.status()).degraded).toEqual([])
  expect(await overlay.removePeers([A])).toMatchObject({ applied: 0, unchanged: 1, operations: 0 })
})

test('peers of an earlier process are taken over one by one with one look', async () => {
  const { ports, overlay } = await opened()
  const peers = Array.from({ length: 200 }, (_, i) => `10.8.0.${i + 1}`)
  await overlay.addPeers(peers)
  const { operations, reads } = ports
  const next = Overlay.over({ local: LOCAL }, ports)
  await next.setKeys([{ tag: 1, value }])
  for (const peer of peers) expect(await next.addPeers([peer])).toMatchObject({ applied: 1, operations: 0 })
  expect([ports.operations, ports.reads]).toEqual([operations, reads + 2])
  await next.removePeers(peers)
  expect(ports.kernel.states.size).toBe(0)
})

test('what an earlier process left is compared with the keys that are set, whenever it was looked at', async () => {
  const keys = [3, 2, 1].map((tag) => ({ tag, value: new Uint8Array(16).fill(tag) }))
  const ports = new ModelPorts()
  const first = Overlay.over({ local: LOCAL }, ports)
  await first.setKeys(keys)
  await first.addPeers([A, B])
  const { operations } = ports
  // The look comes with the networks, when there are no keys yet.
  const next = Overlay.over({ local: LOCAL }, ports)
  await next.addNetworks([4096])
  await next.setKeys([keys[0]!, keys[2]!, keys[1]!])
  await next.addPeers([A])
  await next.addPeers([B])
  expect(ports.operations).toBe(operations)

  // Under the same tags, but with other values, they are not what should be.
  const other = Overlay.over({ local: LOCAL }, ports)
  await other.addNetworks([4096])
  await other.setKeys(keys.map(({ tag }) => ({ tag, value: new Uint8Array(16).fill(tag + 100) })))
  expect(await other.addPeers([A])).toMatchObject({ applied: 1, operations: 8 })
})

test('an SA that a later slice shares is there before it is', async () => {
  const { ports, overlay } = await opened()
  const commit = ports.xfrm.commit
  ports.xfrm.commit = async (...given) => {
    const outcome = await commit(...given)
    await new Promise((resolve) => setTimeout(resolve, 5))
    return outcome
  }
  // Both have the same SPI towards here under tag 1: one slice apart, so that the last is a slice of its own.
  const [first, last] = collidingPair()
  const between = Array.from({ length: 2047 }, (_, i) => `10.9.${i >> 8}.${i & 0xff}`)
  expect(await overlay.addPeers([first, ...between, last])).toMatchObject({ applied: 2049, failures: [] })
})

test('errors come through the promise, whatever was wrong', async () => {
  const { overlay } = await opened()
  await expect(overlay.close({ flush: 1 as never })).rejects.toThrow(InvalidArgument)
  await expect(overlay.addPeers(undefined as never)).rejects.toThrow(InvalidArgument)
  await expect(overlay.reconcile({ dryRun: 'yes' as never })).rejects.toThrow(InvalidArgument)
  await expect(overlay.addNetworks([1], { sginal: 1 } as never)).rejects.toThrow("did you mean 'signal'?")
  await expect(
    overlay.addPeers([A], {
      onProgress: () => {
        throw new Error('mine')
      },
    }),
  ).rejects.toThrow('mine')
  expect(overlay.peers.get(A)?.state).toBe('active')
  await overlay.close()
  await expect(overlay.addPeers([A])).rejects.toMatchObject({ code: 'ERR_XFRMESH_CLOSED' })
})

test('of a UDP socket that somebody uses otherwise it is said that nothing is received', async () => {
  const ports = new ModelPorts()
  const socket = (ports.nat = new ModelNat())
  const overlay = Overlay.over({ local: LOCAL, nat: { port: 4501 } }, ports)
  expect(await overlay.status()).toMatchObject({ nat: { port: 4501, socket: 'own', intact: true }, degraded: [] })
  expect(overlay.natSocket).toBe(7)
  socket.intact = false
  const { nat, degraded } = await overlay.status()
  expect(nat).toMatchObject({ intact: false })
  expect(degraded).toEqual([expect.stringContaining('the socket of UDP port 4501 is used otherwise') as string])
})

describe('ports of peers', () => {
  const ports = (kernel: ModelPorts['kernel'], peer: string) =>
    kernel.outboundTo(peer).map((state) => portsOf(state)?.[1])

  test('are given, or as our own, and are seen', async () => {
    const { ports: model, overlay } = await opened({ nat: { port: 4501 } })
    await overlay.addPeers([A, { address: B, port: 42000 }])
    expect([ports(model.kernel, A), ports(model.kernel, B)]).toEqual([[4501], [42000]])
    expect(overlay.peers.get(A)?.port).toEqual({ number: 4501, from: 'assumed' })
    expect(overlay.peers.get(B)?.port).toEqual({ number: 42000, from: 'given' })
    // No opinion, the same one, and a word on what was assumed.
    expect(await overlay.addPeers([B, { address: B, port: 42000 }, { address: A, port: 4501 }])).toMatchObject({
      unchanged: 3,
    })
    expect(overlay.peers.get(A)?.port).toEqual({ number: 4501, from: 'given' })
    await overlay.removePeers([A, A, { address: B, port: 7 }, B, B])
    expect(overlay.peers.size).toBe(0)
    await overlay.addPeers([{ address: B, port: 42001 }])
    expect(ports(model.kernel, B)).toEqual([42001])
  })

  test('another one for an address in use is refused, and changes nothing', async () => {
    const { ports: model, overlay } = await opened({ nat: {} })
    await overlay.addPeers([A])
    const { operations } = model
    for (const peers of [
      [B, { address: A, port: 4501 }],
      [
        { address: B, port: 1 },
        { address: B, port: 2 },
      ],
      [B, { address: B, port: 4501 }],
    ]) {
      const refused = overlay.addPeers(peers)
      await expect(refused).rejects.toThrow(InvalidArgument)
      await expect(refused).rejects.toThrow("two nodes behind one address can't be told apart")
    }
    expect(model.operations).toBe(operations)
    expect([...overlay.peers].map(({ address, references }) => [address, references])).toEqual([[A, 1]])
  })

  test.each([
    [{ address: B, port: 0 }, {}, 'peers[0].port must be an integer from 1 to 65535, not 0'],
    [{ address: B, port: 4789 }, {}, "peers[0].port must be another port than VXLAN's (4789)"],
    [{ address: B, port: 4500 }, false, 'peers[0].port must be left out: without nat'],
    [{ adress: B }, {}, "did you mean 'address'?"],
    [{ port: 4500 }, {}, 'peers[0] must be an IPv4 or IPv6 address'],
    [[B], {}, 'peers[0] must be an IPv4 or IPv6 address'],
  ])('%j with nat %j is refused', async (peer, nat, message) => {
    const { overlay } = await opened({ nat: nat as never })
    await expect(overlay.addPeers([peer as never])).rejects.toThrow(message)
  })

  test('are taken when the call is made', async () => {
    const { overlay } = await opened({ nat: {} })
    const peer = { address: A, port: 1234 }
    const adding = overlay.addPeers([peer])
    peer.port = 4321
    await adding
    expect(overlay.peers.get(A)?.port).toEqual({ number: 1234, from: 'given' })
  })

  test('of an earlier process are kept if nobody gave them, and made right if somebody does', async () => {
    const { ports: model, overlay } = await opened({ nat: {} })
    await overlay.addPeers([
      { address: A, port: 31234 },
      { address: B, port: 31235 },
    ])
    const { operations } = model
    const next = Overlay.over({ local: LOCAL, nat: {} }, model)
    await next.setKeys([{ tag: 1, value }])
    expect(await next.addPeers([A])).toMatchObject({ applied: 1, operations: 0 })
    expect(next.peers.get(A)?.port).toEqual({ number: 31234, from: 'learned' })
    expect(await next.addPeers([{ address: B, port: 4500 }])).toMatchObject({ applied: 1, operations: 2 })
    expect(model.operations).toBe(operations + 2)
    expect([ports(model.kernel, A), ports(model.kernel, B)]).toEqual([[31234], [4500]])
    expect((await next.reconcile()).plan).toEqual([])
  })

  test.each(
    [
      [31234, 31235],
      [31234, 4500],
      [4500, 31234],
    ].flatMap((ports) => [false, true].map((last) => [...ports, last] as [number, number, boolean])),
  )(
    'of an earlier process that ended while it turned SAs from %i to %i are those of what encrypts, which turned first; listed first: %s',
    async (from, to, first) => {
      const { ports: model, overlay } = await opened({ nat: {} })
      await overlay.addPeers([{ address: A, port: from }])
      const { record } = model.kernel.outboundTo(A)[0]!
      new DataView(record.buffer, record.byteOffset).setUint16(Encap.destinationPort, to)
      const listed = [...model.kernel.states.entries()]
      model.kernel.states.clear()
      for (const [id, state] of first ? listed.reverse() : listed) model.kernel.states.set(id, state)
      expect(model.kernel.outboundTo(LOCAL).map(portsOf)).toEqual([[from, 4500]])
      const next = Overlay.over({ local: LOCAL, nat: {} }, model)
      await next.setKeys([{ tag: 1, value }])
      await next.addPeers([A])
      expect(next.peers.get(A)).toMatchObject({ state: 'active', port: { number: to } })
      expect(model.kernel.outboundTo(A).map(portsOf)).toEqual([[4500, to]])
      expect(model.kernel.outboundTo(LOCAL).map(portsOf)).toEqual([[to, 4500]])
      expect((await next.reconcile()).plan).toEqual([])
    },
  )

  test('of an earlier process with another port of its own are not kept: theirs was assumed to be that', async () => {
    const { ports: model, overlay } = await opened({ nat: {} })
    await overlay.addPeers([A])
    const next = Overlay.over({ local: LOCAL, nat: { port: 4600 } }, model)
    await next.setKeys([{ tag: 1, value }])
    await next.addPeers([A])
    expect(model.kernel.outboundTo(A).map(portsOf)).toEqual([[4600, 4600]])
  })

  test('of SAs that were in no UDP come with SAs in their place', async () => {
    const { ports: model, overlay } = await opened()
    await overlay.addPeers([A])
    const next = Overlay.over({ local: LOCAL, nat: {} }, model)
    await next.setKeys([{ tag: 1, value }])
    expect(await next.addPeers([A])).toMatchObject({ applied: 1, operations: 4 })
    expect(ports(model.kernel, A)).toEqual([4500])
  })
})

test('the wish cannot be changed from outside', async () => {
  const { overlay } = await opened()
  ;(overlay.networks as Set<number>).add(7)
  expect(overlay.networks.size).toBe(0)
})

/** Somebody else's SA. */
function foreign() {
  const record = new Uint8Array(72)
  record[State.operation] = Operation.addState
  return { record, key: '00', source: '198.51.100.1', destination: LOCAL, spi: 1 }
}

/** Two of the peers, whose SPIs towards here under tag 1 are one. */
function collidingPair(): [string, string] {
  for (const one of PEERS) {
    const other = PEERS.find((peer) => peer !== one && deriveSpi(peer, LOCAL, 1) === deriveSpi(one, LOCAL, 1))
    if (other !== undefined) return [one, other]
  }
  throw new Error('no such pair')
}

test('links elsewhere are what a firewall knows of: without one, the option is refused', async () => {
  const open = Overlay.open({ local: '192.0.2.1', firewall: 'none', linksElsewhere: true })
  await expect(open).rejects.toThrow("linksElsewhere must be false with firewall: 'none'")
})
