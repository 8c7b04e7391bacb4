/** What happens to the SAD as a monitor tells it, whoever does it. */
import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import {
  Key,
  XfrmBatch,
  type State,
  type StateOptions,
  type XfrmEvent,
  type XfrmMonitor,
} from '../../lib/kernel/xfrm.js'
import { stateText } from '../unit/ip-text.js'
import { inNetns } from './netns.js'
import { additions, ipBatch, ipList, timeless, withXfrm } from './xfrm-oracle.js'

const SECRET = Uint8Array.from({ length: 20 }, (_, i) => 0xa0 + i)
const ID = { source: '10.0.0.1', destination: '10.0.0.2', spi: 0x1000, protocol: 'esp' } as const
const STATE: StateOptions = { ...ID, reqid: 7, aead: { name: 'rfc4106(gcm(aes))', key: SECRET, icvBits: 128 } }

async function next(monitor: XfrmMonitor): Promise<XfrmEvent> {
  const { value } = await monitor.next()
  return value!
}

/** The state that an event is about. */
function stateOf(event: XfrmEvent): State {
  if (!('state' in event)) throw new Error(`an event of type ${event.type}`)
  return event.state
}

test('states that ip adds are told as they are listed', () =>
  withXfrm(async (xfrm, netns) => {
    const monitor = xfrm.monitor(['sa'])
    await monitor.ready
    const commands = additions('state').map(({ command }) => command)
    await ipBatch(netns, commands)
    const told: string[] = []
    while (told.length < commands.length) {
      const event = await next(monitor)
      expect(event).toMatchObject({ type: 'sa', change: 'added' })
      told.push(stateText(stateOf(event)))
    }
    expect(timeless(told.reverse())).toEqual(timeless(await ipList(netns, 'state')))
  }))

test('a state that is changed, deleted or flushed is told of as it is or was, with its key in no view of it', () =>
  withXfrm(async (xfrm, netns) => {
    const monitor = xfrm.monitor(['sa'])
    await monitor.ready
    const batch = new XfrmBatch()
    const encap = { type: 'espinudp', sourcePort: 4500, destinationPort: 4500 } as const
    batch.addState({ ...STATE, encap })
    batch.updateState({ ...ID, encap: { ...encap, sourcePort: 31234 } })
    batch.deleteState(ID)
    batch.addState({ ...STATE, spi: 0x2000 })
    expect(await xfrm.commit(batch)).toMatchObject({ failures: [] })
    await inNetns(netns, 'ip', 'xfrm', 'state', 'flush')

    const events = [await next(monitor), await next(monitor), await next(monitor), await next(monitor)]
    expect(events.map((event) => 'change' in event && event.change)).toEqual(['added', 'updated', 'deleted', 'added'])
    expect(events.map((event) => stateOf(event).encap?.sourcePort)).toEqual([4500, 31234, 31234, undefined])
    expect(await next(monitor)).toEqual({ type: 'sa', change: 'flushed', protocol: 'any' })

    const key = new Key(SECRET)
    for (const event of events.filter((each) => 'change' in each && each.change !== 'updated')) {
      expect(stateOf(event).aead?.key?.equals(key)).toBe(true)
      const shown = `${inspect(event, { depth: Infinity, showHidden: true })} ${JSON.stringify(event, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value))}`
      expect(shown).toContain('Key(20 bytes)')
      expect(shown).not.toMatch(/a0, ?a1|160, ?161|a0a1/i)
    }
  }))

test('a state that expires is told of, softly and for good, and not as deleted beside', () =>
  withXfrm(async (xfrm, netns) => {
    const monitor = xfrm.monitor(['expire', 'sa'])
    await monitor.ready
    const batch = new XfrmBatch()
    // Apart by more than a second: where the timer is late, and the hard limit is over too, there is no soft event.
    batch.addState({ ...STATE, limits: { timeSoft: 1, timeHard: 4 } })
    await xfrm.commit(batch)
    expect(await next(monitor)).toMatchObject({ change: 'added' })
    expect(await next(monitor)).toMatchObject({ type: 'expire', hard: false, state: { spi: 0x1000 } })
    const last = await next(monitor)
    expect(last).toMatchObject({ type: 'expire', hard: true, state: { spi: 0x1000, limits: { timeHard: 4 } } })
    expect(stateOf(last).aead).toBe(undefined)
    expect(await ipList(netns, 'state')).toEqual([])
    const after = new XfrmBatch()
    after.addState({ ...STATE, spi: 0x3000 })
    await xfrm.commit(after)
    expect(await next(monitor)).toMatchObject({ change: 'added', state: { spi: 0x3000 } })
  }))
