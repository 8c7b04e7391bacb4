import { describe, expect, test } from 'vitest'
import { InvalidArgument, InvalidState, Overlay, type PeerInput } from '../../lib/index.js'
import { Policy } from '../../lib/kernel/records.js'
import { Endpoints, type Endpoint } from '../../lib/vxlan/endpoints.js'
import { openedWithLink, references, refused } from './linked.js'
import { key, portsOf } from './model.js'
import { NeighbourKernel } from './neighbour-model.js'
import { fair, LOCAL, ModelPorts } from './stories.js'

/** What an Overlay makes of endpoints, call by call. */

const [A, B] = ['10.0.0.2', '10.0.0.3']
const at = (i: number, vtep: string): Endpoint => ({ ip: `10.1.0.${i}`, mac: `02:00:00:00:00:0${i}`, vtep })
const stormy = { ...fair, refuses: () => true }

const HELD = 'ERR_XFRMESH_HELD_BACK'

test('endpoints have a reference each to the peer at their VTEP, and the last takes its SAs away', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  expect(await overlay.addEndpoints(endpoints, [at(1, A), at(2, A), at(3, B)])).toMatchObject({
    requested: 3,
    applied: 3,
    unchanged: 0,
    failures: [],
    // Two SAs a peer, two entries an endpoint.
    operations: 4 + 6,
  })
  expect(references(overlay)).toEqual(
    new Map([
      [A, 2],
      [B, 1],
    ]),
  )
  await overlay.addPeers([A])
  expect(await overlay.addEndpoints(endpoints, [at(1, A)])).toMatchObject({ applied: 0, unchanged: 1, operations: 0 })
  expect(references(overlay)).toEqual(
    new Map([
      [A, 3],
      [B, 1],
    ]),
  )
  expect(await overlay.removeEndpoints(endpoints, [at(1, A), at(2, B), at(3, B)])).toMatchObject({
    applied: 2,
    unchanged: 1,
    failures: [],
    operations: 4 + 2,
  })
  expect(references(overlay)).toEqual(new Map([[A, 2]]))
  expect(ports.kernel.outboundTo(B)).toEqual([])
  await overlay.removePeers([A])
  await overlay.removeEndpoints(endpoints, [at(2, A)])
  expect(ports.kernel.states.size).toBe(0)
  expect(neighbours.listed).toEqual({ fdb: new Map(), neighbours: new Map() })
})

test('the entry to a peer that was refused is held back, and made by a reconciliation once it can be had', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addEndpoints(endpoints, [at(1, A)])
  ports.weather = stormy
  const report = await refused(overlay.addEndpoints(endpoints, [at(1, A), at(2, B)]))
  expect(report).toMatchObject({ requested: 2, applied: 0, unchanged: 1 })
  expect(report.failures.map(({ subject, operation, code }) => [subject, operation, code])).toEqual([
    [B, 'add inbound SA', 'ENOMEM'],
    [`${at(2, B).mac} to ${B}`, 'add FDB entry', HELD],
  ])
  expect(neighbours.listed.fdb).toEqual(new Map([[at(1, A).mac, A]]))
  expect(overlay.peers.get(B)).toMatchObject({ references: 1, state: 'degraded' })
  expect((await overlay.status()).degraded).toContain('vx0: 1 endpoints lack entries; reconcile() mends it')
  expect((await refused(overlay.addEndpoints(endpoints, [at(2, B)]))).failures.map(({ code }) => code)).toEqual([
    'ENOMEM',
    HELD,
  ])
  expect((await refused(overlay.reconcile())).failures.map(({ code }) => code)).toEqual(['ENOMEM', HELD])
  expect(neighbours.listed.fdb.size).toBe(1)
  ports.weather = fair
  const dry = await overlay.reconcile({ dryRun: true })
  expect(dry.plan.map(({ operation, subject }) => `${operation} ${subject}`)).toContain(
    `add FDB entry vx0: ${at(2, B).mac} to ${B}`,
  )
  expect(await overlay.reconcile()).toMatchObject({ added: 3, updated: 0, removed: 0 })
  expect(neighbours.listed.fdb.get(at(2, B).mac)).toBe(B)
  expect((await overlay.status()).degraded).toEqual([])
})

test('an endpoint that moves takes the new reference before the old one goes', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addEndpoints(endpoints, [at(1, A)])
  expect(await overlay.addEndpoints(endpoints, [at(1, B)])).toMatchObject({ applied: 1, operations: 2 + 1 + 2 })
  expect(neighbours.listed.fdb).toEqual(new Map([[at(1, B).mac, B]]))
  expect(references(overlay)).toEqual(new Map([[B, 1]]))
  expect(ports.kernel.outboundTo(A)).toEqual([])
})

test('one that moves to a peer that is refused is nowhere: not at the old peer, whose SAs go', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addEndpoints(endpoints, [at(1, A), at(2, A)])
  let messages = 0
  ports.weather = { ...fair, refuses: () => messages++ === 0 }
  const report = await refused(overlay.addEndpoints(endpoints, [at(1, B), at(2, B)]))
  expect(report).toMatchObject({ requested: 2, applied: 0, unchanged: 0 })
  expect(neighbours.listed.fdb).toEqual(new Map())
  expect(references(overlay)).toEqual(new Map([[B, 2]]))
  expect(ports.kernel.outboundTo(A)).toEqual([])
  await overlay.reconcile()
  expect(neighbours.listed.fdb).toEqual(new Map([1, 2].map((i) => [at(i, B).mac, B])))
})

test('a reference stays for as long as an entry may lead to the peer', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addEndpoints(endpoints, [at(1, A), at(2, A)])
  neighbours.refuse = () => true
  const report = await refused(overlay.removeEndpoints(endpoints, [at(1, A), at(2, A)]))
  expect(report).toMatchObject({ applied: 0, unchanged: 0 })
  expect(neighbours.listed.fdb.size).toBe(2)
  expect(ports.kernel.outboundTo(A).length).toBe(1)
  expect((await overlay.status()).degraded).toEqual([
    'vx0: entries may lead to where no endpoint is any more; reconcile() mends it',
  ])
  neighbours.refuse = () => false
  await overlay.reconcile()
  expect(neighbours.listed.fdb.size).toBe(0)
  expect(ports.kernel.states.size).toBe(0)
  expect(overlay.peers.size).toBe(0)
})

test('an entry that an earlier call could not remove keeps the reference of the last endpoint', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addEndpoints(endpoints, [at(1, A)])
  // It gets another MAC, and the entry of the old one stays.
  const other = { ...at(1, A), mac: at(2, A).mac }
  let messages = 0
  neighbours.refuse = () => messages++ === 2
  expect(await refused(overlay.addEndpoints(endpoints, [other]))).toMatchObject({ applied: 1 })
  neighbours.refuse = () => false
  expect(await overlay.removeEndpoints(endpoints, [other])).toMatchObject({ applied: 1, failures: [] })
  expect(neighbours.listed.fdb).toEqual(new Map([[at(1, A).mac, A]]))
  expect(ports.kernel.outboundTo(A).length).toBe(1)
  await overlay.reconcile()
  expect(neighbours.listed.fdb.size).toBe(0)
  expect(ports.kernel.states.size).toBe(0)
})

test('what a flush removes, it removes entries first', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addEndpoints(endpoints, [at(1, A), at(2, B)])
  await overlay.close({ flush: true })
  expect(neighbours.listed).toEqual({ fdb: new Map(), neighbours: new Map() })
  expect(ports.kernel.states.size).toBe(0)
})

test('an abort leaves the entries for a reconciliation', async () => {
  const { neighbours, overlay, endpoints } = await openedWithLink()
  const aborter = new AbortController()
  const adding = overlay.addEndpoints(endpoints, [at(1, A)], { signal: aborter.signal })
  const read = endpoints.held.bind(endpoints)
  endpoints.held = (holder, work) => {
    aborter.abort()
    return read(holder, work)
  }
  await expect(adding).rejects.toMatchObject({ code: 'ERR_XFRMESH_ABORTED' })
  expect(neighbours.listed.fdb.size).toBe(0)
  await overlay.reconcile()
  expect(neighbours.listed.fdb.size).toBe(1)
})

test('a call that is wrong anywhere changes nothing', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  const refusal = (link: unknown, list: unknown, on = overlay) =>
    on.addEndpoints(link as Endpoints, list as Endpoint[]).then(
      () => expect.unreachable(),
      (error: unknown) => error as InvalidArgument,
    )
  expect((await refusal({}, [])).message).toMatch(/^link must be an Endpoints of xfrmesh\/vxlan/)
  expect((await refusal(endpoints, 'x')).argument).toBe('endpoints')
  const own = await refusal(endpoints, [at(1, A), at(1, A), at(2, LOCAL)])
  expect(own.message).toBe(
    "endpoints[2].vtep must be another node's address; 10.0.0.1 is this node's own, whose containers are at the link's bridge",
  )
  expect((await refusal(endpoints, [at(1, A), at(2, '2001:db8::1')])).argument).toBe('endpoints[1].vtep')
  expect((await refusal(endpoints, [{ ...at(1, A), mac: 'x' }])).argument).toBe('endpoints[0].mac')
  const progress = overlay.addEndpoints(endpoints, [], { onProgress: () => undefined } as object)
  await expect(progress).rejects.toMatchObject({ argument: 'options.onProgress' })
  await overlay.removeNetworks([4096])
  expect(await refusal(endpoints, [at(1, A)])).toMatchObject({ code: 'ERR_XFRMESH_NO_NETWORK' })
  const elsewhere = Overlay.over({ local: LOCAL, port: 4790 }, new ModelPorts())
  expect(await refusal(endpoints, [at(1, A)], elsewhere)).toMatchObject({ code: 'ERR_XFRMESH_NO_KEYS' })
  await elsewhere.setKeys([key(1)])
  expect((await refusal(endpoints, [at(1, A)], elsewhere)).message).toBe(
    'link must be one at UDP port 4790, which is encrypted; vx0 sends to 4789',
  )
  expect([neighbours.operations, ports.kernel.states.size, endpoints.size, overlay.peers.size]).toEqual([0, 0, 0, 0])
})

test('callers and endpoints have references of their own, and neither takes those of the other', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addEndpoints(endpoints, [at(1, A), at(2, A)])
  expect(await overlay.removePeers([A, A, A])).toMatchObject({ applied: 0, unchanged: 3, operations: 0 })
  expect(references(overlay)).toEqual(new Map([[A, 2]]))
  await overlay.addPeers([A])
  expect(references(overlay)).toEqual(new Map([[A, 3]]))
  await overlay.removeEndpoints(endpoints, [at(1, A), at(2, A)])
  expect(neighbours.listed.fdb.size).toBe(0)
  expect(references(overlay)).toEqual(new Map([[A, 1]]))
  expect(ports.kernel.outboundTo(A).length).toBe(1)
  expect(await overlay.removePeers([A, A])).toMatchObject({ applied: 1, unchanged: 1 })
  expect(ports.kernel.states.size).toBe(0)
})

describe('with NAT', () => {
  const GIVEN = { address: A, port: 41000 }
  const OTHER = { address: A, port: 42000 }

  async function behindNat(peers: readonly PeerInput[]) {
    const { ports, overlay, endpoints } = await openedWithLink({ nat: {} })
    await overlay.addPeers(peers)
    await overlay.addEndpoints(endpoints, [at(1, A), at(2, A)])
    const state = async () => {
      const { state, port, references } = overlay.peers.get(A)!
      expect((await overlay.reconcile({ dryRun: true })).plan).toEqual([])
      return { state, ...port, references, sent: ports.kernel.outboundTo(A).map(portsOf) }
    }
    return { ports, overlay, state }
  }
  const sentTo = (port: number) => ({ state: 'active', number: port, sent: [[4500, port]] })

  test('a port is given to a peer that endpoints are at already, by the SAs that it has', async () => {
    const { overlay, state } = await behindNat([])
    expect(await state()).toEqual({ ...sentTo(4500), from: 'assumed', references: 2 })
    expect(await overlay.addPeers([GIVEN])).toMatchObject({ applied: 1, operations: 2 })
    expect(await state()).toEqual({ ...sentTo(41000), from: 'given', references: 3 })
    await expect(overlay.addPeers([OTHER])).rejects.toThrow("two nodes behind one address can't be told apart")
  })

  test('a port that was given is another after the peer was removed and added, while its endpoints stay', async () => {
    const { overlay, state } = await behindNat([GIVEN])
    await expect(overlay.addPeers([OTHER])).rejects.toThrow("two nodes behind one address can't be told apart")
    await overlay.removePeers([A])
    expect(await state()).toEqual({ ...sentTo(41000), from: 'given', references: 2 })
    await expect(overlay.addPeers([OTHER, GIVEN])).rejects.toThrow("two nodes behind one address can't be told apart")
    expect(await overlay.addPeers([OTHER])).toMatchObject({ applied: 1, operations: 2 })
    expect(await state()).toEqual({ ...sentTo(42000), from: 'given', references: 3 })
  })

  test.each([1, 2])(
    'one that the kernel refuses, at update %i, leaves the peer degraded until it is added again',
    async (nth) => {
      const { ports, overlay, state } = await behindNat([])
      let messages = 0
      ports.weather = { ...fair, refuses: () => ++messages === nth }
      expect((await refused(overlay.addPeers([GIVEN]))).failures).toHaveLength(1)
      expect(overlay.peers.get(A)).toMatchObject({ state: 'degraded', port: { number: 41000, from: 'given' } })
      await overlay.addPeers([A])
      expect(await state()).toEqual({ ...sentTo(41000), from: 'given', references: 4 })
    },
  )

  test('one that an aborted call did not get to give is given by the next', async () => {
    const { overlay, state } = await behindNat([])
    await expect(overlay.addPeers([GIVEN], { signal: AbortSignal.abort() })).rejects.toThrow()
    await overlay.addPeers([GIVEN])
    expect(await state()).toMatchObject(sentTo(41000))
  })
})

test("endpoints are one's: an overlay's, another's, or the caller's own", async () => {
  const { neighbours, overlay, endpoints } = await openedWithLink()
  neighbours.onLead = () => undefined
  await endpoints.add([at(1, A)])
  await expect(overlay.addEndpoints(endpoints, [at(2, A)])).rejects.toBeInstanceOf(InvalidState)
  await endpoints.remove([at(1, A)])
  await overlay.addEndpoints(endpoints, [at(2, A)])
  for (const call of ['add', 'remove', 'replace'] as const) {
    await expect(endpoints[call]([at(1, A)])).rejects.toThrow(/change them by its addEndpoints\(\) and removeEndpoints/)
  }
  for (const dryRun of [false, true]) {
    await expect(endpoints.reconcile({ dryRun })).rejects.toThrow(/mend them by its reconcile\(\)/)
  }
  const other = Overlay.over({ local: LOCAL }, new ModelPorts())
  await other.addNetworks([4096])
  await other.setKeys([key(1)])
  await expect(other.addEndpoints(endpoints, [at(1, A)])).rejects.toThrow(/those of another overlay/)
  // With the last of them they are everybody's again.
  await overlay.removeEndpoints(endpoints, [at(2, A)])
  expect(await endpoints.reconcile()).toMatchObject({ plan: [] })
  await other.addEndpoints(endpoints, [at(1, A)])
  await expect(overlay.addEndpoints(endpoints, [at(2, A)])).rejects.toThrow(/those of another overlay/)
})

test('an overlay that is closed lets go of its endpoints: entries stay, and whoever adds them again has them', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addEndpoints(endpoints, [at(1, A), at(2, B)])
  await overlay.close()
  const { listed } = neighbours
  expect([endpoints.size, listed.fdb.size]).toEqual([0, 2])
  expect(await endpoints.add([at(1, A), at(2, B)])).toMatchObject({ applied: 2 })
  expect(await endpoints.remove([at(1, A)])).toMatchObject({ applied: 1 })
  await endpoints.replace([])
  expect(neighbours.listed.fdb.size).toBe(0)
  const next = Overlay.over({ local: LOCAL }, ports)
  await next.addNetworks([4096])
  await next.setKeys([key(1)])
  await next.addEndpoints(endpoints, [at(1, A)])
  expect(neighbours.listed.fdb).toEqual(new Map([[at(1, A).mac, A]]))
  await next.close({ flush: true })
  expect([neighbours.listed.fdb.size, ports.kernel.states.size, neighbours.isClosed]).toEqual([0, 0, false])
  await endpoints.close()
  expect(neighbours.isClosed).toBe(true)
})

test("endpoints that are closed first are the overlay's until it has none left", async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addEndpoints(endpoints, [at(1, A), at(2, A)])
  await endpoints.close()
  const late = overlay.addEndpoints(endpoints, [at(3, A)])
  await expect(late).rejects.toMatchObject({ code: 'ERR_XFRMESH_CLOSED' })
  await expect(endpoints.reconcile()).rejects.toMatchObject({ code: 'ERR_XFRMESH_CLOSED' })
  neighbours.fdb.clear()
  expect(await overlay.reconcile()).toMatchObject({ added: 2 })
  expect(await overlay.removeEndpoints(endpoints, [at(1, A)])).toMatchObject({ applied: 1 })
  expect(neighbours.isClosed).toBe(false)
  expect(await overlay.removeEndpoints(endpoints, [at(2, A)])).toMatchObject({ applied: 1 })
  expect([neighbours.listed.fdb.size, ports.kernel.states.size, neighbours.isClosed]).toEqual([0, 0, true])
  await expect(overlay.removeEndpoints(endpoints, [])).rejects.toMatchObject({ code: 'ERR_XFRMESH_CLOSED' })
})

test.for([false, true])('endpoints that are closed first end with the overlay; flush: %s', async (flush) => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addEndpoints(endpoints, [at(1, A)])
  await endpoints.close()
  await overlay.close({ flush })
  expect(neighbours.isClosed).toBe(true)
  const left = flush ? 0 : 1
  expect([neighbours.listed.fdb.size, ports.kernel.outboundTo(A).length, ports.guarded.size]).toEqual([
    left,
    left,
    left,
  ])
})

test('endpoints that are closed while a reconciliation waits for them keep it from nothing', async () => {
  const { neighbours, overlay, endpoints } = await openedWithLink()
  const second = new NeighbourKernel()
  const other = new Endpoints({ link: 'vx0' }, second.link())
  await overlay.addEndpoints(endpoints, [at(1, A)])
  await overlay.addEndpoints(other, [at(2, A)])
  neighbours.fdb.clear()
  second.fdb.clear()
  const held = endpoints.held.bind(endpoints)
  endpoints.held = (holder, work) =>
    held(holder, (entries) => {
      void other.close()
      return work(entries)
    })
  expect(await overlay.reconcile()).toMatchObject({ added: 2 })
  expect([neighbours.listed.fdb.size, second.listed.fdb.size]).toEqual([1, 1])
})

test("what is sent by a peer's own policy that is not as it should be is not ready", async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink({ policies: 'per-peer' })
  await overlay.addEndpoints(endpoints, [at(1, A)])
  for (const policy of ports.kernel.policies.values()) policy[Policy.priority]! ^= 1
  ports.weather = stormy
  const { failures } = await refused(overlay.reconcile())
  expect(failures.map(({ code }) => code)).toEqual(['ENOMEM', HELD])
  expect(neighbours.listed.fdb.size).toBe(0)
  ports.weather = fair
  await overlay.reconcile()
  expect(neighbours.listed.fdb.size).toBe(1)
})
