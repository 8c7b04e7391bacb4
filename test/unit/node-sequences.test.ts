import { describe, expect, test } from 'vitest'
import { attributeAt } from '../../lib/kernel/record-identity.js'
import { appendPlain, detailsOf } from '../../lib/kernel/record-details.js'
import { Operation, RecordWriter, State, Tail } from '../../lib/kernel/records.js'
import { XFRMA } from '../../lib/kernel/xfrm-names.js'
import { replayState, sequenceNumbers } from '../../lib/kernel/xfrm-replay.js'
import { printOf, Sequences } from '../../lib/node/sequences.js'

const NONE = { sent: 0n, received: 0n }
const WINDOW = 1024
/** What a sender leaps at most. */
const FARTHEST = 2n ** 31n - 2n * BigInt(WINDOW)

/** A state's record; its address and SPI tell it from others. */
function state(spi: number, tails: (into: RecordWriter) => void = () => undefined): Uint8Array {
  const writer = new RecordWriter()
  writer.begin(Operation.addState)
  writer.u8(State.family, 2)
  writer.u32(State.spi, spi)
  writer.attribute(XFRMA.REPLAY_ESN_VAL, replayState(WINDOW))
  tails(writer)
  return writer.take()
}

const numbersOf = (record: Uint8Array) => sequenceNumbers(record, attributeAt(record, 0, XFRMA.REPLAY_ESN_VAL))

describe('sequence numbers', () => {
  /** What an SA begins with that is added at a time, by its keys. */
  function at(clock: { now: number }, sequences: Sequences) {
    return (ms: number, keys: string, isInbound = false, spi = 0x103) => {
      clock.now = ms
      const record = state(spi)
      sequences.start(record, 0, keys, isInbound)
      return numbersOf(record)
    }
  }
  function begun() {
    const clock = { now: 0 }
    const sequences = new Sequences(() => clock.now)
    return { clock, sequences, added: at(clock, sequences) }
  }

  test('a new SA starts at nought, and so does one of other keys', () => {
    const { added } = begun()
    expect(added(0, 'a')).toEqual(NONE)
    expect(added(0, 'b')).toEqual(NONE)
    expect(added(0, 'b', false, 0x203)).toEqual(NONE)
  })

  test('a sender that is put back goes on beyond all that it can have sent since it was seen', () => {
    const { clock, sequences, added } = begun()
    added(0, 'a')
    // A million packets a second, and the window.
    expect(added(1000, 'a').sent).toBe(BigInt(2 ** 20 + WINDOW))
    clock.now = 5000
    sequences.saw(state(0x103), 0, 'a', { sent: 10_000_000n, received: 0n })
    expect(added(5000, 'a').sent).toBe(10_000_000n + BigInt(WINDOW))
    // Again, though it has not been seen since.
    expect(added(7000, 'a').sent).toBe(10_000_000n + BigInt(2 * WINDOW + 2 * 2 ** 20))
  })

  test('it goes on by no more than the receiver can follow, however long ago it was seen', () => {
    const { sequences, added } = begun()
    sequences.saw(state(0x103), 0, 'a', { sent: 2n ** 32n + 5n, received: 0n })
    expect(added(1e9, 'a').sent).toBe(2n ** 32n + 5n + FARTHEST)
  })

  test('a receiver that is put back takes nothing again that it can have taken', () => {
    const { sequences, added } = begun()
    sequences.saw(state(0x103), 0, 'a', { sent: 0n, received: 2n ** 33n + 7n })
    const record = state(0x103)
    sequences.start(record, 0, 'a', true)
    expect(numbersOf(record)).toEqual({ sent: 0n, received: 2n ** 33n + 7n })
    const replay = attributeAt(record, 0, XFRMA.REPLAY_ESN_VAL)
    expect([...record.subarray(replay + 24, replay + 24 + WINDOW / 8)].every((byte) => byte === 0xff)).toBe(true)
    expect(added(0, 'b', true)).toEqual(NONE)
  })

  test('leaps add up to no more than the receiver can follow, and then it is said', () => {
    const clock = { now: 0 }
    const sequences = new Sequences(() => clock.now)
    sequences.saw(state(0x103), 0, 'a', { sent: 7n, received: 0n })
    const begun = Array.from({ length: 4 }, () => {
      clock.now += 1e9
      const record = state(0x103)
      const follows = sequences.start(record, 0, 'a', false)
      // It has sent nothing when it is seen, and is lost again.
      sequences.saw(state(0x103), 0, 'a', numbersOf(record))
      return [numbersOf(record).sent, follows]
    })
    // Of what it had sent before it was seen nothing is known to have arrived.
    const farthest = 2n ** 32n - 2n * BigInt(WINDOW)
    expect(begun).toEqual([
      [7n + FARTHEST, true],
      [7n + 2n * FARTHEST, true],
      [farthest, false],
      [farthest, false],
    ])
    // Once it has sent, the receiver has gone on.
    sequences.saw(state(0x103), 0, 'a', { sent: farthest + 1n, received: 0n })
    expect(sequences.start(state(0x103), 0, 'a', false)).toBe(true)
  })

  test("another tool's SA in the place of one of ours does not make it forget", () => {
    const { sequences, added } = begun()
    sequences.saw(state(0x103), 0, 'a', { sent: 0n, received: 7n })
    sequences.saw(state(0x103), 0, 'theirs', { sent: 0n, received: 1n })
    expect(added(0, 'a', true).received).toBe(7n)
  })

  test('a sender begins half way where an earlier process may have sent under the key', () => {
    const { sequences, added } = begun()
    sequences.met(3)
    expect(added(0, 'a').sent).toBe(2n ** 31n)
    expect(added(0, 'a', true, 0x203)).toEqual(NONE)
    // Of a key that is new here all is known.
    expect(added(0, 'a', false, 0x104)).toEqual(NONE)
    sequences.met(4)
    expect(added(0, 'a', false, 0x204)).toEqual(NONE)
  })

  test('a key that is no more is forgotten', () => {
    const { sequences, added } = begun()
    sequences.met(3)
    sequences.saw(state(0x103), 0, 'a', { sent: 7n, received: 0n })
    sequences.saw(state(0x104), 0, 'a', { sent: 7n, received: 0n })
    sequences.forget((id) => id === 3)
    expect(added(0, 'a')).toEqual(NONE)
    expect(added(0, 'a', false, 0x104).sent).toBe(7n + BigInt(WINDOW))
  })

  test('a print tells keys apart and shows none', () => {
    const key = Uint8Array.from({ length: 20 }, (_, i) => i)
    const prints = [printOf(key, undefined), printOf(key.slice(1), undefined), printOf(undefined, undefined)]
    expect(new Set(prints).size).toBe(3)
    expect(prints.every((print) => print.length === 16)).toBe(true)
  })
})

describe('what changes by itself in the record of a state', () => {
  const detailed = state(0x103, (into) => {
    into.attribute(XFRMA.SET_MARK, new Uint8Array(4).fill(7))
    into.attribute(Tail.selector, new Uint8Array(56))
    into.attribute(Tail.current, new Uint8Array(BigUint64Array.of(10n, 20n, 1_700_000_000n, 0n).buffer))
    into.attribute(Tail.statistics, new Uint8Array(12))
    into.attribute(Tail.sequence, new Uint8Array(4))
  })
  const replay = attributeAt(detailed, 0, XFRMA.REPLAY_ESN_VAL)
  detailed.set(replayState(WINDOW, { sent: 2n ** 40n + 1n, received: 3n }), replay)
  const copied = (andNumbers: boolean) => {
    const writer = new RecordWriter()
    appendPlain(writer, detailed, 0, andNumbers)
    return writer.take()
  }

  test('is told', () => {
    expect(detailsOf(detailed, 0)).toEqual({ added: 1_700_000_000, numbers: { sent: 2n ** 40n + 1n, received: 3n } })
  })

  test('is left out, so that the rest is what was asked for', () => {
    const asked = state(0x103, (into) => {
      into.attribute(XFRMA.SET_MARK, new Uint8Array(4).fill(7))
      into.attribute(Tail.selector, new Uint8Array(56))
    })
    expect(copied(false)).toEqual(asked)
  })

  test('but for the replay state, where the SA is to be put back', () => {
    expect(numbersOf(copied(true))).toEqual({ sent: 2n ** 40n + 1n, received: 3n })
    expect(attributeAt(copied(true), 0, Tail.current)).toBe(-1)
  })
})
