import { describe, expect, test } from 'vitest'
import { array, boolean, integer, namespace, nearest, oneOf, options, U32 } from '../../lib/base/check.js'
import { InvalidArgument } from '../../lib/base/errors.js'

function refusal(check: () => unknown): string {
  try {
    check()
  } catch (error) {
    expect(error).toBeInstanceOf(InvalidArgument)
    return (error as Error).message
  }
  throw new Error('was not refused')
}

test('integer takes whole numbers within its bounds', () => {
  expect(integer(0, 'n', 0, U32)).toBe(0)
  expect(integer(U32, 'n', 0, U32)).toBe(U32)
})

test.each([
  [-1, '-1'],
  [4294967296, '4294967296'],
  [1.5, '1.5'],
  [NaN, 'NaN'],
  [Infinity, 'Infinity'],
  ['1', '"1"'],
  [1n, '1n'],
  [null, 'null'],
  [true, 'true'],
  [[1], 'an array of 1'],
  [{}, 'an object'],
  [() => 1, 'a function'],
])('integer refuses %s', (value, shown) => {
  expect(refusal(() => integer(value, 'mark', 0, U32))).toBe(
    `mark must be an integer from 0 to 4294967295, not ${shown}`,
  )
})

test('boolean takes no truthy stand-in', () => {
  expect(boolean(false, 'esn')).toBe(false)
  expect(refusal(() => boolean(1, 'esn'))).toBe('esn must be true or false, not 1')
})

describe('oneOf', () => {
  const names = ['aes-gcm-64', 'aes-gcm-128', 'chacha20-poly1305']
  test('names the nearest', () => {
    expect(oneOf('aes-gcm-64', 'suite', names)).toBe('aes-gcm-64')
    expect(refusal(() => oneOf('AES_GCM_128', 'suite', names))).toBe(
      `suite must be one of 'aes-gcm-64', 'aes-gcm-128', 'chacha20-poly1305' (did you mean 'aes-gcm-128'?), not "AES_GCM_128"`,
    )
  })
  test('names none where none is near', () => {
    expect(refusal(() => oneOf('rot13', 'suite', names))).not.toContain('did you mean')
    expect(refusal(() => oneOf(undefined, 'suite', names))).toBe(
      `suite must be one of 'aes-gcm-64', 'aes-gcm-128', 'chacha20-poly1305'`,
    )
  })
})

describe('options', () => {
  const known = ['local', 'exclusive'] as const
  test('gives back an object of known options', () => {
    const given = { local: 'x' }
    expect(options<{ local?: string; exclusive?: boolean }>(given, 'options', known)).toEqual(given)
  })
  test('refuses an unknown one, with the nearest or the list', () => {
    expect(refusal(() => options({ exclusiv: true }, 'options', known as never))).toBe(
      `options.exclusiv must be left out: there is no such option (did you mean 'exclusive'?)`,
    )
    expect(refusal(() => options({ zzzzzz: 1 }, 'options', known as never))).toBe(
      'options.zzzzzz must be left out: there is no such option; there are local, exclusive',
    )
  })
  test('refuses an unknown one that is inherited', () => {
    const given = Object.create({ exclusiv: true }) as object
    expect(refusal(() => options(given, 'options', known as never))).toContain("(did you mean 'exclusive'?)")
  })
  test('reads each property once, inherited ones too', () => {
    class Given {
      asked = 0
      get local() {
        return `answer ${++this.asked}`
      }
    }
    const copy = options<{ local?: string; asked?: number }>(new Given(), 'options', ['local', 'asked'])
    expect([copy.local, copy.local]).toEqual(['answer 1', 'answer 1'])
  })
  test.each([[null], [[]], ['x'], [undefined]])('refuses %j', (value) => {
    expect(refusal(() => options(value, 'options', []))).toMatch(/^options must be an object/)
  })
})

describe('a network namespace', () => {
  test.each([['/run/netns/a'], [0], [3], [undefined]])('may be %j', (value) =>
    expect(namespace(value, 'netns')).toBe(value),
  )
  test.each([
    [null],
    [''],
    ['/run/netns/a\0'],
    [{}],
    [[]],
    [-1],
    [NaN],
    [0.5],
    [2 ** 31],
    [2 ** 32 + 3.5],
    [3n],
    [true],
    [Buffer.from('/run/netns/a')],
  ])('is refused as %s, lest it be taken for our own', (value) =>
    expect(refusal(() => namespace(value, 'netns'))).toMatch(/^netns must be a network namespace's path/),
  )
})

test('array takes arrays alone', () => {
  expect(array([1], 'peers')).toEqual([1])
  expect(refusal(() => array('10.0.0.1', 'peers'))).toBe('peers must be an array, not "10.0.0.1"')
  expect(refusal(() => array(new Set([1]), 'peers'))).toBe('peers must be an array, not an object')
})

test('nearest is near', () => {
  expect(nearest('replaywindow', ['replayWindow', 'esn'])).toBe('replayWindow')
  expect(nearest('x', ['replayWindow', 'mark'])).toBeUndefined()
  expect(nearest('mak', ['mark', 'mask'])).toBe('mark')
})
