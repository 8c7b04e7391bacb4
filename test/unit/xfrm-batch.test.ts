import fc from 'fast-check'
import { address as parsed } from '../../lib/base/address.js'
import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import { InvalidArgument, InvalidState } from '../../lib/base/errors.js'
import { LITTLE_ENDIAN } from '../../lib/kernel/records.js'
import { take } from '../../lib/kernel/xfrm-batch.js'
import { DumpReader } from '../../lib/kernel/xfrm-decode.js'
import { Key, XfrmBatch, type PolicyOptions, type StateOptions } from '../../lib/kernel/xfrm.js'
import { native } from '../../lib/native.js'
import { offHeapBytes } from './off-heap.js'

const gcm = (key: Uint8Array | Key = new Uint8Array(20).fill(1)) => ({ name: 'rfc4106(gcm(aes))', key, icvBits: 64 })
const state: StateOptions = { source: '10.0.0.1', destination: '10.0.0.2', spi: 0x1000, protocol: 'esp', aead: gcm() }
const policy: PolicyOptions = { direction: 'out', selector: { source: '10.0.0.1/32' } }

/** What a batch comes to, as the kernel would show it. */
function shown(batch: XfrmBatch): DumpReader {
  const { records, tables } = take(batch)
  return new DumpReader(native.decode(native.encode(records, tables.keys, tables.algorithms), true))
}

/** The refusal of a call, which must have appended nothing. */
function refusal(call: (batch: XfrmBatch) => unknown): string {
  const batch = new XfrmBatch()
  batch.addPolicy(policy)
  expect(() => call(batch)).toThrow(InvalidArgument)
  expect(batch.size).toBe(1)
  const after = { ...policy, priority: 7 }
  batch.addPolicy(after)
  const reader = shown(batch)
  expect(reader.next() && reader.policy().priority).toBe(0)
  expect(reader.next() && reader.policy().priority).toBe(7)
  expect(reader.next()).toBe(false)
  try {
    call(new XfrmBatch())
  } catch (error) {
    return (error as Error).message
  }
  return ''
}

describe('a state is refused', () => {
  const cases: [string, Record<string, unknown>, string][] = [
    ['without a destination', { destination: undefined }, 'state.destination must be an IPv4 or IPv6 address'],
    ['whose addresses are of two families', { source: 'fd00::1' }, 'state.source must be an IPv4 address'],
    ['with a zone', { destination: 'fe80::1%eth0' }, 'without a zone'],
    ['of SPI 0', { spi: 0 }, 'state.spi must be an integer from 1 to 4294967295, not 0'],
    ['of SPI 2^32', { spi: 2 ** 32 }, 'state.spi'],
    ['of SPI 1.5', { spi: 1.5 }, 'state.spi'],
    ['of a protocol that is none', { protocol: 'eps' }, "did you mean 'esp'?"],
    ['of an unknown mode', { mode: 'tunel' }, "did you mean 'tunnel'?"],
    ['with a misspelled option', { replaywindow: 32 }, "did you mean 'replayWindow'?"],
    ['without a cipher', { aead: undefined }, 'state.aead must be given'],
    [
      'with two ciphers',
      { encryption: { name: 'cbc(aes)', key: new Uint8Array(16) } },
      'state.encryption must be left out',
    ],
    ['with an AEAD and authentication', { auth: { name: 'hmac(sha256)', key: new Uint8Array(32) } }, 'state.auth'],
    [
      'of AH with a cipher',
      { protocol: 'ah', auth: { name: 'hmac(sha256)', key: new Uint8Array(32) } },
      'AH does not encrypt',
    ],
    ['of AH without authentication', { protocol: 'ah', aead: undefined }, 'AH authenticates'],
    [
      'with an empty key',
      { aead: gcm(new Uint8Array(0)) },
      'state.aead.key must be a Uint8Array or Key of 1 to 512 bytes',
    ],
    ['with a key of 513 bytes', { aead: gcm(new Uint8Array(513)) }, 'not 513 bytes'],
    ['with a key in text', { aead: { ...gcm(), key: 'secret' } }, 'state.aead.key'],
    ['with a wiped key', { aead: gcm(wiped()) }, 'state.aead.key'],
    ['with a name of 64 bytes', { aead: { ...gcm(), name: 'ä'.repeat(32) } }, 'state.aead.name must be'],
    ['with a zero in a name', { aead: { ...gcm(), name: 'gcm\0' } }, 'state.aead.name'],
    ['with ESN and no window', { esn: true }, 'state.replayWindow must be above 0 with extended sequence numbers'],
    ['with a window of 4097', { replayWindow: 4097 }, 'from 0 to 4096'],
    ['with an unknown flag', { flags: ['noecn', 'esn'] }, 'state.flags[1]'],
    [
      'with a port of 0',
      { encap: { type: 'espinudp', sourcePort: 0, destinationPort: 4500 } },
      'state.encap.sourcePort',
    ],
    ['with a mark beyond its mask', { mark: { value: 0x100, mask: 0xff } }, 'within the mask'],
    ['with half a mark', { mark: { value: 1 } }, 'state.mark.mask'],
    ['of interface id 0', { ifId: 0 }, 'state.ifId'],
    ['with a limit of 0', { limits: { byteHard: 0 } }, 'state.limits.byteHard'],
    ['with a limit that is none', { limits: { packetSoft: 2n ** 64n - 1n } }, 'state.limits.packetSoft'],
    ...['timeSoft', 'timeHard', 'timeUseSoft', 'timeUseHard'].flatMap((name) =>
      [2n ** 53n, 2n ** 63n, 2n ** 64n - 2n].map((seconds): [string, Record<string, unknown>, string] => [
        `with a ${name} of ${seconds} seconds, which the kernel may take for the past`,
        { limits: { [name]: seconds } },
        `state.limits.${name} must be an integer from 1 to 2^53 - 1`,
      ]),
    ),
    ['with a selector of a prefix too long', { selector: { source: '10.0.0.0/33' } }, 'state.selector.source'],
    [
      'with a selector of two families',
      { selector: { source: '10.0.0.0/8', destination: '::/0' } },
      'state.selector.destination',
    ],
  ]
  test.each(cases)('%s', (_, change, message) => {
    const options = { ...state, ...change }
    expect(refusal((batch) => batch.addState(options))).toContain(message)
  })
  test('that is no object', () =>
    expect(refusal((batch) => batch.addState(null as unknown as StateOptions))).toContain('state must be an object'))
})

describe('a policy is refused', () => {
  const template = (change: Record<string, unknown>) => ({ templates: [{ reqid: 1 }, change] })
  const cases: [string, Record<string, unknown>, string][] = [
    ['without a direction', { direction: undefined }, "policy.direction must be one of 'in', 'out', 'fwd'"],
    [
      'without an address',
      { selector: { protocol: 'udp' } },
      'policy.selector must be given a source or a destination',
    ],
    ['with an unknown protocol', { selector: { source: '::/0', protocol: 'udpp' } }, "did you mean 'udp'?"],
    ['with protocol 256', { selector: { source: '::/0', protocol: 256 } }, 'policy.selector.protocol'],
    ['with a port too high', { selector: { source: '::/0', sourcePort: 65536 } }, 'policy.selector.sourcePort'],
    ['with a prefix that is no number', { selector: { source: '10.0.0.0/8x' } }, 'policy.selector.source'],
    ['with an empty prefix', { selector: { source: '10.0.0.0/' } }, 'policy.selector.source'],
    ['with a mapped prefix too short', { selector: { source: '::ffff:10.0.0.0/95' } }, 'policy.selector.source'],
    ['with seven templates', { templates: Array(7).fill({}) }, 'at most 6 templates'],
    [
      'with a misspelled template option',
      template({ reqId: 1 }),
      "policy.templates[1].reqId must be left out: there is no such option (did you mean 'reqid'?)",
    ],
    ['with a template of another family in transport mode', template({ source: '::1' }), 'policy.templates[1] must be'],
    [
      'with a template of two families',
      template({ mode: 'tunnel', source: '::1', destination: '10.0.0.1' }),
      'policy.templates[1].destination',
    ],
    [
      'with an optional that is no boolean',
      template({ optional: 'use' }),
      'policy.templates[1].optional must be true or false',
    ],
    ['with an unknown action', { action: 'deny' }, "policy.action must be one of 'allow', 'block'"],
  ]
  test.each(cases)('%s', (_, change, message) => {
    const options = { ...policy, ...change }
    expect(refusal((batch) => batch.addPolicy(options))).toContain(message)
  })
})

describe('an update of a state', () => {
  const id = { destination: '10.0.0.2', spi: 1, protocol: 'esp' as const }
  test.each(['aead', 'auth', 'encryption', 'reqid', 'mode', 'replayWindow', 'esn', 'flags', 'extraFlags', 'selector'])(
    'is refused with %s, which the kernel would take and not change',
    (name) => {
      const options = { ...id, [name]: 1 } as unknown as StateOptions
      expect(refusal((batch) => batch.updateState(options))).toContain(
        `state.${name} must be left out: the kernel would`,
      )
    },
  )
  test('is refused with an output mark of 0', () => {
    expect(refusal((batch) => batch.updateState({ ...id, outputMark: 0 }))).toContain('state.outputMark')
  })
})

test('a batch is spent once taken', () => {
  const batch = new XfrmBatch()
  take(batch)
  expect(() => batch.addPolicy(policy)).toThrow(InvalidState)
  expect(() => take(batch)).toThrow(InvalidState)
})

test('operations bear the index that their method returned', () => {
  const batch = new XfrmBatch()
  expect(batch.addPolicy(policy)).toBe(0)
  expect(batch.deleteState({ destination: '10.0.0.2', spi: 1, protocol: 'esp' })).toBe(1)
  expect(() => batch.addState({} as StateOptions)).toThrow()
  expect(batch.deletePolicy({ direction: 'in', index: 8 })).toBe(2)
  expect(batch.size).toBe(3)
})

/** The same object, each property of which, at any depth, says 0 to whoever reads it a second time. */
function once(value: object, path = '', read: string[] = []): object {
  const fickle = Array.isArray(value) ? [] : {}
  for (const [name, held] of Object.entries(value) as [string, unknown][]) {
    const plain = typeof held !== 'object' || held === null || held instanceof Uint8Array
    const answers = [plain ? held : once(held, `${path}.${name}`, read)]
    const get = () => {
      read.push(`${path}.${name}`)
      return answers.pop() ?? 0
    }
    Object.defineProperty(fickle, name, { get, enumerable: true, configurable: true })
  }
  return fickle
}

const mark = { value: 1, mask: 0xff }
const limits = { byteHard: 5n, timeSoft: 6 }
const selector = {
  source: '10.0.0.0/8',
  destination: '10.1.0.0/16',
  protocol: 'udp' as const,
  sourcePort: { value: 1, mask: 3 },
  destinationPort: 4789,
  interfaceIndex: 3,
}
const template = {
  source: '10.0.0.1',
  destination: '10.0.0.2',
  spi: 7,
  protocol: 'esp' as const,
  mode: 'tunnel' as const,
  reqid: 9,
  optional: true,
}
const encap = { type: 'espinudp' as const, sourcePort: 4500, destinationPort: 4501 }
const stateName = { destination: '10.0.0.2', spi: 0x1000, protocol: 'esp' as const, source: '10.0.0.1', mark }
const fullState: StateOptions = {
  ...stateName,
  aead: gcm(),
  mode: 'tunnel',
  reqid: 4,
  replayWindow: 64,
  esn: true,
  encap,
  outputMark: mark,
  ifId: 5,
  flags: ['noecn', 'icmp'],
  extraFlags: ['oseq-may-wrap'],
  limits,
  selector,
}
const policyName = { direction: 'out' as const, selector, mark, ifId: 5 }
const changes: [string, (batch: XfrmBatch, wrapped: (value: object) => never) => number][] = [
  ['a state', (batch, wrapped) => batch.addState(wrapped(fullState))],
  [
    'a state of two algorithms',
    (batch, wrapped) =>
      batch.addState(
        wrapped({
          ...stateName,
          encryption: { name: 'cbc(aes)', key: new Uint8Array(16).fill(1) },
          auth: { name: 'hmac(sha256)', key: new Uint8Array(32).fill(1), truncateBits: 128 },
        }),
      ),
  ],
  [
    'an update of a state',
    (batch, wrapped) => batch.updateState(wrapped({ ...stateName, encap, outputMark: mark, ifId: 5, limits })),
  ],
  ["a state's name", (batch, wrapped) => batch.deleteState(wrapped(stateName))],
  [
    'a policy',
    (batch, wrapped) =>
      batch.addPolicy(
        wrapped({
          ...policyName,
          priority: 2,
          action: 'block',
          flags: ['icmp'],
          index: 8,
          limits,
          templates: [template, template],
        }),
      ),
  ],
  ["a policy's name", (batch, wrapped) => batch.deletePolicy(wrapped(policyName))],
  ["a policy's number", (batch, wrapped) => batch.deletePolicy(wrapped({ direction: 'in', index: 8 }))],
]

test.each(changes)('each property of %s is read once: what was checked is what is written', (_, change) => {
  const bytes = (wrapped: (value: object) => object) => {
    const batch = new XfrmBatch()
    change(batch, wrapped as (value: object) => never)
    return take(batch).records
  }
  const read: string[] = []
  expect(bytes((value) => once(value, '', read))).toEqual(bytes((value) => value))
  expect(read).toEqual([...new Set(read)])
})

test('a getter of what is being added cannot add to any batch, nor write into what is being written', () => {
  const batch = new XfrmBatch()
  for (const other of [batch, new XfrmBatch()]) {
    const given = {
      ...policy,
      get mark(): number {
        return other.addPolicy({ ...policy, templates: [{ reqid: 1 }] })
      },
    }
    expect(() => batch.addPolicy(given)).toThrow(InvalidState)
    expect([batch.size, other.size]).toEqual([0, 0])
  }
  batch.addPolicy(policy)
  expect(shown(batch).next()).toBe(true)
})

test('a misspelled option is refused where it is inherited', () => {
  const given = Object.assign(Object.create({ replaywindow: 32 }) as StateOptions, state)
  expect(refusal((batch) => batch.addState(given))).toContain("did you mean 'replayWindow'?")
})

test('a key is copied when it is given, once however often, and the copies can be overwritten', () => {
  const batch = new XfrmBatch()
  const bytes = new Uint8Array(20).fill(1)
  batch.addState({ ...state, aead: gcm(bytes) })
  batch.addState({ ...state, spi: 2, aead: gcm(new Key(bytes)) })
  bytes.fill(2)
  batch.addState({ ...state, spi: 3, aead: gcm(bytes) })
  bytes.fill(1)
  batch.addState({ ...state, spi: 4, aead: gcm(bytes) })
  const { tables } = take(batch)
  const copies = [...tables.keys]
  expect(copies.map((key) => [...key])).toEqual([Array(20).fill(1), Array(20).fill(2)])
  tables.wipe()
  expect(copies.every((key) => key.every((byte) => byte === 0))).toBe(true)
  expect(tables.keys).toEqual([])
})

test("a key given in a Buffer is copied too: neither's wiping is the other's", () => {
  const batch = new XfrmBatch()
  const bytes = Buffer.alloc(20, 1)
  const kept = Buffer.alloc(20, 2)
  batch.addState({ ...state, aead: gcm(bytes) })
  batch.addState({ ...state, spi: 2, aead: gcm(kept) })
  bytes.fill(0)
  const { tables } = take(batch)
  expect(tables.keys.map((key) => [...key])).toEqual([Array(20).fill(1), Array(20).fill(2)])
  tables.wipe()
  expect([...kept]).toEqual(Array(20).fill(2))
})

test('the copies lie where wiping leaves no others', () => {
  const count = 10_000
  const held = offHeapBytes(() => {
    const batch = new XfrmBatch()
    const bytes = new Uint8Array(20).fill(1)
    for (let i = 0; i < count; i++) {
      bytes[0] = i
      bytes[1] = i >> 8
      batch.addState({ ...state, aead: gcm(bytes) })
    }
    return take(batch).tables
  })
  expect(held).toBeGreaterThanOrEqual(count * 20)
})

test('a key whose salt is the SPI is held without it, once for all SAs of it', () => {
  const batch = new XfrmBatch()
  for (const spi of [0x01020304, 0xfffefdfc]) {
    const salt = [spi >>> 24, (spi >>> 16) & 255, (spi >>> 8) & 255, spi & 255]
    batch.addState({ ...state, spi, aead: gcm(Uint8Array.from([...Array<number>(16).fill(9), ...salt])) })
  }
  const { records, tables } = take(batch)
  expect(tables.keys.map((key) => key.length)).toEqual([16])
  const reader = new DumpReader(native.decode(native.encode(records, tables.keys, tables.algorithms), true))
  expect(reader.next()).toBe(true)
  const { aead } = reader.state()
  expect(aead?.key?.equals(Uint8Array.from([...Array<number>(16).fill(9), 1, 2, 3, 4]))).toBe(true)
})

test('nothing that a person may print of a batch or a state shows a key', () => {
  const secret = new Uint8Array(20).fill(0xab)
  const batch = new XfrmBatch()
  batch.addState({ ...state, aead: gcm(secret) })
  const texts = [inspect(batch, { depth: 9, showHidden: true }), JSON.stringify(batch)]
  const reader = shown(batch)
  expect(reader.next()).toBe(true)
  const { aead, source } = reader.state()
  expect(aead?.key?.equals(secret)).toBe(true)
  texts.push(
    inspect({ aead, source }, { depth: 9, showHidden: true }),
    JSON.stringify({ aead, source }),
    String(aead?.key),
  )
  for (const text of texts) expect(text).not.toMatch(/abab|q6ur|171|qqq/i)
})

const u32 = fc.integer({ min: 1, max: 0xffffffff })
const address = fc.oneof(
  fc.ipV4(),
  fc.ipV6().filter((text) => !text.includes('.')),
)
const policies = fc.record({
  direction: fc.constantFrom('in' as const, 'out' as const, 'fwd' as const),
  selector: fc.record({
    destination: fc.tuple(fc.ipV4(), fc.integer({ min: 0, max: 32 })).map(([text, length]) => `${text}/${length}`),
    source: fc.constant('0.0.0.0/0'),
    protocol: fc.constantFrom('udp' as const, 'tcp' as const, 99),
    sourcePort: fc.record({ value: fc.integer({ min: 0, max: 65535 }), mask: fc.integer({ min: 1, max: 65535 }) }),
    interfaceIndex: fc.integer({ min: 1, max: 0x7fffffff }),
  }),
  priority: u32,
  index: u32,
  action: fc.constantFrom('allow' as const, 'block' as const),
  mark: u32.map((mask) => ({ value: mask, mask })),
  ifId: u32,
  limits: fc.record({ byteSoft: fc.bigInt({ min: 1n, max: 2n ** 64n - 2n }), timeUseHard: u32 }),
})

test('what is asked of a policy is what it then shows', () => {
  fc.assert(
    fc.property(policies, (asked) => {
      const batch = new XfrmBatch()
      batch.addPolicy(asked)
      const reader = shown(batch)
      expect(reader.next()).toBe(true)
      expect(reader.policy()).toMatchObject(asked)
    }),
  )
})

const states = fc.record({
  destination: address,
  spi: u32,
  reqid: u32,
  mode: fc.constantFrom('tunnel' as const, 'transport' as const),
  protocol: fc.constant('esp' as const),
  replayWindow: fc.integer({ min: 1, max: 4096 }),
  esn: fc.boolean(),
  flags: fc
    .uniqueArray(fc.constantFrom('noecn' as const, 'icmp' as const, 'align4' as const))
    .map((list) => list.sort()),
  outputMark: u32.map((mask) => ({ value: mask, mask })),
  ifId: u32,
  encap: fc.record({
    type: fc.constantFrom('espinudp' as const, 'espintcp' as const),
    sourcePort: fc.integer({ min: 1, max: 65535 }),
    destinationPort: fc.integer({ min: 1, max: 65535 }),
  }),
})

test('limits are shown to the last second and byte, also those that only others can set', () => {
  const batch = new XfrmBatch()
  batch.addState({ ...state, limits: { byteHard: 2n ** 64n - 2n, timeHard: 2n ** 53n - 1n, timeSoft: 7n } })
  const { records, tables } = take(batch)
  const messages = native.encode(records, tables.keys, tables.algorithms)
  const reader = new DumpReader(native.decode(messages, true))
  expect(reader.next() && reader.state().limits).toEqual({
    byteHard: 2n ** 64n - 2n,
    timeHard: 2 ** 53 - 1,
    timeSoft: 7,
  })
  const at = Buffer.from(messages).indexOf(Buffer.from(BigUint64Array.of(2n ** 53n - 1n).buffer))
  new DataView(messages.buffer, messages.byteOffset).setBigUint64(at, 2n ** 64n - 3n, LITTLE_ENDIAN)
  const other = new DumpReader(native.decode(messages, true))
  expect(other.next() && other.state().limits.timeHard).toBe(2n ** 64n - 3n)
})

test('what is asked of a state is what it then shows, its key too', () => {
  fc.assert(
    fc.property(states, fc.uint8Array({ minLength: 1, maxLength: 40 }), (asked, bytes) => {
      fc.pre(bytes.some((byte) => byte !== 0))
      const batch = new XfrmBatch()
      batch.addState({ ...asked, source: asked.destination, aead: gcm(bytes) })
      const reader = shown(batch)
      expect(reader.next()).toBe(true)
      const found = reader.state()
      const { destination, flags, ...rest } = asked
      expect(found).toMatchObject(rest)
      expect([...found.flags].sort()).toEqual(flags)
      expect(found.source).toBe(found.destination)
      expect(found.aead?.key?.equals(bytes)).toBe(true)
      expect(found.destination).toBe(parsed(destination, 'destination').text)
    }),
  )
})

function wiped(): Key {
  const key = new Key(new Uint8Array(20))
  key.wipe()
  return key
}
