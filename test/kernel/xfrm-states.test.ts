import { expect, test } from 'vitest'
import { take } from '../../lib/kernel/xfrm-batch.js'
import { refusals, XfrmChannel } from '../../lib/kernel/xfrm-channel.js'
import { Key, XfrmBatch, type StateId, type StateOptions } from '../../lib/kernel/xfrm.js'
import { stateText } from '../unit/ip-text.js'
import { withNetns } from './netns.js'
import { additions, collect, ipBatch, ipList, timeless, withXfrm } from './xfrm-oracle.js'

const gcm = { name: 'rfc4106(gcm(aes))', key: new Uint8Array(20).fill(7), icvBits: 64 }
const plain: StateOptions = {
  source: '10.0.0.1',
  destination: '10.0.0.2',
  spi: 0x1000,
  protocol: 'esp',
  reqid: 5,
  aead: gcm,
}

const all = additions('state').map(({ command, options }) => ({ command, options: options as unknown as StateOptions }))

function idOf({ source, destination, spi, protocol, mark }: StateOptions): StateId {
  return { source, destination, spi, protocol, ...(mark === undefined ? {} : { mark }) }
}

test("states of every kind are in the kernel as ip's are, are listed as ip lists them, are found, and are deleted", () =>
  withXfrm(async (xfrm, ours) => {
    expect(all.length).toBeGreaterThan(30)
    const batch = new XfrmBatch()
    for (const { options } of all) batch.addState(options)
    expect(await xfrm.commit(batch)).toMatchObject({ applied: all.length, failures: [] })
    const listed = await ipList(ours, 'state')
    await withNetns(async (theirs) => {
      await ipBatch(
        theirs,
        all.map(({ command }) => command),
      )
      expect(timeless(listed)).toEqual(timeless(await ipList(theirs, 'state')))
    })

    const states = await collect(xfrm.states())
    expect(states.map((state) => stateText(state))).toEqual(listed)

    for (const { options } of all) {
      const found = await xfrm.getState(idOf(options))
      expect(listed).toContain(stateText(found!))
      expect(found).toMatchObject({ spi: options.spi, destination: options.destination })
    }

    const deletion = new XfrmBatch()
    for (const { options } of all) deletion.deleteState(idOf(options))
    expect(await xfrm.commit(deletion)).toMatchObject({ applied: all.length, failures: [] })
    expect(await ipList(ours, 'state')).toEqual([])
  }))

test('states of a reqid are listed alone, keys and windows as they were given', () =>
  withXfrm(async (xfrm) => {
    const batch = new XfrmBatch()
    const key = new Key(Uint8Array.from({ length: 36 }, (_, i) => i + 1))
    batch.addState({ ...plain, aead: { ...gcm, key } })
    batch.addState({ ...plain, spi: 2, reqid: 6, esn: true, replayWindow: 777 })
    expect((await xfrm.commit(batch)).failures).toEqual([])
    const [five, ...more] = await collect(xfrm.states({ reqid: 5 }))
    expect(more).toEqual([])
    expect(five?.aead?.key?.equals(key)).toBe(true)
    const [six] = await collect(xfrm.states({ reqid: 6 }))
    expect(six).toMatchObject({ esn: true, replayWindow: 777, replay: { sequence: 0n, outputSequence: 0n } })
    expect(six?.replay.bitmap.length).toBe(25)
    expect(await xfrm.info()).toMatchObject({ states: { count: 2 } })
    expect(await xfrm.getState({ destination: '10.0.0.2', spi: 3, protocol: 'esp' })).toBeUndefined()
  }))

test('an update changes ports, limits, output mark and interface id, and nothing else', () =>
  withXfrm(async (xfrm, netns) => {
    const encap = { type: 'espinudp', sourcePort: 4500, destinationPort: 4500 } as const
    const wide = { ...plain, encap, esn: true, replayWindow: 64, selector: { destination: '10.0.0.2/32' } }
    const cbc = {
      ...plain,
      spi: 2,
      aead: undefined,
      encryption: { name: 'cbc(aes)', key: new Uint8Array(16).fill(3) },
      auth: { name: 'hmac(sha256)', key: new Uint8Array(32).fill(4) },
    } as unknown as StateOptions
    const ah = { ...cbc, spi: 3, protocol: 'ah', encryption: undefined } as unknown as StateOptions
    const batch = new XfrmBatch()
    batch.addState(wide)
    batch.addState(cbc)
    batch.addState(ah)
    expect((await xfrm.commit(batch)).failures).toEqual([])
    const before = await ipList(netns, 'state')

    const update = new XfrmBatch()
    update.updateState({
      ...idOf(wide),
      encap: { ...encap, destinationPort: 4600 },
      limits: { packetHard: 100_000 },
      outputMark: { value: 0x10, mask: 0xff },
      ifId: 9,
    })
    update.updateState({ ...idOf(cbc), limits: { byteSoft: 5_000_000 } })
    update.updateState({ ...idOf(ah), ifId: 4 })
    expect((await xfrm.commit(update)).failures).toEqual([])
    const expected = before.map((text) => {
      if (text.includes('(4096)')) {
        return text
          .replace('dport 4500', 'dport 4600')
          .replace('hard (INF)(packets)', 'hard 100000(packets)')
          .replace('\taead', '\toutput-mark 0x10/0xff\n\taead')
          .replace('\tsel', '\tif_id 0x9\n\tsel')
      }
      return text.includes('(2)')
        ? text.replace('soft (INF)(bytes)', 'soft 5000000(bytes)')
        : text.replace('\tsel', '\tif_id 0x4\n\tsel')
    })
    expect(await ipList(netns, 'state')).toEqual(expected)
  }))

test("each refusal bears its operation and the kernel's own sentence, and the others are done", () =>
  withXfrm(async (xfrm, netns) => {
    const batch = new XfrmBatch()
    batch.addState(plain)
    batch.addState({ ...plain, reqid: 6 })
    batch.addState({ ...plain, spi: 2, aead: { ...gcm, name: 'rfc4106(none)' } })
    batch.addState({ ...plain, spi: 3, aead: { ...gcm, key: new Uint8Array(3).fill(1) } })
    batch.updateState({ destination: '10.0.0.2', spi: 4, protocol: 'esp' })
    batch.deleteState({ destination: '10.0.0.2', spi: 5, protocol: 'esp' })
    const last = batch.addState({ ...plain, spi: 6 })
    const { applied, failures } = await xfrm.commit(batch)
    expect(applied).toBe(2)
    expect(failures.map(({ index, code }) => [index, code])).toEqual([
      [1, 'EEXIST'],
      [2, 'ENOSYS'],
      [3, 'EINVAL'],
      [4, 'ESRCH'],
      [5, 'ESRCH'],
    ])
    expect(failures[1]?.message).toBe('Requested AEAD algorithm not found')
    expect(failures.every(({ message }) => message !== '')).toBe(true)
    const listed = await ipList(netns, 'state')
    expect(listed.length).toBe(2)
    expect(listed.some((text) => text.includes(`spi 0x0000000${last}(`))).toBe(true)
  }))

test('of states whose answers were lost the kernel is asked, and each is told from another of its name', () =>
  withXfrm(async (xfrm, netns) => {
    // Every other is there in another form.
    const before = new XfrmBatch()
    const there = all.filter((_, i) => i % 2 === 0)
    for (const { options } of there) before.addState({ ...options, reqid: 99 })
    expect((await xfrm.commit(before)).failures).toEqual([])

    // Refusals that fill a small receive buffer, in one send with what comes after them.
    const batch = new XfrmBatch()
    const refused = 200
    for (let spi = 1; spi <= refused; spi++) batch.deleteState({ destination: '10.0.0.9', spi, protocol: 'esp' })
    for (const { options } of all) batch.addState(options)
    const { records, tables } = take(batch)
    const channel = await XfrmChannel.open({ netns, chunk: 1000, receiveBuffer: 4096 })
    const outcome = await channel.commit(records, tables)
    await channel.close()

    expect(outcome).toMatchObject({ ending: 0, sends: 1, sent: refused + all.length })
    expect(outcome.readBack).toBeGreaterThan(all.length)
    const failed = [...refusals(outcome)].filter(({ index }) => index >= refused)
    expect(failed.map(({ index, code }) => [index, code])).toEqual(there.map((_, i) => [refused + i * 2, 'EEXIST']))
    expect((await ipList(netns, 'state')).length).toBe(all.length)
  }))
