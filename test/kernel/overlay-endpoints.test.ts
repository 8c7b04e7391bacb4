/** Endpoints of an encrypted network: their entries, as `bridge` and `ip` list them, in step with SAs. */
import { open } from 'node:fs/promises'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { Fabric, type Host } from '../../lib/demo/hosts.js'
import { ping } from '../../lib/demo/ping.js'
import { deriveSpi, Overlay, PartialFailure, type Report } from '../../lib/index.js'
import { createVxlan } from '../../lib/vxlan/create.js'
import { Endpoints, type Endpoint } from '../../lib/vxlan/endpoints.js'
import {
  bridgeFdb,
  endpoints,
  expected,
  ip,
  LINK,
  type Listed,
  listed,
  nameOf,
  renamed,
  withVxlan,
} from './endpoints.js'
import { keyOf } from './keys.js'
import { inNetns, withNetns } from './netns.js'
import { few, hardwareAddress, inner, left, nothing, received, Taps, VNI } from './mesh.js'

const LOCAL = '192.0.2.1'
const HELD = 'ERR_XFRMESH_HELD_BACK'
/** As many in the virtual machine too, ten at each peer: there it takes minutes. */
const ALL = 10_000
/** Two for each peer. */
const SAS = ALL / 5

async function refused(call: Promise<unknown>): Promise<Report> {
  const error: unknown = await call.then(
    () => expect.unreachable(),
    (reason: unknown) => reason,
  )
  if (!(error instanceof PartialFailure)) throw error
  return error.report
}

const outcomes = ({ failures }: Report) =>
  failures.map(({ subject, operation, code }) => `${operation} ${subject}: ${code}`)

/** A node with an encrypted network, and the endpoints of its link. */
interface Node {
  readonly host: Host
  readonly overlay: Overlay
  readonly endpoints: Endpoints
}

async function start(host: Host): Promise<Node> {
  const overlay = await Overlay.open({ local: host.address, netns: host.netns })
  await overlay.addNetworks([VNI])
  await overlay.setKeys([keyOf(1)])
  return { host, overlay, endpoints: new Endpoints({ link: `vx${VNI}`, netns: host.container.netns }) }
}

async function stop({ overlay, endpoints }: Node, flush = false): Promise<void> {
  await overlay.close({ flush })
  await endpoints.close()
}

let fabric: Fabric
let taps: Taps
let hosts: [Host, Host, Host]
/** The containers, by host. */
let containers: Endpoint[]

beforeAll(async () => {
  fabric = await Fabric.create({ hosts: 3, prefix: 'ep' })
  hosts = fabric.hosts as [Host, Host, Host]
  taps = await Taps.set(fabric)
  const made = await Promise.all(hosts.map((host) => host.addVxlan({ vni: VNI, peers: [] })))
  containers = await Promise.all(
    hosts.map(async (host, i) => ({
      ip: inner(fabric, host),
      mac: await hardwareAddress(host.container, made[i]!),
      vtep: host.address,
    })),
  )
})
afterAll(() => fabric.close())

/** Nodes on some of the hosts, for one test. */
async function nodes<Hosts extends readonly Host[]>(...on: Hosts): Promise<{ [I in keyof Hosts]: Node }> {
  const all = await Promise.all(on.map(start))
  onTestFinished(async () => {
    await Promise.all(all.map((node) => stop(node, true)))
  })
  return all as { [I in keyof Hosts]: Node }
}

/** Entries that are there to stay, as they would be listed if the link's socket were in its own namespace. */
async function entriesOf({ host }: Node): Promise<Listed> {
  const { fdb, neighbours } = await listed(host.container.netns, `vx${VNI}`)
  return {
    fdb: fdb.map((line) => line.replace(' linkNetNsId 0', '')),
    neighbours: neighbours.filter((line) => line.endsWith('PERMANENT')),
  }
}

/** How many SAs there are. */
const statesIn = async (netns: string) => Number(/\d+/.exec(await inNetns(netns, 'ip', 'xfrm', 'state', 'count'))![0])
const statesOf = ({ host }: Node) => statesIn(host.netns)

test('a ping between containers passes with their endpoints added, and with nothing else; without, nothing leaves', async () => {
  const [one, other] = await nodes(hosts[0], hosts[1])
  const [a, b] = containers as [Endpoint, Endpoint]
  expect(await left(taps, fabric, one.host, other.host)).toEqual(nothing)
  await Promise.all([one.overlay.addEndpoints(one.endpoints, [b]), other.overlay.addEndpoints(other.endpoints, [a])])
  expect(await entriesOf(one)).toEqual(expected([b]))
  const sent = await taps.sentDuring(one.host, async () => {
    expect(await ping(one.host.container, b.ip, { ...few, timeoutMs: 3000 })).toMatchObject({ lost: 0 })
  })
  expect(sent).toEqual({ clear: 0, esp: few.count })
  expect(await one.overlay.removeEndpoints(one.endpoints, [b])).toMatchObject({ applied: 1, failures: [] })
  expect(await entriesOf(one)).toEqual(expected([]))
  expect(await statesOf(one)).toBe(0)
  expect(await left(taps, fabric, one.host, other.host)).toEqual(nothing)
})

test('a link is refused whose socket is in another namespace than the overlay, wherever the link is', async () => {
  const [here, there, third] = hosts
  const far = { ip: '10.0.0.78', mac: '02:42:0a:00:00:4e', vtep: third.address }
  const file = await open(here.netns)
  const overlay = await Overlay.open({ local: here.address, netns: file.fd })
  onTestFinished(() => overlay.close({ flush: true }))
  await file.close()
  await overlay.addNetworks([VNI, VNI + 1])
  await overlay.setKeys([keyOf(1)])
  const moved = `link add moved type vxlan id ${VNI + 1} dstport 4789 local ${there.address}`
  await ip(there.netns, moved, `link set moved netns ${nameOf(here.netns)}`)
  onTestFinished(() => ip(here.netns, 'link delete moved'))
  const link = (name: string, netns: string) => {
    const made = new Endpoints({ link: name, netns })
    onTestFinished(() => made.close())
    return made
  }
  const elsewhere = [link('moved', here.netns), link(`vx${VNI}`, there.container.netns)]
  for (const each of elsewhere) {
    await expect(overlay.addEndpoints(each, [far])).rejects.toMatchObject({
      code: 'ERR_XFRMESH_INVALID_ARGUMENT',
      message: expect.stringContaining("one whose UDP socket is in the overlay's network namespace") as string,
    })
  }
  expect(JSON.stringify(await listed(there.container.netns, `vx${VNI}`))).not.toContain(far.mac)
  expect(await overlay.addEndpoints(link(`vx${VNI}`, here.container.netns), [far])).toMatchObject({ applied: 1 })
})

test('a link whose namespace loses its name goes from an overlay: its entries, its SAs, and then its network', async () => {
  const [host] = hosts
  const overlay = await Overlay.open({ local: host.address, netns: host.netns })
  onTestFinished(() => overlay.close())
  await overlay.addNetworks([VNI + 1])
  await overlay.setKeys([keyOf(1)])
  await withNetns(async (netns) => {
    await createVxlan({ name: LINK, vni: VNI + 1, local: host.address, netns: host.netns, moveTo: netns })
    await using link = new Endpoints({ link: LINK, netns })
    await overlay.addEndpoints(link, endpoints(0, 20))
    await renamed(netns, async (before) => {
      expect(await statesIn(host.netns)).toBe(4)
      expect(await overlay.removeEndpoints(link, endpoints(0, 10))).toMatchObject({ applied: 10, failures: [] })
      const { fdb } = await listed(before)
      expect(fdb.map((line) => line.replace(' linkNetNsId 0', ''))).toEqual(expected(endpoints(10, 20)).fdb)
      expect(await overlay.removeEndpoints(link, endpoints(10, 20))).toMatchObject({ applied: 10, failures: [] })
      expect(await listed(before)).toEqual({ fdb: [], neighbours: [] })
      expect(await statesIn(host.netns)).toBe(0)
      await overlay.removeNetworks([VNI + 1])
      // The next of that name is another's, and has a link of its own.
      await expect(overlay.addEndpoints(link, endpoints(0, 1))).rejects.toThrow(`${LINK}: it is not there`)
    })
  })
  await overlay.close({ flush: true })
})

test('a link that is named otherwise is not gone: while it is there a flush leaves SAs and the guard', async () => {
  const [host] = hosts
  const netns = host.container.netns
  const opened = () => Overlay.open({ local: host.address, netns: host.netns })
  const overlay = await opened()
  await overlay.addNetworks([VNI + 1])
  await overlay.setKeys([keyOf(1)])
  await createVxlan({ name: LINK, vni: VNI + 1, local: host.address, netns: host.netns, moveTo: netns })
  await using link = new Endpoints({ link: LINK, netns })
  await overlay.addEndpoints(link, endpoints(0, 10))
  // Kernels before 6.2 name no link otherwise while it is up.
  await ip(netns, `link set ${LINK} down`, `link set ${LINK} name old`, 'link set old up')
  await createVxlan({ name: LINK, vni: VNI + 2, local: host.address, netns: host.netns, moveTo: netns })
  expect((await refused(overlay.close({ flush: true }))).failures).toMatchObject([
    { subject: LINK, code: 'ERR_XFRMESH_LINK_RENAMED' },
  ])
  expect(await statesIn(host.netns)).toBe(2)
  const guard = 'networks that xfrmesh encrypts'
  expect(await inNetns(host.netns, 'nft', 'list', 'ruleset')).toContain(guard)
  await ip(netns, `link delete ${LINK}`, 'link delete old')
  await (await opened()).close({ flush: true })
  expect(await statesIn(host.netns)).toBe(0)
  expect(await inNetns(host.netns, 'nft', 'list', 'ruleset')).not.toContain(guard)
})

test('a container that moves to a node whose SA is refused is at neither, until a reconciliation has the SA', async () => {
  const [one, third] = await nodes(hosts[0], hosts[2])
  const [a, b] = containers as [Endpoint, Endpoint]
  await one.overlay.addEndpoints(one.endpoints, [b])
  // The container comes to the third host, as it is.
  const device = `vx${VNI}`
  await third.host.container.ip([['address', 'add', `${b.ip}/24`, 'dev', device]])
  await third.host.container.ip([['link', 'set', device, 'address', b.mac]])
  onTestFinished(async () => {
    await third.host.container.ip([['link', 'set', device, 'address', containers[2]!.mac]])
    await third.host.container.ip([['address', 'delete', `${b.ip}/24`, 'dev', device]])
  })
  await third.overlay.addEndpoints(third.endpoints, [a])
  const spi = `0x${deriveSpi(third.host.address, one.host.address, 1).toString(16)}`
  const foreign = `src 198.51.100.9 dst ${one.host.address} proto esp spi ${spi}`
  await ip(
    one.host.netns,
    `xfrm state add ${foreign} reqid 9 mode transport aead rfc4106(gcm(aes)) 0x${'09'.repeat(20)} 64`,
  )
  const moved = { ...b, vtep: third.host.address }
  const failures = [`add inbound SA ${moved.vtep}: EEXIST`, `add FDB entry ${b.mac} to ${moved.vtep}: ${HELD}`]
  const report = await refused(one.overlay.addEndpoints(one.endpoints, [moved]))
  expect(outcomes(report)).toEqual(failures)
  expect(report).toMatchObject({ requested: 1, applied: 0, unchanged: 0 })
  expect(await entriesOf(one)).toEqual({ fdb: [], neighbours: expected([b]).neighbours })
  // The old peer has no reference left, and the new one nothing but the other's SA.
  expect(await statesOf(one)).toBe(1)
  expect(await left(taps, fabric, one.host, third.host)).toEqual(nothing)
  expect(outcomes(await refused(one.overlay.reconcile()))).toEqual([
    failures[0],
    failures[1]!.replace('entry ', `entry ${device}: `),
  ])
  await ip(one.host.netns, `xfrm state delete ${foreign}`)
  expect(await one.overlay.reconcile()).toMatchObject({ added: 3, updated: 0, removed: 0 })
  expect(await entriesOf(one)).toEqual(expected([moved]))
  const before = await received(third.host)
  const sent = await taps.sentDuring(one.host, async () => {
    expect(await ping(one.host.container, b.ip, { ...few, timeoutMs: 3000 })).toMatchObject({ lost: 0 })
  })
  expect(sent).toEqual({ clear: 0, esp: few.count })
  expect(await received(third.host)).toBe(before + few.count)
})

test('a new process takes over what is there, and a reconciliation mends what others did to it', async () => {
  const earlier = await start(hosts[0])
  const [, b, c] = containers as [Endpoint, Endpoint, Endpoint]
  const gone = { ip: '10.0.0.77', mac: '02:42:0a:00:00:4d', vtep: '192.0.2.77' }
  await earlier.overlay.addEndpoints(earlier.endpoints, [b, c, gone])
  await stop(earlier)
  const node = await start(hosts[0])
  onTestFinished(() => stop(node, true))
  const { overlay, endpoints: link } = node
  expect(await overlay.addEndpoints(link, [b, c])).toMatchObject({ applied: 2, failures: [], operations: 4 })
  expect(await entriesOf(node)).toEqual(expected([b, c, gone]))
  expect(await statesOf(node)).toBe(6)
  const { plan, ...counts } = await overlay.reconcile()
  expect(counts).toEqual({ added: 0, updated: 0, removed: 4 })
  expect(
    plan.filter(({ phase }) => phase === 'endpoints').map(({ operation, subject }) => `${operation} ${subject}`),
  ).toEqual([
    `delete neighbour entry vx${VNI}: ${gone.ip} at ${gone.mac}`,
    `delete FDB entry vx${VNI}: ${gone.mac} to ${gone.vtep}`,
  ])
  expect(await entriesOf(node)).toEqual(expected([b, c]))
  await bridgeFdb(
    hosts[0].container.netns,
    `delete ${b.mac} dev vx${VNI}`,
    `replace ${c.mac} dev vx${VNI} dst ${b.vtep}`,
  )
  await ip(hosts[0].netns, 'xfrm state flush')
  expect(await overlay.reconcile()).toMatchObject({ added: 4 + 1, updated: 1, removed: 0 })
  expect(await entriesOf(node)).toEqual(expected([b, c]))
  expect(await statesOf(node)).toBe(4)
})

test('endpoints by the thousand are added, moved and removed, as bridge and ip list them; a link that goes takes nothing with it that stays', () =>
  withVxlan(async (netns) => {
    await using overlay = await Overlay.open({ local: LOCAL, netns, timeoutMs: 60_000 })
    await using link = new Endpoints({ link: LINK, netns, timeoutMs: 60_000 })
    await overlay.addNetworks([VNI])
    await overlay.setKeys([keyOf(1)])
    const half = ALL / 2
    const list = endpoints(0, ALL)
    expect(await overlay.addEndpoints(link, list)).toMatchObject({
      applied: ALL,
      failures: [],
      operations: 2 * ALL + SAS,
    })
    expect(await statesIn(netns)).toBe(SAS)
    // Each to the next VTEP but one: two peers come, and two go.
    const moved = endpoints(0, ALL, 2)
    expect(await overlay.addEndpoints(link, moved)).toMatchObject({ applied: ALL, operations: ALL + 4 + 4 })
    expect(await listed(netns)).toEqual(expected(moved))
    expect(await overlay.addEndpoints(link, moved)).toMatchObject({ unchanged: ALL, operations: 0 })
    expect(await overlay.removeEndpoints(link, moved.slice(half))).toMatchObject({
      applied: half,
      operations: ALL + SAS / 2,
    })
    expect(await listed(netns)).toEqual(expected(moved.slice(0, half)))
    expect(await statesIn(netns)).toBe(SAS / 2)
    await ip(netns, `link delete ${LINK}`)
    const report = await refused(overlay.addEndpoints(link, endpoints(0, 100, 7)))
    expect(new Set(report.failures.map(({ code }) => code))).toEqual(new Set(['ENODEV']))
    expect(await overlay.removeEndpoints(link, [...endpoints(0, 100, 7), ...moved.slice(100, half)])).toMatchObject({
      applied: half,
      failures: [],
    })
    expect(await statesIn(netns)).toBe(0)
    expect(await overlay.reconcile()).toMatchObject({ plan: [] })
  }))
