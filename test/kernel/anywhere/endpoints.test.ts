import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { InvalidArgument, InvalidState, PartialFailure, XfrmeshError, type Report } from '../../../lib/base/errors.js'
import { EndpointLink } from '../../../lib/vxlan/endpoint-link.js'
import { Endpoints, type Endpoint } from '../../../lib/vxlan/endpoints.js'
import { Entries } from '../../../lib/vxlan/entries.js'
import {
  addLink,
  bridgeFdb,
  endpoint,
  endpoints,
  expected,
  ip,
  LINK,
  listed,
  MANY,
  renamed,
  withVxlan,
} from '../endpoints.js'
import { inNetns, withNetns } from '../netns.js'

const nothing = { fdb: [], neighbours: [] }

async function rejection(promise: Promise<unknown>): Promise<XfrmeshError> {
  return promise.then(
    () => expect.unreachable(),
    (error: unknown) => error as XfrmeshError,
  )
}

/** Of a call that could not do all of it. */
async function partial(promise: Promise<unknown>): Promise<Report> {
  const error: unknown = await rejection(promise)
  if (!(error instanceof PartialFailure)) throw error
  return error.report
}

test('endpoints by the thousand are added, moved and removed, as bridge and ip list them', () =>
  withVxlan(async (netns) => {
    await using all = new Endpoints({ link: LINK, netns })
    const list = endpoints(0, MANY)
    expect(await all.add(list)).toMatchObject({
      requested: MANY,
      applied: MANY,
      unchanged: 0,
      failures: [],
      operations: 2 * MANY,
    })
    expect(all.size).toBe(MANY)
    expect(await listed(netns)).toEqual(expected(list))
    const moved = endpoints(0, MANY / 2, 3)
    expect(await all.add([...moved, ...list.slice(MANY / 2)])).toMatchObject({
      applied: MANY / 2,
      unchanged: MANY / 2,
      operations: MANY / 2,
    })
    const now = [...moved, ...list.slice(MANY / 2)]
    expect(await listed(netns)).toEqual(expected(now))
    // Where half of them were is no news of where they are.
    expect(await all.remove(list)).toMatchObject({ applied: MANY / 2, unchanged: MANY / 2, operations: MANY })
    expect(await listed(netns)).toEqual(expected(moved))
    expect(await all.reconcile({ dryRun: true })).toEqual({ added: 0, updated: 0, removed: 0, plan: [] })
    expect(await all.remove(moved)).toMatchObject({ applied: MANY / 2, operations: MANY })
    expect(await listed(netns)).toEqual(nothing)
    expect(all.size).toBe(0)
  }))

test('what is there as it is given takes no system call: not even one that would find the link gone', () =>
  withVxlan(async (netns) => {
    await using all = new Endpoints({ link: LINK, netns })
    const list = endpoints(0, 100)
    await all.add(list)
    await ip(netns, `link delete ${LINK}`)
    expect(await all.add(list)).toMatchObject({ requested: 100, applied: 0, unchanged: 100, operations: 0 })
  }))

test('inner addresses are of either family, and VTEPs of that of the link', () =>
  withVxlan(async (netns) => {
    await using all = new Endpoints({ link: LINK, netns })
    const mac = '02:42:0a:00:00:01'
    await all.add([
      { ip: '10.0.0.1', mac, vtep: '2001:db8::2' },
      { ip: '2001:DB8:1::0001', mac, vtep: '2001:db8::2' },
      { ip: 'fe80::1', mac, vtep: '2001:db8::2' },
      { ip: '::ffff:10.0.0.2', mac: '02:42:0A:00:00:02', vtep: '2001:db8::3' },
    ])
    expect(await listed(netns)).toEqual({
      fdb: [
        `mac ${mac} dst 2001:db8::2 flags self state permanent`,
        'mac 02:42:0a:00:00:02 dst 2001:db8::3 flags self state permanent',
      ],
      neighbours: [
        `dst 10.0.0.1 lladdr ${mac} state PERMANENT`,
        'dst 10.0.0.2 lladdr 02:42:0a:00:00:02 state PERMANENT',
        `dst 2001:db8:1::1 lladdr ${mac} state PERMANENT`,
        `dst fe80::1 lladdr ${mac} state PERMANENT`,
      ],
    })
    expect(all.get('2001:db8:1:0::1')).toEqual({ ip: '2001:db8:1::1', mac, vtep: '2001:db8::2' })
    const error = await rejection(all.add([{ ip: '10.0.0.3', mac, vtep: '192.0.2.2' }]))
    expect(error.message).toBe(
      'endpoints[0].vtep must be an IPv6 address: a VXLAN link carries one family, not "192.0.2.2"',
    )
  }, 'local 2001:db8::1'))

test('a MAC is led to where it came last, counted by its endpoints, and back when they go', () =>
  withVxlan(async (netns) => {
    await using all = new Endpoints({ link: LINK, netns })
    const mac = '02:42:0a:00:00:01'
    const at = (ip: string, vtep: string): Endpoint => ({ ip: `10.0.0.${ip}`, mac, vtep: `192.0.2.${vtep}` })
    const led = async () => (await listed(netns)).fdb.map((line) => / dst (\S+)/.exec(line)![1])
    await all.add([at('1', '1'), at('2', '1')])
    expect(await led()).toEqual(['192.0.2.1'])
    await all.add([at('3', '2')])
    expect(await led()).toEqual(['192.0.2.2'])
    // One more where it was does not lead it back.
    expect(await all.add([at('4', '1')])).toMatchObject({ operations: 1 })
    expect(await led()).toEqual(['192.0.2.2'])
    await all.remove([at('3', '2')])
    expect(await led()).toEqual(['192.0.2.1'])
    await all.remove([at('1', '1'), at('2', '1')])
    expect(await led()).toEqual(['192.0.2.1'])
    await all.add([at('5', '3')])
    await all.remove([at('5', '3'), at('4', '1')])
    expect(await listed(netns)).toEqual(nothing)
  }))

test("what others did to the link's entries is mended, and what is not ours is left alone", () =>
  withVxlan(async (netns) => {
    await addOther(netns)
    await using all = new Endpoints({ link: LINK, netns })
    const list = endpoints(0, 40)
    await all.add(list)
    const [one, two, three, four, five, six] = list as [Endpoint, Endpoint, Endpoint, Endpoint, Endpoint, Endpoint]
    const foreign = [
      `append 00:00:00:00:00:00 dev ${LINK} dst 192.0.2.77`,
      `append 00:00:00:00:00:00 dev ${LINK} dst 192.0.2.78`,
      `append 01:00:5e:00:00:05 dev ${LINK} dst 192.0.2.78`,
      `replace 02:00:00:00:00:01 dev ${LINK} dst 192.0.2.7 dynamic`,
      `replace 02:00:00:00:00:02 dev ${LINK} dst 192.0.2.7 static`,
      `replace 02:00:00:00:00:03 dev ${LINK} dst 192.0.2.7 extern_learn`,
      'replace 02:00:00:00:00:04 dev vx1 dst 192.0.2.7',
    ]
    await bridgeFdb(netns, ...foreign)
    await ip(
      netns,
      `neigh replace 10.9.0.1 lladdr 02:00:00:00:00:01 dev ${LINK} nud stale`,
      `neigh replace 10.9.0.2 lladdr 02:00:00:00:00:01 dev ${LINK} nud permanent extern_learn`,
      'neigh replace 10.9.0.3 lladdr 02:00:00:00:00:01 dev vx1 nud permanent',
    )
    const before = await listed(netns)
    const other = await listed(netns, 'vx1')
    expect(before.fdb.length).toBe(40 + 6)
    expect(await all.reconcile()).toEqual({ added: 0, updated: 0, removed: 0, plan: [] })
    await bridgeFdb(
      netns,
      `delete ${one.mac} dev ${LINK}`,
      `replace ${two.mac} dev ${LINK} dst 192.0.2.99`,
      `replace ${three.mac} dev ${LINK} dst ${three.vtep} port 999`,
      `replace ${four.mac} dev ${LINK} dst ${four.vtep} dynamic`,
      `replace 02:00:00:00:00:99 dev ${LINK} dst 192.0.2.99`,
      `delete ${five.mac} dev ${LINK}`,
    )
    await ip(
      netns,
      'nexthop add id 1 via 192.0.2.7 fdb',
      'nexthop add id 2 group 1 fdb',
      `neigh delete ${one.ip} dev ${LINK}`,
      `neigh replace ${two.ip} lladdr 02:00:00:00:00:98 dev ${LINK} nud permanent`,
      `neigh replace ${six.ip} lladdr ${six.mac} dev ${LINK} nud stale`,
      `neigh replace 10.9.0.99 lladdr 02:00:00:00:00:99 dev ${LINK} nud permanent`,
      `neigh replace 2001:db8::99 lladdr 02:00:00:00:00:99 dev ${LINK} nud permanent`,
    )
    await bridgeFdb(netns, `replace ${five.mac} dev ${LINK} nhid 2`)
    const spoilt = await listed(netns)
    const dry = await all.reconcile({ dryRun: true })
    expect(await listed(netns)).toEqual(spoilt)
    expect(dry).toMatchObject({ added: 2, updated: 6, removed: 4 })
    expect(dry.plan.map(({ operation, subject }) => `${operation} ${subject}`)).toEqual(
      expect.arrayContaining([
        `add FDB entry ${one.mac} to ${one.vtep}`,
        `update FDB entry ${two.mac} to ${two.vtep}`,
        `delete FDB entry ${five.mac} to a next hop`,
        `update neighbour entry ${six.ip} at ${six.mac}`,
        'delete neighbour entry 2001:db8::99 at 02:00:00:00:00:99',
        'delete FDB entry 02:00:00:00:00:99 to 192.0.2.99',
      ]) as string[],
    )
    expect(await all.reconcile()).toEqual(dry)
    expect(await listed(netns)).toEqual(before)
    expect(await listed(netns, 'vx1')).toEqual(other)
    // Where another tool led a MAC elsewhere, its removal leaves that.
    await bridgeFdb(netns, `replace ${one.mac} dev ${LINK} dst 192.0.2.99`)
    await all.remove([one])
    expect((await listed(netns)).fdb.filter((line) => line.includes(one.mac))).toHaveLength(1)
  }))

async function addOther(netns: string): Promise<void> {
  await ip(netns, 'link add vx1 type vxlan id 4097 dstport 4790 local 192.0.2.1', 'link set vx1 up')
}

test('a list that replaces is all that there is, whatever an earlier process left', () =>
  withVxlan(async (netns) => {
    const list = endpoints(0, 200)
    {
      await using earlier = new Endpoints({ link: LINK, netns })
      await earlier.add(list)
    }
    expect(await listed(netns)).toEqual(expected(list))
    await using all = new Endpoints({ link: LINK, netns })
    const other = [...endpoints(100, 200), ...endpoints(200, 250, 5)]
    // 100 are right already; 50 come, and 100 go.
    expect(await all.replace(other)).toMatchObject({
      requested: 150,
      applied: 50,
      unchanged: 100,
      operations: 2 * (50 + 100),
    })
    expect(await listed(netns)).toEqual(expected(other))
    expect(await all.replace(other)).toMatchObject({ applied: 0, unchanged: 150, operations: 0 })
    expect(await all.replace([])).toMatchObject({ requested: 0, operations: 300 })
    expect(await listed(netns)).toEqual(nothing)
  }))

test('a process killed in the middle is followed by one that takes over what is there', () =>
  withVxlan(async (netns) => {
    const script = fileURLToPath(new URL('endpoints-adder.mjs', import.meta.url))
    const child = spawn(process.execPath, [script, netns, LINK, String(MANY)], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(child.stdout, 'data')
    await new Promise((resolve) => setTimeout(resolve, 5))
    child.kill('SIGKILL')
    await once(child, 'close')
    await using all = new Endpoints({ link: LINK, netns })
    const list = endpoints(0, MANY, 1)
    await all.add(list)
    expect(await listed(netns)).toEqual(expected(list))
    expect(await all.reconcile()).toMatchObject({ plan: [] })
  }))

test('a link that vanishes half way is reported, with nothing left behind, and filled again once it is there', () =>
  withVxlan(async (netns) => {
    await using all = new Endpoints({ link: LINK, netns })
    const few = endpoints(0, 100)
    await all.add(few)
    const gone = ip(netns, `link delete ${LINK}`)
    // For as long as it takes, each time to another place.
    let lost: Report | undefined
    for (let moves = 1; lost === undefined; moves++) {
      const calls = await Promise.allSettled([all.add(endpoints(0, MANY, moves))])
      const [call] = calls
      if (call.status === 'rejected') lost = (call.reason as PartialFailure).report
    }
    await gone
    expect(lost.applied).toBeLessThan(MANY)
    expect(lost.failures.length).toBeGreaterThan(0)
    expect(new Set(lost.failures.map(({ code }) => code))).toEqual(new Set(['ENODEV']))
    const wanted = all.size
    expect(wanted).toBe(MANY)
    const error = await rejection(all.add(endpoints(MANY, MANY + 1)))
    expect(error).toBeInstanceOf(InvalidArgument)
    expect(error.message).toBe(
      `options.link must be the name of a VXLAN link in that namespace; ${LINK}: it is not there`,
    )
    expect(all.size).toBe(MANY)
    // What is removed meanwhile is gone.
    const some = endpoints(0, MANY)
      .slice(0, 10)
      .map(({ ip }) => all.get(ip)!)
    expect(await all.remove(some)).toMatchObject({ applied: 10, failures: [] })
    await addLink(netns)
    expect(await listed(netns)).toEqual(nothing)
    expect(await all.reconcile()).toMatchObject({ added: 2 * (MANY - 10), updated: 0, removed: 0 })
    const now = endpoints(10, MANY).map(({ ip }) => all.get(ip)!)
    expect(await listed(netns)).toEqual(expected(now))
  }))

test('a link set down loses its neighbours, and has them again by a reconciliation', () =>
  withVxlan(async (netns) => {
    await using all = new Endpoints({ link: LINK, netns })
    const list = endpoints(0, 50)
    await all.add(list)
    await ip(netns, `link set ${LINK} down`, `link set ${LINK} up`)
    expect((await listed(netns)).neighbours).toEqual([])
    expect(await all.reconcile()).toMatchObject({ added: 50, updated: 0, removed: 0 })
    expect(await listed(netns)).toEqual(expected(list))
  }))

test('in a namespace that loses its name endpoints are removed as before, and no more are made', () =>
  withVxlan(async (netns) => {
    await using all = new Endpoints({ link: LINK, netns })
    const list = endpoints(0, 20)
    await all.add(list)
    await renamed(netns, async (before) => {
      await addLink(netns)
      const gone = { code: 'ERR_XFRMESH_NAMESPACE_GONE' }
      await expect(all.add(endpoints(20, 30))).rejects.toMatchObject(gone)
      await expect(all.reconcile()).rejects.toMatchObject(gone)
      expect(await listed(before)).toEqual(expected(list))
      expect(await all.remove(list.slice(5))).toMatchObject({ applied: 15, operations: 30 })
      expect(await listed(before)).toEqual(expected(list.slice(0, 5)))
      expect(await all.replace([])).toMatchObject({ operations: 10 })
      expect(await listed(before)).toEqual(nothing)
      expect(await listed(netns)).toEqual(nothing)
    })
  }))

test('what another tool put on a link that was made anew is left alone by removals, and mended by a reconciliation', () =>
  withVxlan(async (netns) => {
    await using all = new Endpoints({ link: LINK, netns })
    const list = endpoints(0, 4)
    const [one, two, three, four] = list as [Endpoint, Endpoint, Endpoint, Endpoint]
    await all.add(list)
    await ip(netns, `link delete ${LINK}`)
    await addLink(netns)
    await bridgeFdb(netns, ...list.map(({ mac }) => `replace ${mac} dev ${LINK} dst 192.0.2.99`))
    await ip(netns, ...list.map(({ ip, mac }) => `neigh replace ${ip} lladdr ${mac} dev ${LINK} nud permanent`))
    const theirs = await listed(netns)
    for (const each of [one, two]) expect(await all.remove([each])).toMatchObject({ applied: 1, operations: 0 })
    expect(await listed(netns)).toEqual(theirs)
    expect(await all.reconcile()).toMatchObject({ added: 0, updated: 2, removed: 4 })
    expect(await listed(netns)).toEqual(expected([three, four]))
    expect(await all.remove([three])).toMatchObject({ applied: 1, operations: 2 })
    expect(await listed(netns)).toEqual(expected([four]))
  }))

test('answers that did not fit the receive buffer are learnt from the kernel', () =>
  withVxlan(async (netns) => {
    const link = new EndpointLink(LINK, { netns, receiveBuffer: 8192, chunk: 256 })
    const entries = new Entries(link)
    const list = endpoints(0, 1000)
    await entries.follow(await entries.put(await entries.check(list)))
    expect(await listed(netns)).toEqual(expected(list))
    // Refusals are what is answered: of neighbours that another tool deleted, and FDB entries of another family.
    await inNetns(netns, 'ip', 'neigh', 'flush', 'dev', LINK, 'nud', 'permanent')
    const removed = await entries.follow(await entries.take(await entries.checkGone(list.slice(0, 900))))
    expect(removed).toMatchObject({ applied: 900, failures: [] })
    expect((await listed(netns)).fdb).toEqual(expected(list.slice(900)).fdb)
    await entries.repair(await entries.look())
    expect(await listed(netns)).toEqual(expected(list.slice(900)))
    await link.close()
  }))

test('what the kernel refuses is named, with its sentence, and the rest is done', () =>
  withVxlan(async (netns) => {
    await using all = new Endpoints({ link: LINK, netns })
    // Too small for IPv6, which the kernel then takes off the link.
    await ip(netns, `link set ${LINK} mtu 1000`)
    const mac = '02:42:0a:00:00:01'
    const report = await partial(all.add([...endpoints(2, 12), { ip: '2001:db8::1', mac, vtep: '192.0.2.2' }]))
    expect(report).toMatchObject({ requested: 11, applied: 10, unchanged: 0, operations: 21 })
    expect(report.failures).toEqual([
      {
        subject: `2001:db8::1 at ${mac}`,
        operation: 'add neighbour entry',
        errno: 22,
        code: 'EINVAL',
        message: expect.any(String) as string,
      },
    ])
    expect(all.size).toBe(11)
    await ip(netns, `link set ${LINK} mtu 1500`)
    expect(await all.reconcile()).toMatchObject({ added: 1, updated: 0, removed: 0 })
    expect((await listed(netns)).neighbours.length).toBe(11)
  }))

test('a list that is wrong anywhere changes nothing', () =>
  withVxlan(async (netns) => {
    await using all = new Endpoints({ link: LINK, netns })
    const good = endpoint(1)
    for (const [bad, message] of [
      [{ ip: '10.0.0' }, /^endpoints\[1\]\.ip must be an IPv4 or IPv6 address/],
      [{ ip: '0.0.0.0' }, /^endpoints\[1\]\.ip must be the address of a host; 0\.0\.0\.0 is unspecified/],
      [{ ip: '::' }, /:: is unspecified/],
      [{ ip: '224.0.0.1' }, /multicast/],
      [{ ip: 'ff02::1' }, /multicast/],
      [{ ip: '255.255.255.255' }, /broadcast/],
      [{ ip: 'fe80::1%eth0' }, /without a zone/],
      [{ mac: '02:42:0a:00:00' }, /^endpoints\[1\]\.mac must be an Ethernet address/],
      [{ mac: '00:00:00:00:00:00' }, /of one host; 00:00:00:00:00:00 is zero/],
      [{ mac: '01:00:5e:00:00:01' }, /is a group's/],
      [{ mac: undefined }, /^endpoints\[1\]\.mac/],
      [{ vtep: '2001:db8::1' }, /^endpoints\[1\]\.vtep must be an IPv4 address: a VXLAN link carries one family/],
      [{ vtep: '224.0.0.1' }, /multicast/],
      [{ vtep: 7 }, /^endpoints\[1\]\.vtep/],
      [
        { vtpe: '192.0.2.2' },
        /^endpoints\[1\]\.vtpe must be left out: there is no such option \(did you mean 'vtep'\?\)/,
      ],
      [{ ip: good.ip }, /^endpoints\[1\]\.ip must be listed once: 10\.0\.0\.1 is with another mac or vtep before it/],
    ] as const) {
      const list = [good, { ...endpoint(20), ...bad }] as Endpoint[]
      for (const call of ['add', 'remove', 'replace'] as const) {
        const error = await rejection(all[call](list))
        expect(error).toBeInstanceOf(InvalidArgument)
        expect(error.message).toMatch(message)
      }
    }
    for (const bad of [undefined, 'x', {}, [7], [null]]) {
      expect(await rejection(all.add(bad as unknown as Endpoint[]))).toBeInstanceOf(InvalidArgument)
    }
    expect(await rejection(all.reconcile({ dryrun: true } as object))).toMatchObject({ argument: 'options.dryrun' })
    expect(await listed(netns)).toEqual(nothing)
    expect(all.size).toBe(0)
    // Twice the same is the same.
    expect(await all.add([good, good])).toMatchObject({ requested: 2, applied: 1, unchanged: 1 })
  }))

test('a link that is none, or of another kind, is refused by what it is', () =>
  withNetns(async (netns) => {
    await ip(
      netns,
      'link add br0 type bridge',
      'link add vx1 type vxlan external dstport 4789',
      'link add v0 type veth peer name v1',
    )
    const opening = async (link: string, where = netns) => {
      await using all = new Endpoints({ link, netns: where })
      return await rejection(all.add([endpoint(1)]))
    }
    const prefix = 'options.link must be the name of a VXLAN link in that namespace; '
    for (const [link, why] of [
      ['none', 'it is not there'],
      ['br0', 'it is a bridge'],
      ['v0', 'it is a veth'],
      ['lo', 'it is a device'],
      ['vx1', 'it is external: it has no network of its own, and its FDB is by networks'],
    ] as const) {
      const error = await opening(link)
      expect(error).toBeInstanceOf(InvalidArgument)
      expect(error.message).toBe(`${prefix}${link}: ${why}`)
    }
    expect(await opening('vx0', '/run/netns/none-such')).toMatchObject({ argument: 'netns' })
    for (const link of ['', 'a-name-of-sixteen', 'a b', 'a/b', '..', 7, undefined]) {
      expect(() => new Endpoints({ link: link as string, netns })).toThrow(InvalidArgument)
    }
    expect(() => new Endpoints({ lnik: 'vx0' } as never)).toThrow(/did you mean 'link'/)
    expect(() => new Endpoints({ link: 'vx0', timeoutMs: 0 })).toThrow(/timeoutMs/)
  }))

test('one process has the endpoints of a link at a time', () =>
  withVxlan(async (netns) => {
    await using all = new Endpoints({ link: LINK, netns })
    await all.add([endpoint(1)])
    await using another = new Endpoints({ link: LINK, netns })
    const error = await rejection(another.add([endpoint(2)]))
    expect(error.code).toBe('ERR_XFRMESH_LOCKED')
    expect(error.message).toContain(`process ${process.pid} `)
    await all.close()
    await another.add([endpoint(2)])
    expect((await listed(netns)).fdb.length).toBe(2)
  }))

test('calls run in the order made, close waits for them, and later ones are refused', () =>
  withVxlan(async (netns) => {
    const all = new Endpoints({ link: LINK, netns })
    const list = endpoints(0, 500)
    const calls = Promise.all([all.add(list), all.remove(list.slice(0, 100)), all.replace(list.slice(50))])
    const closed = all.close()
    await calls
    await closed
    expect(await listed(netns)).toEqual(expected(list.slice(50)))
    expect(await rejection(all.add(list))).toBeInstanceOf(InvalidState)
    expect(await rejection(all.reconcile())).toMatchObject({ code: 'ERR_XFRMESH_CLOSED' })
    // One that was never used has nothing to close.
    await new Endpoints({ link: 'none' }).close()
  }))

test('stories of endpoints that come, move and go end as bridge and ip list them', () =>
  withVxlan(async (netns) => {
    await using all = new Endpoints({ link: LINK, netns })
    const rounds = MANY === 10_000 ? 30 : 3
    let seed = 1
    const random = (n: number) => (seed = Math.imul(seed, 48271) & 0x7fffffff) % n
    const wanted = new Map<string, Endpoint>()
    for (let round = 0; round < rounds; round++) {
      for (let step = 0; step < 5; step++) {
        const list = new Map<string, Endpoint>()
        for (let i = random(8); i >= 0; i--) {
          const ip = `10.0.0.${1 + random(12)}`
          list.set(ip, { ip, mac: `02:00:00:00:00:0${1 + random(6)}`, vtep: `192.0.2.${2 + random(4)}` })
        }
        const given = [...list.values()]
        if (random(3) > 0) {
          await all.add(given)
          for (const each of given) wanted.set(each.ip, each)
        } else {
          const there = given.map(({ ip }) => wanted.get(ip)).filter((each) => each !== undefined)
          await all.remove(there)
          for (const { ip } of there) wanted.delete(ip)
        }
      }
      const { fdb, neighbours } = await listed(netns)
      expect(neighbours).toEqual(expected([...wanted.values()]).neighbours)
      const macs = new Set([...wanted.values()].map(({ mac }) => mac))
      expect(fdb.length).toBe(macs.size)
      const all_ = expected([...wanted.values()]).fdb
      for (const line of fdb) expect(all_).toContain(line)
      expect(await all.reconcile({ dryRun: true })).toMatchObject({ plan: [] })
    }
  }))
