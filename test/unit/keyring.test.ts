import { inspect } from 'node:util'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { InvalidArgument, InvalidState } from '../../lib/base/errors.js'
import { reveal } from '../../lib/base/key.js'
import { type KeyInput, Keyring, MAX_KEYS } from '../../lib/overlay/keyring.js'
import { suites } from '../../lib/overlay/suites.js'

const empty = Keyring.empty(suites['aes-gcm-64'])

/** A key that no other tag has. */
function key(tag: number, fill = tag): KeyInput {
  return { tag, value: new Uint8Array(16).fill(fill + 1) }
}

function keys(...tags: number[]): KeyInput[] {
  return tags.map((tag) => key(tag))
}

function refusal(change: () => unknown, type: typeof InvalidArgument | typeof InvalidState = InvalidArgument): string {
  try {
    change()
  } catch (error) {
    expect(error).toBeInstanceOf(type)
    return (error as Error).message
  }
  throw new Error('was not refused')
}

describe('set', () => {
  test('makes the first key primary and keeps the order', () => {
    const keyring = empty.set(keys(7, 3, 5))
    expect(keyring.tags).toEqual([7, 3, 5])
    expect(keyring.tag(keyring.primary)).toBe(7)
    expect(keyring.size).toBe(3)
    expect(keyring.all).toBe(0b111)
    expect(keyring.retired).toBe(0)
    expect(keyring.find(5)).toBe(2)
    expect(keyring.find(6)).toBe(-1)
  })

  test('leaves the keyring it was called on as it was', () => {
    const before = empty.set(keys(1, 2))
    before.set(keys(3))
    before.update({ add: key(4), primary: 4, prune: 1 })
    expect(before.tags).toEqual([1, 2])
    expect(before.retired).toBe(0)
    expect(empty.size).toBe(0)
    expect(empty.primary).toBe(-1)
  })

  test('keeps the slots of keys kept, in whatever order, and retires the rest', () => {
    const before = empty.set(keys(1, 2, 3))
    const after = before.set(keys(3, 9, 1))
    expect(after.tags).toEqual([3, 9, 1])
    expect(after.find(3)).toBe(before.find(3))
    expect(after.find(1)).toBe(before.find(1))
    expect(after.find(2)).toBe(-1)
    expect(after.retired).toBe(1 << before.find(2))
    expect(after.tag(before.find(2))).toBe(2)
    expect(after.find(9)).toBe(3)
    expect(after.all).toBe(0b1101)
  })

  test('copies the values', () => {
    const input = key(1)
    const keyring = empty.set([input])
    input.value.fill(0)
    expect(reveal(keyring.key(0))).toEqual(new Uint8Array(16).fill(2))
  })

  test('takes tags from 0 to 2^32 - 1 and lengths that the suite takes', () => {
    expect(empty.set(keys(0, 0xffffffff)).tags).toEqual([0, 0xffffffff])
    for (const length of [16, 24, 32]) expect(empty.set([{ tag: 1, value: Buffer.alloc(length, 1) }]).size).toBe(1)
    const chacha = Keyring.empty(suites['chacha20-poly1305'])
    expect(chacha.set([{ tag: 1, value: Buffer.alloc(32, 1) }]).size).toBe(1)
    expect(refusal(() => chacha.set(keys(1)))).toBe(
      'keys[0].value must be a Uint8Array of 32 bytes, as chacha20-poly1305 takes, not 16 bytes',
    )
  })

  test('takes an entirely different list of as many keys as there may be', () => {
    const first = Array.from({ length: MAX_KEYS }, (_, i) => i)
    const before = empty.set(keys(...first))
    const after = before.set(keys(...first.map((tag) => tag + 100)))
    expect(after.size).toBe(MAX_KEYS)
    expect(after.all & after.retired).toBe(0)
    expect((after.all | after.retired) >>> 0).toBe(0xffffffff)
    expect(after.all).toBe(0xffff0000)
  })

  test.each<[string, unknown, string]>([
    ['nothing', undefined, 'keys must be an array'],
    ['a string', '00'.repeat(16), 'keys must be an array'],
    ['no keys', [], 'keys must be an array of 1 to 16 keys, not an array of 0'],
    ['too many', keys(...Array(17).keys()), 'keys must be an array of 1 to 16 keys, not an array of 17'],
    ['bytes alone', [new Uint8Array(16)], 'keys[0].0 must be left out: there is no such option; there are tag, value'],
    ['hex alone', ['00'.repeat(16)], 'keys[0] must be an object'],
    [
      'a misspelling',
      [{ tga: 1, value: new Uint8Array(16) }],
      `keys[0].tga must be left out: there is no such option (did you mean 'tag'?)`,
    ],
    ['a tag twice', keys(1, 2, 1), 'keys[2].tag must be another tag than keys[0] has, not 1'],
    ['a tag below 0', [key(-1)], 'keys[0].tag must be an integer from 0 to 4294967295, not -1'],
    ['a tag too large', [key(1), key(2 ** 32)], 'keys[1].tag must be an integer from 0 to 4294967295, not 4294967296'],
    ['a fraction', [key(1.5)], 'keys[0].tag must be an integer from 0 to 4294967295, not 1.5'],
    ['hex for a tag', [{ tag: '00'.repeat(16), value: 1 }], 'keys[0].tag must be an integer from 0 to 4294967295'],
    [
      'hex for bytes',
      [{ tag: 1, value: '00'.repeat(16) }],
      'keys[0].value must be a Uint8Array of 16, 24 or 32 bytes, as aes-gcm-64 takes',
    ],
    [
      'numbers for bytes',
      [{ tag: 1, value: [1, 2] }],
      'keys[0].value must be a Uint8Array of 16, 24 or 32 bytes, as aes-gcm-64 takes, not an array of 2',
    ],
    [
      'other typed arrays',
      [{ tag: 1, value: new Uint16Array(8) }],
      'keys[0].value must be a Uint8Array of 16, 24 or 32 bytes, as aes-gcm-64 takes, not 16 bytes',
    ],
    [
      'a key with its salt',
      [{ tag: 1, value: new Uint8Array(20) }],
      'keys[0].value must be a Uint8Array of 16, 24 or 32 bytes, as aes-gcm-64 takes, not 20 bytes',
    ],
  ])('refuses %s', (_, given, message) => {
    expect(refusal(() => empty.set(given))).toBe(message)
  })

  test('refuses a tag in use with another value', () => {
    const before = empty.set(keys(1, 2))
    expect(refusal(() => before.set([key(2), key(1, 50)]))).toBe(
      'keys[1].value must be the value that tag 1 stands for already (the same tag means the same SPIs): give another value another tag',
    )
  })
})

describe('retired keys', () => {
  test('live on in their slots until they are forgotten, then are wiped', () => {
    const retiring = empty.set(keys(1, 2)).set(keys(2))
    const slot = 0
    expect(retiring.tag(slot)).toBe(1)
    const old = retiring.key(slot)
    expect(reveal(old)).toEqual(new Uint8Array(16).fill(2))
    const forgotten = retiring.forget(1 << slot)
    expect(forgotten.retired).toBe(0)
    expect(old.length).toBe(0)
    expect(forgotten.sideTable().map((bytes) => bytes.length)).toEqual([0, 16])
    expect(forgotten.set(keys(2, 3)).find(3)).toBe(slot)
  })

  test('are all that forget() forgets', () => {
    const keyring = empty.set(keys(1, 2)).set(keys(2)).forget(0xffffffff)
    expect(keyring.tags).toEqual([2])
    expect(reveal(keyring.key(1))).toHaveLength(16)
  })

  test('come back into their slots with the same value, and are refused with another', () => {
    const retiring = empty.set(keys(1, 2)).set(keys(2))
    const revived = retiring.set(keys(2, 1))
    expect(revived.find(1)).toBe(0)
    expect(revived.retired).toBe(0)
    expect(retiring.update({ add: key(1) }).find(1)).toBe(0)
    expect(refusal(() => retiring.update({ add: key(1, 50) }))).toBe(
      'add.value must be the value that tag 1 stands for already, in SAs that are not all gone yet (the same tag means the same SPIs): give another value another tag',
    )
    expect(retiring.forget(1).update({ add: key(1, 50) }).tags).toEqual([2, 1])
  })

  test('may fill all slots: then there is no room for new keys, which is said', () => {
    const sixteen = (from: number) => keys(...Array.from({ length: MAX_KEYS }, (_, i) => from + i))
    const full = empty.set(sixteen(0)).set(sixteen(100))
    expect(refusal(() => full.set(keys(200)), InvalidState)).toMatch(
      /^no room for key 200: 32 keys may live at once, and SAs of keys 0, 1, .* are not all gone yet; reconcile\(\) removes them$/,
    )
    expect(full.forget(full.retired).set(keys(200)).tags).toEqual([200])
  })
})

test('wipe() leaves no byte of any key, retired ones included', () => {
  const keyring = empty.set(keys(1, 2)).set(keys(2, 3))
  const views = keyring.sideTable()
  keyring.wipe()
  expect(views).toEqual([0, 1, 2].map(() => new Uint8Array(16)))
})

test('keys of one value are one key in records, under whatever tags', () => {
  const keyring = empty.set([key(1), key(2, 50), key(3, 1), key(4, 50)])
  expect(keyring.slots.map((slot) => keyring.index(slot))).toEqual([0, 1, 0, 1])
  expect(
    keyring
      .set([key(4, 50)])
      .forget(0b0111)
      .index(3),
  ).toBe(3)
})

describe('update', () => {
  const before = empty.set(keys(1, 2, 3))

  test.each<[string, object, number[]]>([
    ['adds a key, last', { add: key(4) }, [1, 2, 3, 4]],
    ['makes a key primary', { primary: 3 }, [3, 1, 2]],
    ['prunes a key', { prune: 2 }, [1, 3]],
    ['adds and makes primary', { add: key(4), primary: 4 }, [4, 1, 2, 3]],
    ['makes primary and prunes the one that was', { primary: 2, prune: 1 }, [2, 3]],
    ['adds and prunes', { add: key(4), prune: 3 }, [1, 2, 4]],
    ['does all three', { add: key(4), primary: 4, prune: 1 }, [4, 2, 3]],
    ['does all three in the way of a rotation', { add: key(4), primary: 2, prune: 1 }, [2, 3, 4]],
    ['takes a key that is there already', { add: key(2) }, [1, 2, 3]],
    ['takes the primary as primary', { primary: 1 }, [1, 2, 3]],
    ['takes undefined for what is left out', { add: undefined, primary: 2, prune: undefined }, [2, 1, 3]],
  ])('%s', (_, change, tags) => {
    const after = before.update(change)
    expect(after.tags).toEqual(tags)
    for (const tag of [1, 2, 3]) if (tags.includes(tag)) expect(after.find(tag)).toBe(before.find(tag))
    expect(after.retired).toBe(
      [1, 2, 3].filter((tag) => !tags.includes(tag)).reduce((mask, tag) => mask | (1 << before.find(tag)), 0),
    )
  })

  test.each<[string, unknown, string]>([
    ['nothing', undefined, 'update must be an object'],
    ['no change', {}, `update must be an object with at least one of 'add', 'primary', 'prune'`],
    ['a misspelling', { purne: 1 }, `update.purne must be left out: there is no such option (did you mean 'prune'?)`],
    ['an unknown primary', { primary: 9 }, 'primary must be the tag of a key: 1, 2, 3, not 9'],
    ['an unknown prune', { prune: 9 }, 'prune must be the tag of a key: 1, 2, 3, not 9'],
    [
      'an unknown primary beside an added key',
      { add: key(4), primary: 5 },
      'primary must be the tag of a key: 1, 2, 3, 4, not 5',
    ],
    ['a key for a tag', { primary: { tag: 2 } }, 'primary must be an integer from 0 to 4294967295, not an object'],
    ['making primary and pruning at once', { primary: 2, prune: 2 }, `prune must be another tag than 'primary', not 2`],
    ['adding and pruning at once', { add: key(4), prune: 4 }, `prune must be another tag than 'add' has, not 4`],
    [
      'pruning the primary with no successor',
      { prune: 1 },
      `prune must be the tag of a key that is not primary, or come with the tag of another as 'primary': key 1 is the one that encrypts, not 1`,
    ],
    ['pruning the primary for itself', { primary: 1, prune: 1 }, `prune must be another tag than 'primary', not 1`],
    [
      'another value under a tag',
      { add: key(2, 50) },
      'add.value must be the value that tag 2 stands for already (the same tag means the same SPIs): give another value another tag',
    ],
    [
      'a wrong length',
      { add: { tag: 4, value: new Uint8Array(15) } },
      'add.value must be a Uint8Array of 16, 24 or 32 bytes, as aes-gcm-64 takes, not 15 bytes',
    ],
    ['a tag out of range', { add: key(-4) }, 'add.tag must be an integer from 0 to 4294967295, not -4'],
  ])('refuses %s', (_, change, message) => {
    expect(refusal(() => before.update(change))).toBe(message)
  })

  test('refuses to prune the last key', () => {
    expect(refusal(() => empty.set(keys(5)).update({ prune: 5 }))).toBe('prune must be left out: key 5 is the last one')
    expect(empty.set(keys(5)).update({ add: key(6), primary: 6, prune: 5 }).tags).toEqual([6])
  })

  test('refuses one key too many, unless it prunes one', () => {
    const full = empty.set(keys(...Array(MAX_KEYS).keys()))
    expect(refusal(() => full.update({ add: key(99) }))).toBe(
      'add must be left out, or come with a tag to prune: there are 16 keys, as many as there may be',
    )
    expect(full.update({ add: key(99), prune: 3 }).size).toBe(MAX_KEYS)
  })

  test('is refused before keys were set', () => {
    expect(refusal(() => empty.update({ add: key(1) }), InvalidState)).toBe(
      'there are no keys to update yet: call setKeys() first',
    )
  })
})

test('no refusal shows key bytes, wherever they stand', () => {
  const hex = '00112233445566778899aabbccddeeff'
  const bytes = Buffer.from(hex, 'hex')
  const keyring = empty.set([{ tag: 1, value: bytes }])
  const wrong = [hex, bytes, [...bytes], BigInt(`0x${hex}`), bytes.toString('base64'), { hex }]
  const messages = wrong.flatMap((value) =>
    [
      () => keyring.set(value),
      () => keyring.set([value]),
      () => keyring.set([{ tag: value, value: bytes }]),
      () => keyring.set([{ tag: 2, value }, 0]),
      () => keyring.update(value),
      () => keyring.update({ add: value }),
      () => keyring.update({ primary: value }),
      () => keyring.update({ prune: value }),
    ].map((change) =>
      inspect(
        (() => {
          try {
            return change()
          } catch (error) {
            return (error as Error).message
          }
        })(),
      ),
    ),
  )
  for (const message of messages) {
    for (const form of [
      hex,
      '00112233',
      '1122867',
      String(BigInt(`0x${hex}`)),
      bytes.toString('base64'),
      '17, 34',
      '17,34',
    ]) {
      expect(message).not.toContain(form)
    }
  }
  expect(inspect(keyring, { depth: 9, showHidden: true })).not.toMatch(/0x11|17, 34|00 11 22|001122/)
})

test('slots are stable and disjoint through any changes', () => {
  const tag = fc.integer({ min: 0, max: 40 })
  const change = fc.oneof(
    fc.uniqueArray(tag, { minLength: 1, maxLength: MAX_KEYS }).map((tags) => ({ set: keys(...tags) })),
    fc
      .record({ add: tag.map((t) => key(t)), primary: tag, prune: tag }, { requiredKeys: [] })
      .map((update) => ({ update })),
    fc.integer().map((forget) => ({ forget })),
  )
  fc.assert(
    fc.property(fc.array(change, { maxLength: 30 }), (changes) => {
      let keyring = empty
      for (const step of changes) {
        const before = keyring
        try {
          if ('set' in step) keyring = keyring.set(step.set)
          else if ('update' in step) keyring = keyring.update(step.update)
          else keyring = keyring.forget(step.forget)
        } catch (error) {
          if (!(error instanceof InvalidArgument || error instanceof InvalidState)) throw error
        }
        expect(keyring.all & keyring.retired).toBe(0)
        expect(new Set(keyring.tags).size).toBe(keyring.size)
        expect(keyring.size).toBeLessThanOrEqual(MAX_KEYS)
        for (const t of keyring.tags) {
          expect(reveal(keyring.key(keyring.find(t)))).toEqual(key(t).value)
          if (before.find(t) >= 0) expect(keyring.find(t)).toBe(before.find(t))
        }
        if (!('forget' in step)) expect((before.all | before.retired) & ~(keyring.all | keyring.retired)).toBe(0)
        const table = keyring.sideTable()
        table.forEach((bytes, slot) =>
          expect(bytes.length > 0).toBe((((keyring.all | keyring.retired) >>> slot) & 1) === 1),
        )
      }
    }),
    { numRuns: 500 },
  )
})
