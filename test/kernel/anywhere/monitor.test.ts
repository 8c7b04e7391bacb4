/** What happens to the SPD as a monitor tells it, whoever does it: needs no ESP. */
import { readdirSync, readlinkSync } from 'node:fs'
import { expect, test } from 'vitest'
import { InvalidArgument } from '../../../lib/base/errors.js'
import { Xfrm, XfrmBatch, type EventKind, type XfrmEvent, type XfrmMonitor } from '../../../lib/kernel/xfrm.js'
import { policyText } from '../../unit/ip-text.js'
import { startInNetns, withLink, withNetns } from '../netns.js'
import { additions, ipBatch, ipList, timeless, withXfrm } from '../xfrm-oracle.js'

const SELECTOR = 'src 10.0.0.1/32 dst 10.0.0.2/32'
const OUT = `ip xfrm policy add ${SELECTOR} dir out tmpl proto esp mode transport reqid 7`

/** The next events, so many. */
async function next(monitor: XfrmMonitor, count: number): Promise<XfrmEvent[]> {
  const events: XfrmEvent[] = []
  while (events.length < count) {
    const { value } = await monitor.next()
    events.push(value!)
  }
  return events
}

async function listening(xfrm: Xfrm, ...kinds: EventKind[]): Promise<XfrmMonitor> {
  const monitor = xfrm.monitor(kinds)
  await monitor.ready
  return monitor
}

test('policies that ip adds, changes, deletes and flushes are told as they are listed', () =>
  withXfrm(async (xfrm, netns) => {
    const monitor = await listening(xfrm, 'policy')
    const commands = additions('policy').map(({ command }) => command)
    await ipBatch(netns, commands)
    const added = await next(monitor, commands.length)
    const texts = added.map((event) => {
      expect(event).toMatchObject({ type: 'policy', change: 'added' })
      return 'policy' in event ? policyText(event.policy) : ''
    })
    expect(timeless(texts.reverse())).toEqual(timeless(await ipList(netns, 'policy')))

    await ipBatch(netns, [OUT, OUT.replace('add', 'update').replace('dir', 'priority 9 dir')])
    await ipBatch(netns, [`xfrm policy delete ${SELECTOR} dir out`, 'xfrm policy flush'])
    const [first, updated, deleted, flushed] = await next(monitor, 4)
    const selector = { source: '10.0.0.1/32', destination: '10.0.0.2/32' }
    expect(first).toMatchObject({ type: 'policy', change: 'added', policy: { selector, priority: 0 } })
    expect(updated).toMatchObject({ type: 'policy', change: 'updated', policy: { selector, priority: 9 } })
    expect(deleted).toMatchObject({
      type: 'policy',
      change: 'deleted',
      policy: { direction: 'out', selector, priority: 9, templates: [{ reqid: 7 }] },
    })
    expect(flushed).toEqual({ type: 'policy', change: 'flushed', policyType: 'main' })
  }))

test('a policy that expires is told of, softly and for good', () =>
  withXfrm(async (xfrm, netns) => {
    const monitor = await listening(xfrm, 'expire')
    // Apart by more than a second: where the timer is late, and the hard limit is over too, there is no soft event.
    await ipBatch(netns, [OUT.replace('tmpl', 'limit time-soft 1 limit time-hard 4 tmpl')])
    const [soft, hard] = await next(monitor, 2)
    const policy = { selector: { destination: '10.0.0.2/32' }, limits: { timeSoft: 1, timeHard: 4 } }
    expect(soft).toMatchObject({ type: 'expire', hard: false, policy })
    expect(hard).toMatchObject({ type: 'expire', hard: true, policy })
    expect(await ipList(netns, 'policy')).toEqual([])
  }))

test('a packet without its SA is told of, with what it wants', () =>
  withLink(async (netns) => {
    const xfrm = await Xfrm.open({ netns })
    const monitor = await listening(xfrm, 'acquire')
    // ping itself asks for a route to a UDP port first.
    await ipBatch(netns, [OUT.replaceAll('10.0.0.', '192.0.2.').replace('dir', 'proto icmp dir')])
    const ping = startInNetns(netns, 'ping', '-q', '-c', '1', '-W', '1', '192.0.2.2')
    const [event] = await next(monitor, 1)
    expect(event).toMatchObject({
      type: 'acquire',
      source: '192.0.2.1',
      destination: '192.0.2.2',
      protocol: 'esp',
      selector: { source: '192.0.2.1/32', destination: '192.0.2.2/32', protocol: 'icmp' },
      policy: { direction: 'out', templates: [{ reqid: 7 }] },
    })
    await ping.stop()
    await xfrm.close()
  }))

test.each([
  ['2001:db8::2', 'src 2001:db8::1/128 dst 2001:db8::2/128', '192.0.2.1', '192.0.2.2'],
  ['192.0.2.2', 'src 192.0.2.1/32 dst 192.0.2.2/32', '2001:db8::1', '2001:db8::2'],
])(
  'a packet to %s that wants a tunnel of the other family is told of with the addresses of that',
  (to, flow, source, destination) =>
    withLink(async (netns) => {
      const xfrm = await Xfrm.open({ netns })
      const monitor = await listening(xfrm, 'acquire')
      const tunnel = `tmpl src ${source} dst ${destination} proto esp mode tunnel reqid 7`
      await ipBatch(netns, [
        `xfrm policy add ${flow} proto ${to.includes(':') ? 'ipv6-icmp' : 'icmp'} dir out ${tunnel}`,
      ])
      const ping = startInNetns(netns, 'ping', '-q', '-c', '1', '-W', '1', to)
      const [event] = await next(monitor, 1)
      expect(event).toMatchObject({
        ...{ type: 'acquire', source, destination, protocol: 'esp' },
        selector: { destination: expect.stringContaining(`${to}/`) as string },
        policy: { templates: [{ source, destination, mode: 'tunnel' }] },
      })
      await ping.stop()
      await xfrm.close()
    }),
)

test('several monitors hear the same, each what it asked for; those of another namespace hear nothing', () =>
  withXfrm((xfrm, netns) =>
    withXfrm(async (elsewhere) => {
      const both = await Promise.all([listening(xfrm, 'policy'), listening(xfrm, 'sa', 'policy')])
      const other = await Promise.all([listening(xfrm, 'expire'), listening(elsewhere, 'policy', 'sa', 'expire')])
      const waiting = other.map((monitor) => monitor.next())
      await ipBatch(netns, [OUT.replace('tmpl', 'limit time-hard 1 tmpl')])
      for (const monitor of both) expect(await next(monitor, 1)).toMatchObject([{ change: 'added' }])
      // These two were asked before, and are told of the next thing that is theirs.
      await elsewhere.commit(policies(1))
      expect(await waiting[0]).toMatchObject({ value: { type: 'expire' } })
      expect(await waiting[1]).toMatchObject({ value: { policy: { selector: { destination: '10.0.0.0/32' } } } })
    }),
  ))

function policies(count: number): XfrmBatch {
  const batch = new XfrmBatch()
  for (let i = 0; i < count; i++) {
    const destination = `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}/32`
    batch.addPolicy({ direction: 'out', selector: { destination }, templates: [{ reqid: 7 }] })
  }
  return batch
}

test('more events than the buffer holds while nobody takes them: that some are lost is an event, and those after it come', () =>
  withNetns(async (netns) => {
    const xfrm = await Xfrm.open({ netns, timeoutMs: 120_000 })
    const monitor = await listening(xfrm, 'policy')
    const count = 12_000
    await xfrm.commit(policies(count))
    const last = new XfrmBatch()
    last.addPolicy({ direction: 'in', selector: { source: '192.0.2.1/32' }, templates: [{ reqid: 7 }] })
    let told = 0
    let lost = 0
    for await (const event of monitor) {
      if (event.type === 'lost') {
        lost++
        // Now there is room again.
        await xfrm.commit(last)
      }
      if (event.type !== 'policy' || event.change === 'flushed') continue
      if (event.policy.direction === 'in') break
      told++
    }
    await xfrm.close()
    expect(lost).toBe(1)
    expect(told).toBeGreaterThan(100)
    expect(told).toBeLessThan(count)
  }))

/** Sockets of this process. What is not netlink's is among them; it does not change here. */
function sockets(): string[] {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:')
    } catch {
      return false // that of this very list
    }
  })
}

test('leaving the loop, close() and the end of its Xfrm close a socket, and end who waits', () =>
  withNetns(async (netns) => {
    const xfrm = await Xfrm.open({ netns })
    const before = sockets().length
    const [left, closed, ended] = await Promise.all([
      listening(xfrm, 'policy'),
      listening(xfrm, 'policy'),
      listening(xfrm, 'policy'),
    ])
    expect(sockets().length).toBe(before + 3)
    await xfrm.commit(policies(3))
    for await (const event of left) {
      expect(event.type).toBe('policy')
      break
    }
    expect(sockets().length).toBe(before + 2)
    expect(await left.next()).toEqual({ done: true, value: undefined })

    await next(closed, 3)
    const waiting = closed.next()
    await closed.close()
    expect(await waiting).toEqual({ done: true, value: undefined })
    expect(sockets().length).toBe(before + 1)

    await next(ended, 3)
    const last = ended.next()
    await xfrm.close()
    expect(await last).toEqual({ done: true, value: undefined })
    expect(sockets().length).toBe(before - 1)
    expect(() => xfrm.monitor(['sa'])).toThrow('closed')
  }))

test.each<[unknown, string]>([
  [[], 'kinds must be at least one of acquire, expire, sa, policy, mapping'],
  [['states'], `kinds[0] must be one of 'acquire', 'expire', 'sa', 'policy', 'mapping'`],
  ['sa', 'kinds must be an array'],
  [undefined, 'kinds must be an array'],
])('%j is no list of kinds', (kinds, message) =>
  withXfrm((xfrm) => {
    expect(() => xfrm.monitor(kinds as EventKind[])).toThrow(InvalidArgument)
    expect(() => xfrm.monitor(kinds as EventKind[])).toThrow(message)
    return Promise.resolve()
  }),
)
