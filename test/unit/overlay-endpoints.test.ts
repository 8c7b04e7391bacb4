import { expect, test } from 'vitest'
import { InvalidArgument, InvalidState, Overlay, PartialFailure, type Report } from '../../lib/index.js'
import { Endpoints, type Endpoint } from '../../lib/vxlan/endpoints.js'
import { openedWithLink, references } from './linked.js'
import { key } from './model.js'
import { fair, LOCAL, ModelPorts } from './stories.js'

/** What an Overlay makes of endpoints, call by call. */

const [A, B] = ['10.0.0.2', '10.0.0.3']
const at = (i: number, vtep: string): Endpoint => ({ ip: `10.1.0.${i}`, mac: `02:00:00:00:00:0${i}`, vtep })
const stormy = { ...fair, refuses: () => true }

async function refused(call: Promise<unknown>): Promise<Report> {
  const error: unknown = await call.then(
    () => expect.unreachable(),
    (reason: unknown) => reason,
  )
  if (!(error instanceof PartialFailure)) throw error
  return error.report
}

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
  // Not by whoever asks before.
  expect((await refused(endpoints.reconcile())).failures.map(({ code }) => code)).toEqual([HELD])
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
  const other = Overlay.over({ local: LOCAL }, new ModelPorts())
  await other.addNetworks([4096])
  await other.setKeys([key(1)])
  await expect(other.addEndpoints(endpoints, [at(1, A)])).rejects.toThrow(/those of another overlay/)
  expect(await endpoints.reconcile()).toMatchObject({ plan: [] })
  // Once they are closed the overlay goes on without.
  await endpoints.close()
  expect(await overlay.reconcile()).toMatchObject({ plan: [] })
})
