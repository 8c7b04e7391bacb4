import { expect, test } from 'vitest'
import { InvalidState, NetlinkError } from '../../lib/index.js'
import type { Endpoint } from '../../lib/vxlan/endpoints.js'
import { openedWithLink, references, refused } from './linked.js'
import { fair } from './stories.js'

/** Which links an Overlay has endpoints on, and when nothing may lead to peers through them. */

const [A, B] = ['10.0.0.2', '10.0.0.3']
const at = (i: number, vtep: string): Endpoint => ({ ip: `10.1.0.${i}`, mac: `02:00:00:00:00:0${i}`, vtep })
const nothing = { fdb: new Map(), neighbours: new Map() }
const out = () => Promise.reject(new NetlinkError('firewall', 12, 'out of memory'))

test('a link whose socket is in another namespace than the overlay is refused: its packets would leave there', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  neighbours.remake({ linkNamespace: 0 })
  await expect(overlay.addEndpoints(endpoints, [at(1, A)])).rejects.toMatchObject({
    code: 'ERR_XFRMESH_INVALID_ARGUMENT',
    argument: 'link',
    message: expect.stringMatching(
      /^link must be one whose UDP socket is in the overlay's network namespace/,
    ) as string,
  })
  expect([neighbours.operations, ports.kernel.states.size, endpoints.size]).toEqual([0, 0, 0])
  // It was the caller's, and has been looked at before.
  neighbours.onLead = () => undefined
  await endpoints.add([at(1, A)])
  await endpoints.remove([at(1, A)])
  await expect(overlay.addEndpoints(endpoints, [at(1, A)])).rejects.toMatchObject({ argument: 'link' })
})

test.for([
  { vni: 5000 },
  { port: 4790 },
  { family: 10 },
  { linkNamespace: 1 },
  { kind: 'bridge', vni: 0, port: 0 },
  // Of an encrypted network too, but not that of these endpoints.
  { vni: 6000 },
] as const)('a link of the same name that is made as %j is not filled, and keeps what it has', async (made) => {
  const { neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addNetworks([6000])
  // Peers of what the other link has.
  await overlay.addPeers([A, B])
  await overlay.addEndpoints(endpoints, [at(1, A), at(2, B)])
  const another = new Map(neighbours.fdb)
  neighbours.remake(made)
  for (const [mac, record] of another) neighbours.fdb.set(mac, record)
  const before = neighbours.listed
  const { failures } = await refused(overlay.reconcile())
  expect(failures.map(({ subject, operation, code }) => [subject, operation, code])).toEqual([
    ['vx0', 'read endpoints', 'ERR_XFRMESH_INVALID_ARGUMENT'],
  ])
  await expect(overlay.addEndpoints(endpoints, [at(3, A)])).rejects.toMatchObject({
    code: 'ERR_XFRMESH_INVALID_ARGUMENT',
  })
  expect(neighbours.listed).toEqual(before)
  const counts = (count: number) => new Map([A, B].map((peer) => [peer, count]))
  expect(references(overlay)).toEqual(counts(2))
  expect(await overlay.removeEndpoints(endpoints, [at(1, A), at(2, B)])).toMatchObject({ applied: 2, failures: [] })
  expect(neighbours.listed).toEqual(before)
  expect(references(overlay)).toEqual(counts(1))
})

test('a link that is made again as it was is filled again', async () => {
  const { neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addEndpoints(endpoints, [at(1, A)])
  neighbours.remake({})
  expect(await overlay.reconcile()).toMatchObject({ added: 2 })
  expect(neighbours.listed.fdb.size).toBe(1)
})

test('a network that has endpoints stays encrypted until they are removed', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addNetworks([5000])
  await overlay.addEndpoints(endpoints, [at(1, A)])
  const refusal = await overlay.removeNetworks([5000, 4096]).catch((error: unknown) => error)
  expect(refusal).toBeInstanceOf(InvalidState)
  expect(refusal).toMatchObject({
    code: 'ERR_XFRMESH_HAS_ENDPOINTS',
    message: 'removeNetworks: network 4096 has 1 endpoints at vx0: call removeEndpoints() with them first',
  })
  expect([[...ports.guarded].sort(), overlay.networks]).toEqual([[4096, 5000], new Set([4096, 5000])])
  neighbours.refuse = () => true
  await refused(overlay.removeEndpoints(endpoints, [at(1, A)]))
  await expect(overlay.removeNetworks([4096])).rejects.toThrow(
    /may have entries of removed endpoints at vx0: call recon/,
  )
  neighbours.refuse = () => false
  await overlay.reconcile()
  expect(await overlay.removeNetworks([4096])).toMatchObject({ applied: 1 })
  expect([...ports.guarded]).toEqual([5000])
})

test('where all of the port is encrypted no network has to be added, and any may be removed', async () => {
  const { neighbours, overlay, endpoints } = await openedWithLink({ exclusive: true })
  await overlay.removeNetworks([4096])
  await overlay.addEndpoints(endpoints, [at(1, A)])
  await overlay.addNetworks([4096])
  await overlay.removeNetworks([4096])
  expect(neighbours.listed.fdb.size).toBe(1)
  expect(await overlay.reconcile()).toMatchObject({ plan: [] })
})

test('where all of the port is encrypted nothing leads anywhere while policies can not be made', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink({ exclusive: true })
  await overlay.addEndpoints(endpoints, [at(1, A)])
  const policies = new Map(ports.kernel.policies)
  ports.kernel.policies.clear()
  ports.weather = { ...fair, refuses: () => true }
  const { failures } = await refused(overlay.reconcile())
  expect(failures.at(-1)!.code).toBe('ERR_XFRMESH_HELD_BACK')
  expect(neighbours.listed.fdb.size).toBe(0)
  ports.weather = fair
  await overlay.reconcile()
  expect(neighbours.listed.fdb.size).toBe(1)
  expect(ports.kernel.policies).toEqual(policies)
})

test.for(['flushed', 'tampered with'])(
  'while the guard is %s, and can not be mended, nothing leads anywhere',
  async (how) => {
    const { ports, neighbours, overlay, endpoints } = await openedWithLink()
    await overlay.addEndpoints(endpoints, [at(1, A)])
    const lead = neighbours.listed.fdb
    if (how === 'flushed') ports.guarded.clear()
    else ports.tampered = true
    const { apply, restore } = ports.firewall
    ports.firewall.apply = ports.firewall.restore = out
    neighbours.fdb.clear()
    const { failures } = await refused(overlay.reconcile())
    expect(failures.map(({ code }) => code)).toEqual(['ENOMEM', 'ERR_XFRMESH_HELD_BACK'])
    expect(neighbours.listed.fdb.size).toBe(0)
    await expect(overlay.addEndpoints(endpoints, [at(2, A)])).rejects.toMatchObject({
      code: 'ERR_XFRMESH_NO_NETWORK',
      message: 'addEndpoints: network 4096 of vx0 is not encrypted: call reconcile() first',
    })
    Object.assign(ports.firewall, { apply, restore })
    await overlay.reconcile()
    expect(neighbours.listed.fdb).toEqual(lead)
  },
)

test('a flush leaves the guard, and SAs, where entries could not be removed', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addEndpoints(endpoints, [at(1, A), at(2, B)])
  neighbours.refuse = () => true
  const { failures } = await refused(overlay.close({ flush: true }))
  expect(failures.map(({ operation, code }) => `${operation}: ${code}`)).toEqual([
    ...['delete neighbour entry: ENOMEM', 'delete neighbour entry: ENOMEM'],
    ...['delete FDB entry: ENOMEM', 'delete FDB entry: ENOMEM'],
  ])
  expect(neighbours.listed.fdb.size).toBe(2)
  expect([...ports.guarded]).toEqual([4096])
  expect([ports.kernel.outboundTo(A).length, ports.kernel.outboundTo(B).length]).toEqual([1, 1])
})

test('a flush leaves the guard, and SAs, where entries could not be read', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addEndpoints(endpoints, [at(1, A)])
  neighbours.unreadable = new NetlinkError('reading the FDB', 12, 'out of memory')
  const { failures } = await refused(overlay.close({ flush: true }))
  expect(failures).toMatchObject([{ subject: 'vx0', operation: 'read endpoints', code: 'ERR_XFRMESH_NETLINK' }])
  expect([[...ports.guarded], ports.kernel.outboundTo(A).length]).toEqual([[4096], 1])
})

test('a flush removes the guard where the link is gone', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addEndpoints(endpoints, [at(1, A)])
  neighbours.remake({})
  neighbours.view = undefined
  await overlay.close({ flush: true })
  expect(neighbours.listed).toEqual(nothing)
  expect([ports.guarded.size, ports.kernel.states.size]).toEqual([0, 0])
})

test('in a namespace that lost its name endpoints can be removed, and no more made', async () => {
  const { ports, neighbours, overlay, endpoints } = await openedWithLink()
  await overlay.addEndpoints(endpoints, [at(1, A), at(2, B)])
  neighbours.isNameless = true
  const gone = { code: 'ERR_XFRMESH_NAMESPACE_GONE' }
  await expect(overlay.addEndpoints(endpoints, [at(3, B)])).rejects.toMatchObject(gone)
  const { failures } = await refused(overlay.reconcile())
  expect(failures).toMatchObject([{ subject: 'vx0', operation: 'read endpoints', ...gone }])
  neighbours.refuse = () => true
  await refused(overlay.removeEndpoints(endpoints, [at(1, A), at(2, B)]))
  neighbours.refuse = () => false
  await expect(overlay.removeNetworks([4096])).rejects.toThrow(/call reconcile\(\) first/)
  expect(await overlay.reconcile()).toMatchObject({ removed: 4 + 4 })
  expect([neighbours.listed, neighbours.isClosed, ports.kernel.states.size]).toEqual([nothing, true, 0])
  await overlay.removeNetworks([4096])
  expect(ports.guarded.size).toBe(0)
})

test.for([false, true])(
  'a link that is named otherwise keeps the guard, and SAs; whether another bears its name: %s',
  async (another) => {
    const { ports, neighbours, overlay, endpoints } = await openedWithLink()
    await overlay.addEndpoints(endpoints, [at(1, A), at(2, B)])
    const { view } = neighbours
    neighbours.rename(another)
    const renamed = {
      code: 'ERR_XFRMESH_LINK_RENAMED',
      message: expect.stringMatching(/link that was vx0, .* is old now/) as string,
    }
    expect((await refused(overlay.reconcile())).failures).toMatchObject([{ subject: 'vx0', ...renamed }])
    await expect(overlay.removeEndpoints(endpoints, [at(1, A)])).rejects.toMatchObject(renamed)
    await expect(overlay.removeEndpoints(endpoints, [at(2, B)])).rejects.toMatchObject(renamed)
    await expect(overlay.removeNetworks([4096])).rejects.toThrow(/call reconcile\(\) first/)
    expect((await refused(overlay.reconcile())).failures).toMatchObject([{ subject: 'vx0', ...renamed }])
    expect([neighbours.listed.fdb.size, ports.kernel.outboundTo(A).length]).toEqual([2, 1])
    neighbours.view = view
    await overlay.reconcile()
    expect([neighbours.listed, ports.kernel.states.size]).toEqual([nothing, 0])
    expect(await overlay.removeNetworks([4096])).toMatchObject({ applied: 1 })
  },
)

test.for([false, true])(
  'a flush leaves the guard, and SAs, where the link is named otherwise; whether another bears its name: %s',
  async (another) => {
    const { ports, neighbours, overlay, endpoints } = await openedWithLink()
    await overlay.addEndpoints(endpoints, [at(1, A)])
    neighbours.rename(another)
    const { failures } = await refused(overlay.close({ flush: true }))
    expect(failures).toMatchObject([{ subject: 'vx0', code: 'ERR_XFRMESH_LINK_RENAMED' }])
    expect([[...ports.guarded], ports.kernel.outboundTo(A).length]).toEqual([[4096], 1])
  },
)
