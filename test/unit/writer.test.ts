import { describe, expect, test } from 'vitest'
import { address } from '../../lib/base/address.js'
import { Operation, Policy, RecordReader, RecordWriter, State } from '../../lib/kernel/records.js'
import { type Form, SharedPolicy } from '../../lib/overlay/form.js'
import { Op, opHead } from '../../lib/overlay/ops.js'
import { suites } from '../../lib/overlay/suites.js'
import { algorithms, OpWriter } from '../../lib/overlay/writer.js'
import { form, key, type World, wish, world } from './model.js'

const XFRMA_ENCAP = 4
const XFRMA_TMPL = 5
const XFRMA_MARK = 21
const XFRMA_REPLAY_ESN_VAL = 23
const XFRMA_SET_MARK = 29
const XFRMA_MTIMER_THRESH = 32

/** Whichever: the plan's, and how it is derived is the plan's affair. */
const SPI = 0xcafe1234

function record(w: World, head: number, subject: number): RecordReader {
  const records = new RecordWriter()
  expect(OpWriter.of(w.should.form).write(records, head, subject, SPI, w.is, w.should)).toBe(true)
  const reader = new RecordReader(records.take())
  reader.next()
  expect(reader.length).toBe(reader.buffer.length)
  return reader
}

function fields<T extends Record<string, number>>(
  reader: RecordReader,
  widths: Record<keyof T, 1 | 2 | 4>,
  at: T,
): object {
  const read = { 1: 'u8', 2: 'u16', 4: 'u32' } as const
  return Object.fromEntries(Object.keys(widths).map((name) => [name, reader[read[widths[name]!]](at[name]!)]))
}

const stateWidths = {
  operation: 1,
  family: 1,
  protocol: 1,
  mode: 1,
  spi: 4,
  reqid: 4,
  flags: 1,
  replayWindow: 1,
  salted: 1,
  cipher: 1,
  cipherAlgorithm: 2,
  icvBits: 2,
  cipherKey: 4,
  authAlgorithm: 2,
  authTruncateBits: 2,
  authKey: 4,
  reserved: 4,
} as never
const policyWidths = {
  operation: 1,
  family: 1,
  direction: 1,
  action: 1,
  destinationPort: 2,
  destinationPortMask: 2,
  sourcePort: 2,
  sourcePortMask: 2,
  destinationPrefix: 1,
  sourcePrefix: 1,
  protocol: 1,
  flags: 1,
  interfaceIndex: 4,
  priority: 4,
  index: 4,
  share: 1,
  user: 4,
} as never

function tail(reader: RecordReader): Map<number, Uint8Array> {
  const types = [...reader.attributes()].map(([type]) => type)
  expect(types).toEqual([...types].sort((a, b) => a - b))
  return new Map(reader.attributes())
}

describe.each([
  { local: '10.0.0.1', peer: '10.0.0.2', family: 2, prefix: 32 },
  { local: '2001:db8::1', peer: '2001:db8::2', family: 10, prefix: 128 },
])('from $local', ({ local, peer, family, prefix }) => {
  const here = address(local, 'local').bytes
  const there = address(peer, 'peer').bytes
  const any = new Uint8Array(16)

  function one(options: Partial<Omit<Form, 'local' | 'spis'>> = {}): { w: World; slot: number } {
    const w = world(form({ ...options, local }), [1, 7])
    return { w, slot: wish(w, peer)[0]! }
  }

  test('an inbound SA', () => {
    const { w, slot } = one()
    const state = record(w, opHead(Op.addInbound, 1), slot)
    expect(fields(state, stateWidths, State)).toEqual({
      operation: Operation.addState,
      family,
      protocol: 50,
      mode: 0,
      spi: SPI,
      reqid: 0x58464d,
      flags: 0,
      replayWindow: 0,
      salted: 1,
      cipher: 1,
      cipherAlgorithm: 0,
      icvBits: 64,
      cipherKey: 1,
      authAlgorithm: 0xffff,
      authTruncateBits: 0,
      authKey: 0xffffffff,
      reserved: 0,
    })
    expect(state.address(State.source)).toEqual(there)
    expect(state.address(State.destination)).toEqual(here)
    expect(tail(state).size).toBe(0)
  })

  test('an outbound SA', () => {
    const { w, slot } = one({ suite: suites['aes-gcm-128'], mark: 0xffffffff })
    const state = record(w, opHead(Op.addOutbound, 0), slot)
    expect(fields(state, stateWidths, State)).toMatchObject({
      spi: SPI,
      reqid: 0xffffffff,
      icvBits: 128,
      cipherKey: 0,
    })
    expect(state.address(State.source)).toEqual(here)
    expect(state.address(State.destination)).toEqual(there)
  })

  test.each([
    [Op.deleteInbound, true],
    [Op.deleteOutbound, false],
  ])('a deletion (%i) names the SA and no key', (code, inbound) => {
    const { w, slot } = one({ replayWindow: 64 })
    const state = record(w, opHead(code, 1), slot)
    expect(fields(state, stateWidths, State)).toMatchObject({
      operation: Operation.deleteState,
      family,
      protocol: 50,
      spi: SPI,
      cipher: 0,
      salted: 0,
      cipherKey: 0xffffffff,
      authKey: 0xffffffff,
    })
    expect(state.address(State.destination)).toEqual(inbound ? here : there)
    expect(tail(state).size).toBe(0)
  })

  test.each([
    [Op.addInbound, Operation.addState, true],
    [Op.addOutbound, Operation.addState, false],
    [Op.updateInbound, Operation.updateState, true],
    [Op.updateOutbound, Operation.updateState, false],
  ])(
    'in UDP an SA (%i) has the ports of both ends, an inbound one a limit on what is told of others, an outbound one no mark for what it makes',
    (code, operation, inbound) => {
      const { w, slot } = one({ natPort: 4500, replayWindow: 64 })
      w.is.peers.port[slot] = 31234
      const state = record(w, opHead(code, 1), slot)
      expect(state.u8(State.operation)).toBe(operation)
      expect(state.u32(State.cipherKey)).toBe(1)
      const attributes = tail(state)
      expect([...attributes.keys()]).toEqual([
        XFRMA_ENCAP,
        XFRMA_REPLAY_ESN_VAL,
        inbound ? XFRMA_MTIMER_THRESH : XFRMA_SET_MARK,
      ])
      const encap = Buffer.from(attributes.get(XFRMA_ENCAP)!)
      // struct xfrm_encap_tmpl: a type of the host's, ports of the network's, an address that the kernel does not use.
      expect(encap.length).toBe(24)
      expect(new Uint16Array(encap.buffer.slice(encap.byteOffset, encap.byteOffset + 2))[0]).toBe(2)
      expect([encap.readUInt16BE(2), encap.readUInt16BE(4)]).toEqual(inbound ? [31234, 4500] : [4500, 31234])
      expect(encap.subarray(6)).toEqual(Buffer.alloc(18))
    },
  )

  test('a replay window up to 32 is in the head', () => {
    const { w, slot } = one({ replayWindow: 32 })
    const state = record(w, opHead(Op.addInbound, 0), slot)
    expect(state.u8(State.replayWindow)).toBe(32)
    expect(tail(state).size).toBe(0)
  })

  test.each([
    [33, false, 2],
    [64, false, 2],
    [4096, false, 128],
    [32, true, 1],
    [1, true, 1],
    [4096, true, 128],
  ])('a window of %i, ESN %s, is an attribute with %i words of bitmap', (replayWindow, esn, words) => {
    const { w, slot } = one({ replayWindow, esn })
    const state = record(w, opHead(Op.addInbound, 0), slot)
    expect(state.u8(State.replayWindow)).toBe(0)
    expect(state.u8(State.flags)).toBe(esn ? 128 : 0)
    const payload = tail(state).get(XFRMA_REPLAY_ESN_VAL)!
    expect([...new Uint32Array(payload.slice().buffer)]).toEqual([
      words,
      0,
      0,
      0,
      0,
      replayWindow,
      ...new Array<number>(words).fill(0),
    ])
  })

  function template(payload: Uint8Array): object {
    expect(payload).toHaveLength(64)
    const view = new DataView(payload.buffer, payload.byteOffset)
    const little = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1
    return {
      destination: payload.slice(0, 16),
      spi: view.getUint32(16, false),
      protocol: view.getUint32(20, true),
      family: view.getUint16(24, little),
      source: payload.slice(28, 44),
      reqid: view.getUint32(44, little),
      modeShareOptional: view.getUint32(48, little),
      algorithms: [52, 56, 60].map((at) => view.getUint32(at, little)),
    }
  }
  const everyAlgorithm = [0xffffffff, 0xffffffff, 0xffffffff]

  test("a peer's own policy", () => {
    const { w, slot } = one({ policies: 'per-peer' })
    for (const [code, operation] of [
      [Op.addPolicy, Operation.addPolicy],
      [Op.updatePolicy, Operation.updatePolicy],
    ] as const) {
      const policy = record(w, opHead(code, 1), slot)
      expect(fields(policy, policyWidths, Policy)).toEqual({
        operation,
        family,
        direction: 1,
        action: 0,
        destinationPort: 4789,
        destinationPortMask: 0xffff,
        sourcePort: 0,
        sourcePortMask: 0,
        destinationPrefix: prefix,
        sourcePrefix: prefix,
        protocol: 17,
        flags: 0,
        interfaceIndex: 0,
        priority: 0,
        index: 0,
        share: 0,
        user: 0,
      })
      expect(policy.address(Policy.source)).toEqual(here)
      expect(policy.address(Policy.destination)).toEqual(there)
      const attributes = tail(policy)
      expect([...attributes.keys()]).toEqual([XFRMA_TMPL, XFRMA_MARK])
      expect(template(attributes.get(XFRMA_TMPL)!)).toEqual({
        destination: there,
        spi: SPI,
        protocol: 50,
        family,
        source: here,
        reqid: 0x58464d,
        modeShareOptional: 0,
        algorithms: everyAlgorithm,
      })
      expect([...new Uint32Array(attributes.get(XFRMA_MARK)!.slice().buffer)]).toEqual([0x58464d, 0xffffffff])
    }
  })

  test("the deletion of a peer's own policy needs no key", () => {
    const { w, slot } = one({ policies: 'per-peer' })
    const policy = record(w, Op.deletePolicy, slot)
    expect(fields(policy, policyWidths, Policy)).toMatchObject({
      operation: Operation.deletePolicy,
      direction: 1,
      destinationPrefix: prefix,
    })
    expect([...tail(policy).keys()]).toEqual([XFRMA_MARK])
    const exclusive = one({ policies: 'per-peer', exclusive: true })
    expect(tail(record(exclusive.w, Op.deletePolicy, exclusive.slot)).size).toBe(0)
  })

  test.each([
    [SharedPolicy.out, 'shared', false],
    [SharedPolicy.out, 'shared', true],
    [SharedPolicy.in, 'shared', true],
    [SharedPolicy.rest, 'per-peer', true],
    [SharedPolicy.through, 'shared', true],
  ] as const)('the shared policy %i of %s, exclusive %s', (which, policies, exclusive) => {
    const { w, slot } = one({ policies, exclusive, port: 8472 })
    // What was written for a peer before must not shine through.
    const records = new RecordWriter()
    const writer = OpWriter.of(w.should.form)
    writer.write(records, opHead(Op.addPolicy, 0), slot, SPI, w.is, w.should)
    records.take()
    for (const [code, operation] of [
      [Op.addShared, Operation.addPolicy],
      [Op.updateShared, Operation.updatePolicy],
    ] as const) {
      writer.write(records, code, which, 0, w.is, w.should)
      const policy = new RecordReader(records.take())
      policy.next()
      expect(fields(policy, policyWidths, Policy)).toMatchObject({
        operation,
        family,
        direction: which === SharedPolicy.in ? 0 : which === SharedPolicy.through ? 2 : 1,
        action: 0,
        destinationPort: 8472,
        destinationPortMask: 0xffff,
        destinationPrefix: 0,
        // A second address of the node must be no way round.
        sourcePrefix: exclusive ? 0 : prefix,
        protocol: 17,
        priority: which === SharedPolicy.rest ? 1 : 0,
      })
      expect(policy.address(Policy.source)).toEqual(exclusive ? any : here)
      expect(policy.address(Policy.destination)).toEqual(any)
      const attributes = tail(policy)
      expect([...attributes.keys()]).toEqual(exclusive ? [XFRMA_TMPL] : [XFRMA_TMPL, XFRMA_MARK])
      expect(template(attributes.get(XFRMA_TMPL)!)).toEqual({
        destination: any,
        spi: 0,
        protocol: 50,
        family,
        source: any,
        reqid: 0x58464d,
        modeShareOptional: 0,
        algorithms: everyAlgorithm,
      })
    }
    const deletion = record(w, Op.deleteShared, which)
    expect(deletion.u8(Policy.operation)).toBe(Operation.deletePolicy)
    expect([...tail(deletion).keys()]).toEqual(exclusive ? [] : [XFRMA_MARK])
  })
})

test('sharing takes no message', () => {
  const w = world(form(), [1])
  const [slot] = wish(w, '10.0.0.2')
  const records = new RecordWriter()
  const writer = OpWriter.of(w.should.form)
  expect(writer.write(records, opHead(Op.shareInbound, 0), slot!, SPI, w.is, w.should)).toBe(false)
  expect(writer.write(records, opHead(Op.unshareInbound, 0), slot!, SPI, w.is, w.should)).toBe(false)
  expect(records.count).toBe(0)
})

test('what is stale is deleted as it was found', () => {
  const w = world(form(), [1])
  const [slot] = wish(w, '10.0.0.2')
  const found = new RecordWriter()
  found.begin(Operation.addState)
  found.begin(Operation.addState)
  found.u32(State.spi, 4711)
  found.attribute(XFRMA_MARK, Uint8Array.of(1, 0, 0, 0, 255, 0, 0, 0))
  const dump = found.take()
  // In the middle of a larger buffer, as what the addon gives may be.
  const records = new Uint8Array([...new Array<number>(16).fill(0xee), ...dump]).subarray(16)
  const list = { records, at: [72] }
  const damage = { stale: { states: list, policies: list } }
  const writer = OpWriter.of(w.should.form)
  for (const [code, operation] of [
    [Op.deleteStaleState, Operation.deleteState],
    [Op.deleteStalePolicy, Operation.deletePolicy],
  ] as const) {
    const out = new RecordWriter()
    writer.write(out, code, 72, 0, w.is, w.should, damage)
    const taken = out.take()
    expect(taken[State.operation]).toBe(operation)
    expect(taken.slice(State.family)).toEqual(dump.slice(72 + State.family))
  }
  expect(slot).toBe(0)
})

test('keys of one value are named by one index', () => {
  const w = world(form())
  w.should = { ...w.should, keyring: w.should.keyring.set([key(1), key(2), key(3, 1)]) }
  const [slot] = wish(w, '10.0.0.2')
  expect([0, 1, 2].map((each) => record(w, opHead(Op.addInbound, each), slot!).u32(State.cipherKey))).toEqual([0, 1, 0])
})

test('the one algorithm is the suite’s', () => {
  expect(algorithms(form({ suite: suites['chacha20-poly1305'] }))).toEqual(['rfc7539esp(chacha20,poly1305)'])
})
