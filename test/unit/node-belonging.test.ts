import { describe, expect, test } from 'vitest'
import {
  attributeAt,
  attributeTypes,
  isPolicyRecord,
  recordLength,
  startsOf,
} from '../../lib/kernel/record-identity.js'
import { words } from '../../lib/kernel/record-parts.js'
import { Cipher, LITTLE_ENDIAN, NO_ALGORITHM, Policy, RecordWriter, State, Tail } from '../../lib/kernel/records.js'
import { Ending } from '../../lib/kernel/xfrm-channel.js'
import { DIRECTION_OUT, MODE_TUNNEL, XFRMA } from '../../lib/kernel/xfrm-names.js'
import { SelectorLayout, TemplateLayout } from '../../lib/kernel/xfrm-parts.js'
import { Belonging, SHARED } from '../../lib/node/belonging.js'
import { parseKeys } from '../../lib/node/index.js'
import { NodeKeyring } from '../../lib/node/keyring.js'
import { Look } from '../../lib/node/look.js'
import { ObjectWriter } from '../../lib/node/objects.js'
import type { XfrmPort } from '../../lib/node/port.js'
import { Sequences } from '../../lib/node/sequences.js'
import { KeyDeriver } from '../../lib/node/derive.js'
import { remote, settings } from '../../lib/node/settings.js'
import { remoteKey } from '../../lib/node/tunnels.js'

const BOOT = '00000000-0000-4000-8000-000000000001'
const keys = parseKeys('3 rfc4106(gcm(aes)) 44434241343332312423222114131211f4f3f2f1 128')

/** A node, another one, and what the first should have of it in the kernel. */
function world(marks: false | 'cilium') {
  const given = settings({
    local: {
      addresses: ['192.0.2.1', '2001:db8::1'],
      subnets: ['10.1.0.0/24', 'fd00:1::/64'],
      overlay: ['203.0.113.1', '2001:db8:1::1'],
      bootId: BOOT,
    },
    keys,
    marks,
    ...(marks !== false && { proxy: true }),
  }).settings
  const node = remote(
    {
      name: 'b',
      addresses: ['192.0.2.2', '2001:db8::2'],
      subnets: ['10.2.0.0/24', 'fd00:2::/64'],
      overlay: ['203.0.113.2', '2001:db8:1::2'],
      bootId: BOOT,
      ...(marks !== false && { id: 7 }),
    },
    'node',
    given,
  )
  const keyring = new NodeKeyring(keys)
  const writer = new ObjectWriter(given, keyring)
  const into = new RecordWriter()
  writer.node(into, node, 1, [3])
  const belonging = new Belonging(given)
  return { given, node, keyring, writer, belonging, records: into.take() }
}

const each = (records: Uint8Array) => startsOf(records).map((at) => records.slice(at, at + recordLength(records, at)))

/** Whose an object is said to be. */
function far(belonging: Belonging, record: Uint8Array): string | undefined {
  return isPolicyRecord(record, 0) ? belonging.ofPolicy(record, 0)?.far : belonging.ofState(record, 0)
}

const view = (record: Uint8Array) => new DataView(record.buffer, record.byteOffset)
const template = (record: Uint8Array) => attributeAt(record, 0, XFRMA.TMPL)

/** The same record with one attribute more, in its place. */
function withAttribute(record: Uint8Array, type: number, payload: Uint8Array): Uint8Array {
  const into = new RecordWriter()
  into.begin(record[State.operation]!)
  into.bytes(State.operation, record.subarray(State.operation, 72))
  for (const known of attributeTypes(record, 0)) {
    const at = attributeAt(record, 0, known)
    into.attribute(known, record.subarray(at, at - 4 + view(record).getUint16(at - 4, LITTLE_ENDIAN)))
  }
  into.attribute(type, payload)
  return into.take()
}

function changed(record: Uint8Array, change: (record: Uint8Array) => unknown): Uint8Array {
  const other = change(record)
  return other instanceof Uint8Array ? other : record
}

/** What another tool's object has in one place, where all else is as ours. */
const states: Record<string, (record: Uint8Array) => unknown> = {
  'another SPI': (record) => view(record).setUint32(State.spi, 0xc1a2b3c4, LITTLE_ENDIAN),
  'another reqid': (record) => view(record).setUint32(State.reqid, 16, LITTLE_ENDIAN),
  'transport mode': (record) => void (record[State.mode] = 0),
  'no ESN': (record) => void (record[State.flags] = 0),
  'another window': (record) =>
    view(record).setUint32(attributeAt(record, 0, XFRMA.REPLAY_ESN_VAL) + 20, 32, LITTLE_ENDIAN),
  'an interface id': (record) => withAttribute(record, XFRMA.IF_ID, words(5)),
  'other ends': (record) => {
    record.fill(9, State.destination, State.destination + 4)
    record.fill(8, State.source, State.source + 4)
  },
}
const policies: typeof states = {
  'a priority': (record) => view(record).setUint32(Policy.priority, 371_327, LITTLE_ENDIAN),
  'another reqid': (record) => view(record).setUint32(template(record) + TemplateLayout.reqid, 16, LITTLE_ENDIAN),
  'transport mode': (record) => void (record[template(record) + TemplateLayout.mode] = MODE_TUNNEL - 1),
  'another SPI, or any': (record) => {
    const isOut = record[Policy.direction] === DIRECTION_OUT
    view(record).setUint32(template(record) + TemplateLayout.spi, isOut ? 0 : 0xc1a2b3c4)
  },
  'an interface id': (record) => withAttribute(record, XFRMA.IF_ID, words(5)),
  'a protocol': (record) => void (record[Policy.protocol] = 6),
}

describe.each([false, 'cilium'] as const)('marks: %s', (marks) => {
  const { given, node, belonging, writer, records } = world(marks)

  test('all that a node has is its own, and all that nodes share is shared', () => {
    const ends = [...node.addresses.values(), ...node.overlay.values()].map(({ bytes, family }) =>
      remoteKey(bytes, family),
    )
    for (const record of each(records)) expect(ends).toContain(far(belonging, record))
    const into = new RecordWriter()
    writer.shared(into)
    const shared = each(into.take())
    expect(shared).toHaveLength(marks === false ? 0 : 6)
    for (const record of shared) expect(far(belonging, record)).toBe(SHARED)
  })

  test.each(Object.entries(states))('an SA with %s is another’s', (_, change) => {
    const found = each(records).filter((record) => !isPolicyRecord(record, 0))
    expect(found.length).toBeGreaterThan(0)
    for (const record of found) expect(far(belonging, changed(record, change))).toBeUndefined()
  })

  test.each(Object.entries(policies))('a policy with %s is another’s', (_, change) => {
    const found = each(records).filter((record) => isPolicyRecord(record, 0))
    expect(found.length).toBeGreaterThan(0)
    for (const record of found) expect(far(belonging, changed(record, change))).toBeUndefined()
  })

  test('a mark that is not that of the key, or one where there are none, is another’s', () => {
    for (const record of each(records)) {
      const mark = attributeAt(record, 0, XFRMA.MARK)
      if (marks !== false && mark < 0) continue
      const changed = marks === false ? withAttribute(record, XFRMA.MARK, words(0xe00, 0xf00)) : record
      if (marks !== false) view(record).setUint32(mark, 0x75_e00, LITTLE_ENDIAN)
      expect(far(belonging, changed)).toBeUndefined()
    }
  })

  test('what the kernel makes for a packet that finds no SA of ours is ours, and nothing else without keys', () => {
    for (const record of each(records)) {
      if (isPolicyRecord(record, 0)) continue
      const [mark, into] = [attributeAt(record, 0, XFRMA.MARK), new RecordWriter()]
      into.begin(record[State.operation]!)
      into.bytes(State.operation, record.subarray(State.operation, State.flags))
      into.u16(State.authAlgorithm, NO_ALGORITHM)
      if (mark >= 0) into.attribute(XFRMA.MARK, record.subarray(mark, mark + 8))
      // Of the packet's addresses.
      into.attribute(Tail.selector, new Uint8Array(SelectorLayout.bytes))
      const larval = into.take()
      const isOut = !belonging.isInbound(record, 0)
      expect(far(belonging, larval)).toBe(isOut ? far(belonging, record) : undefined)
      larval[State.cipher] = Cipher.aead
      expect(far(belonging, larval)).toBeUndefined()
    }
  })

  test('a policy of two templates is another’s', () => {
    for (const record of each(records)) {
      if (!isPolicyRecord(record, 0)) continue
      const [at, into] = [template(record), new RecordWriter()]
      const one = record.subarray(at, at + TemplateLayout.bytes)
      into.begin(record[State.operation]!)
      into.bytes(State.operation, record.subarray(State.operation, 72))
      into.attribute(XFRMA.TMPL, new Uint8Array(Buffer.concat([one, one])))
      expect(new Belonging(given).ofPolicy(into.take(), 0)).toBeUndefined()
    }
  })
})

describe('what lets in, which has no SPI', () => {
  const { given, node, keyring, belonging, records } = world(false)
  const all = each(records)
  const is = (direction: number) => (record: Uint8Array) =>
    isPolicyRecord(record, 0) && record[Policy.direction] === direction
  const inward = all.filter((record) => isPolicyRecord(record, 0) && !is(DIRECTION_OUT)(record))

  /** What a look takes for the node's, and for nobody's, where the kernel has these. */
  async function looked(kernel: Uint8Array[]): Promise<{ own: number; stale: number }> {
    const read: XfrmPort['read'] = ({ policies: asked, reqid }) => {
      const found = kernel.filter((record) => {
        const at = isPolicyRecord(record, 0) ? template(record) + TemplateLayout.reqid : State.reqid
        return isPolicyRecord(record, 0) === asked && view(record).getUint32(at, LITTLE_ENDIAN) === reqid
      })
      const complete = { ending: Ending.complete, errno: 0, message: undefined }
      return Promise.resolve({ ...complete, records: new Uint8Array(Buffer.concat(found)), keys: [], algorithms: [] })
    }
    const look = await Look.read(
      {
        xfrm: { read } as XfrmPort,
        keyring,
        belonging,
        deriver: new KeyDeriver(given, keyring, belonging),
        sequences: new Sequences(),
        marked: false,
      },
      new Uint8Array(0),
    )
    const own = startsOf(look.take(node, 1)).length
    return { own, stale: startsOf(look.rest()).length }
  }
  const strangers = () =>
    inward.map((record) => {
      const other = record.slice()
      // Of the same tunnel, and of ranges that the node has not.
      other[Policy.source + 1]! ^= 0x40
      return other
    })

  test("is a node's where its ranges are, though the way out is gone", async () => {
    expect(inward).toHaveLength(6)
    expect(await looked(inward)).toEqual({ own: 6, stale: 0 })
  })

  test("is nobody's, to be removed, where the way out of the same ranges is ours", async () => {
    const outward = all.filter(is(DIRECTION_OUT)).map((record) => {
      const other = record.slice()
      other[Policy.destination + 1]! ^= 0x40
      return other
    })
    const gone = [...outward, ...strangers()]
    for (const record of gone) {
      const end = is(DIRECTION_OUT)(record) ? TemplateLayout.destination : TemplateLayout.source
      record[template(record) + end + 1]! ^= 1
    }
    expect(await looked(gone)).toEqual({ own: 0, stale: 10 })
  })

  test("is another's where nothing of ours has such ranges, though all the node's own be there", async () => {
    const own = all.filter((record) => isPolicyRecord(record, 0))
    expect(await looked([...own, ...strangers()])).toEqual({ own: own.length, stale: 0 })
  })
})
