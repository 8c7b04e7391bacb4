import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AF_INET, AF_INET6 } from '../../lib/base/address.js'
import { InvalidArgument } from '../../lib/base/errors.js'
import { prefix } from '../../lib/base/prefix.js'
import { Claims } from '../../lib/node/claims.js'
import { parseKeys } from '../../lib/node/index.js'
import { NodeKeyring } from '../../lib/node/keyring.js'
import { elementsOf, intervalOf, intervalsOf, merged, outside, without } from '../../lib/node/ranges.js'
import { remote, settings } from '../../lib/node/settings.js'
import { labelled } from '../../lib/node/statistics.js'
import { inboundMark, keyIdOf, outboundMark, spiOf } from '../../lib/node/tunnels.js'

const BOOT = '00000000-0000-4000-8000-000000000001'
const HEX = '44434241343332312423222114131211f4f3f2f1'
const keys = (id: number, hex = HEX) => parseKeys(`${id} rfc4106(gcm(aes)) ${hex} 128`)
const LOCAL = { addresses: ['192.0.2.1', '2001:db8::1'], subnets: ['10.1.0.0/16', 'fd00:1::/64'], bootId: BOOT }
const given = (more: object = {}) => settings({ local: LOCAL, keys: keys(3), ...more }).settings

describe('ranges', () => {
  test('a prefix is canonical, and an address with host bits is none', () => {
    expect(prefix('10.0.0.0/8', 'range')).toMatchObject({ text: '10.0.0.0/8', family: AF_INET, length: 8 })
    expect(prefix('2001:DB8:0::/32', 'range')).toMatchObject({ text: '2001:db8::/32', family: AF_INET6, length: 32 })
    expect(prefix('0.0.0.0/0', 'range').text).toBe('0.0.0.0/0')
    for (const wrong of [
      '10.0.0.0',
      '10.0.0.0/33',
      '10.0.0.0/08',
      '10.0.0.0/',
      '::ffff:10.0.0.0/8',
      '::/129',
      '',
      8,
      undefined,
    ]) {
      expect(() => prefix(wrong, 'range')).toThrow(InvalidArgument)
    }
    expect(() => prefix('10.0.0.5/24', 'range')).toThrow(/10\.0\.0\.0\/24, if that is the range/)
    expect(() => prefix('fd00::1/64', 'range')).toThrow(/fd00::\/64, if that is the range/)
  })

  const interval = fc.tuple(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 1, max: 9 })).map(([start, length]) => ({
    start: BigInt(start),
    end: BigInt(start + length),
  }))
  const members = (intervals: readonly { start: bigint; end: bigint }[]) => {
    const found = new Set<bigint>()
    for (const { start, end } of intervals) for (let i = start; i < end; i++) found.add(i)
    return [...found].sort((a, b) => Number(a - b))
  }

  test('merged ones hold the same addresses, apart from each other', () => {
    fc.assert(
      fc.property(fc.array(interval), (intervals) => {
        const all = merged(intervals)
        expect(members(all)).toEqual(members(intervals))
        for (const [i, { start }] of all.entries()) if (i > 0) expect(start > all[i - 1]!.end).toBe(true)
        const keysOf = elementsOf(all, AF_INET).map(({ key }) => key)
        expect(intervalsOf([...keysOf].reverse(), AF_INET)).toEqual(all)
      }),
    )
  })

  test('outside holds what is in none of the others', () => {
    fc.assert(
      fc.property(fc.array(interval), fc.array(interval), (one, other) => {
        const not = new Set(members(other))
        expect(members(outside(one, other))).toEqual(members(one).filter((address) => !not.has(address)))
      }),
    )
  })

  test('the last range of all has no end', () => {
    for (const [text, family, count] of [
      ['255.255.255.0/24', AF_INET, 1],
      ['0.0.0.0/0', AF_INET, 1],
      ['ff00::/8', AF_INET6, 1],
      ['10.0.0.0/8', AF_INET, 2],
    ] as const) {
      const all = [intervalOf(prefix(text, 'range'))]
      const elements = elementsOf(all, family)
      expect(elements).toHaveLength(count)
      expect(
        intervalsOf(
          elements.map(({ key }) => key),
          family,
        ),
      ).toEqual(all)
    }
    expect(without([{ start: 1n, end: 2n }], [{ start: 1n, end: 3n }])).toEqual([{ start: 1n, end: 2n }])
  })
})

describe('claims', () => {
  const node = (name: string, more: object = {}) =>
    remote({ name, addresses: ['192.0.2.2'], subnets: ['10.2.0.0/24'], bootId: BOOT, ...more }, name, given())

  test('an address, a range within or around another’s, and this node’s own are refused by name', () => {
    const claims = new Claims(given())
    expect(claims.claim(node('b', { subnets: ['10.2.0.0/24', '10.3.0.0/16'] }))).toBeUndefined()
    const other = { addresses: ['192.0.2.3'] }
    expect(claims.claim(node('c'))).toBe("address 192.0.2.2 is node b's too")
    expect(claims.claim(node('c', other))).toBe('10.2.0.0/24 overlaps a range of node b')
    expect(claims.claim(node('c', { ...other, subnets: ['10.2.0.128/25'] }))).toBe(
      '10.2.0.128/25 overlaps a range of node b',
    )
    expect(claims.claim(node('c', { ...other, subnets: ['10.2.0.0/15'] }))).toBe(
      '10.2.0.0/15 overlaps a range of node b',
    )
    expect(claims.claim(node('c', { ...other, subnets: ['10.3.7.0/24'] }))).toBe(
      '10.3.7.0/24 overlaps a range of node b',
    )
    expect(claims.claim(node('c', { ...other, subnets: ['10.1.9.0/24'] }))).toBe(
      '10.1.9.0/24 overlaps a range of this node',
    )
    expect(claims.claim(node('c', { ...other, subnets: ['10.9.0.0/24', '10.9.0.0/25'] }))).toBe(
      '10.9.0.0/25 overlaps another range of it',
    )
    expect(claims.claim(node('c', { addresses: ['192.0.2.1'], subnets: [] }))).toBe(
      "address 192.0.2.1 is this node's too",
    )
    claims.release(node('b', { subnets: ['10.2.0.0/24', '10.3.0.0/16'] }))
    expect(claims.claim(node('c'))).toBeUndefined()
  })

  test('ranges claimed and given up in any order conflict just where they overlap', () => {
    const ranges = fc.tuple(fc.integer({ min: 0, max: 31 }), fc.integer({ min: 20, max: 25 })).map(([n, length]) => {
      const start = (n * 128) & ~(2 ** (32 - length) - 1)
      return prefix(`10.64.${start >> 8}.${start & 255}/${length}`, 'range')
    })
    fc.assert(
      fc.property(fc.array(fc.tuple(ranges, fc.boolean()), { maxLength: 40 }), (steps) => {
        const claims = new Claims(given())
        const held = new Map<string, { node: ReturnType<typeof node>; interval: ReturnType<typeof intervalOf> }>()
        for (const [i, [range, gives]] of steps.entries()) {
          const [first] = held
          if (gives && first !== undefined) {
            claims.release(first[1].node)
            held.delete(first[0])
          }
          const asks = node(`n${i}`, { addresses: [`198.51.100.${i + 1}`], subnets: [range.text] })
          const interval = intervalOf(range)
          const overlaps = [...held.values()].some(
            ({ interval: { start, end } }) => start < interval.end && interval.start < end,
          )
          expect(claims.claim(asks) === undefined).toBe(!overlaps)
          if (!overlaps) held.set(asks.name, { node: asks, interval })
        }
      }),
    )
  })

  test('without marks two addresses of one SPI are refused; with them two nodes of one id', () => {
    const claims = new Claims(given({ local: { ...LOCAL, subnets: ['10.1.0.0/16'] } }))
    expect(claims.claim(node('b', { addresses: ['10.0.0.7'] }))).toBeUndefined()
    // The same but for the upper four bits, which fold into the lower ones.
    const twin = node('c', { addresses: ['26.0.0.6'], subnets: ['10.4.0.0/24'] })
    expect(claims.claim(twin)).toBe("the SPI that derives from 26.0.0.6 is node b's too")
    const marked = given({ marks: 'cilium' })
    const numbered = new Claims(marked)
    const of = (name: string, address: string) =>
      remote({ name, addresses: [address], bootId: BOOT, id: 7 }, name, marked)
    expect(numbered.claim(of('b', '192.0.2.2'))).toBeUndefined()
    expect(numbered.claim(of('c', '192.0.2.3'))).toBe("id 7 is node b's too")
  })
})

test('an SPI tells the key, and the sender where no mark does', () => {
  const bytes = (text: string) => settings({ local: { addresses: [text], bootId: BOOT }, keys: keys(3) }).settings.local
  const sender = [...bytes('10.0.0.1').addresses.values()][0]!.bytes
  expect(spiOf(sender, 3, given()).toString(16)).toBe('a0000013')
  expect(spiOf(sender, 3, given({ marks: 'cilium' }))).toBe(3)
  expect(keyIdOf(spiOf(sender, 15, given()))).toBe(15)
  // A thousand addresses given out in order have a thousand SPIs, in one prefix or each with its own.
  for (const address of [
    (i: number) => `10.0.${i >> 8}.${i & 255}`,
    (i: number) => `2001:db8::${i.toString(16)}`,
    (i: number) => `2001:db8:0:${i.toString(16)}::1`,
  ]) {
    const spis = Array.from({ length: 1000 }, (_, i) =>
      spiOf([...bytes(address(i + 1)).addresses.values()][0]!.bytes, 1, given()),
    )
    expect(new Set(spis).size).toBe(1000)
  }
})

test("marks are Cilium's", () => {
  expect(outboundMark(0xbeef, 3)).toEqual({ value: 0xbeef3e00, mask: 0xffffff00 })
  expect(inboundMark(0xbeef)).toEqual({ value: 0xbeef0d00, mask: 0xffff0f00 })
})

describe('keyring', () => {
  test('a rotation: prepared, current, old, gone', () => {
    const ring = new NodeKeyring(keys(3))
    expect([ring.current, ring.next, ring.ids]).toEqual([3, undefined, [3]])
    expect(() => ring.commit()).toThrow(/no key was prepared on all nodes/)
    ring.prepare(keys(4))
    expect(() => ring.commit()).toThrow(/no key was prepared on all nodes/)
    ring.prepared()
    expect([ring.current, ring.next, ring.ids, ring.old]).toEqual([3, 4, [3, 4], []])
    ring.commit()
    expect([ring.current, ring.next, ring.ids, ring.old]).toEqual([4, undefined, [3, 4], [3]])
    ring.forgetOld()
    expect([ring.ids, ring.key(3, 'any')]).toEqual([[4], undefined])
  })

  test('an id in use with other keys is refused, with the same ones it is no change', () => {
    const ring = new NodeKeyring(keys(3))
    expect(() => ring.prepare(keys(3, 'aa'.repeat(20)))).toThrow(
      /key id 3 is in use by other keys: increment the key id/,
    )
    ring.prepare(keys(3))
    expect([ring.current, ring.next]).toEqual([3, undefined])
    expect(() => ring.prepare({})).toThrow(/keys must be what loadKeysFile\(\) or parseKeys\(\) gave/)
  })

  test('one that was not prepared to the end is forgotten for another, of its id or of another one', () => {
    const ring = new NodeKeyring(keys(3))
    ring.prepare(keys(4, 'bb'.repeat(20)))
    ring.prepare(keys(4))
    expect([ring.next, ring.ids]).toEqual([4, [3, 4]])
    ring.prepare(keys(5))
    expect([ring.next, ring.ids]).toEqual([5, [3, 5]])
    ring.prepared()
    // Others may encrypt under it by now.
    ring.prepare(keys(6))
    expect([ring.next, ring.ids, ring.old]).toEqual([6, [3, 5, 6], [5]])
    ring.prepare(keys(3))
    expect([ring.next, ring.ids]).toEqual([undefined, [3, 5]])
  })

  test('a key of an address is for what that address sends, the other for all others', () => {
    const half = '0123456789abcdef0123456789abcdef'
    const ring = new NodeKeyring(
      parseKeys(`3 rfc4106(gcm(aes)) ${HEX} 128\n3 hmac(sha256) ${half} cbc(aes) ${half} 192.0.2.7`),
    )
    expect(ring.key(3, '192.0.2.7')?.auth?.name).toBe('hmac(sha256)')
    expect(ring.key(3, '192.0.2.8')?.aead?.name).toBe('rfc4106(gcm(aes))')
  })

  test('tokens differ by key and by boot', () => {
    const ring = new NodeKeyring(keys(3))
    ring.prepare(keys(4))
    expect(new Set([ring.token(3, 1), ring.token(3, 2), ring.token(4, 1), ring.token(4, 2), 0]).size).toBe(5)
  })

  test('found under another key, that one goes on and ours is prepared', () => {
    const ring = new NodeKeyring(keys(4))
    ring.found(3)
    expect([ring.current, ring.next, ring.has(3)]).toEqual([3, 4, false])
  })
})

test('counters are labelled, and one that is not known says so', () => {
  const text =
    'XfrmInError             \t0\nXfrmInNoStates          \t12\nXfrmOutPolBlock         \t3\nXfrmFwdHdrError         \t1\nXfrmAcquireError        \t0\nXfrmInSomethingNew \t4\n'
  expect(labelled(text).map(({ counter, direction, error, count }) => [counter, direction, error, count])).toEqual([
    ['XfrmInError', 'inbound', 'error', 0],
    ['XfrmInNoStates', 'inbound', 'no_states', 12],
    ['XfrmOutPolBlock', 'outbound', 'pol_block', 3],
    ['XfrmFwdHdrError', 'forward', 'hdr_error', 1],
    ['XfrmAcquireError', 'any', 'acquire_error', 0],
    ['XfrmInSomethingNew', 'inbound', 'something_new', 4],
  ])
  expect(labelled(text).at(-1)?.meaning).toMatch(/not known here/)
})

describe('options', () => {
  test.each<[object, RegExp]>([
    [{ marks: 'calico' }, /options\.marks must be one of 'cilium'/],
    [{ proxy: true }, /options\.proxy must be left out without marks/],
    [{ overlayPort: 4789, marks: 'cilium' }, /options\.overlayPort must be left out with marks/],
    [{ local: { addresses: [] } }, /options\.local\.addresses must be an array of an address of each family/],
    [
      { local: { ...LOCAL, addresses: ['10.0.0.1', '10.0.0.2'] } },
      /options\.local\.addresses\[1\] must be of another family/,
    ],
    [{ local: { ...LOCAL, subnets: ['10.0.0.1/24'] } }, /options\.local\.subnets\[0\]/],
    [
      { local: { ...LOCAL, addresses: ['192.0.2.1'] } },
      /options\.local\.subnets\[1\] must be of the family of an address/,
    ],
    [{ local: { ...LOCAL, overlay: ['192.0.2.1'] } }, /options\.local\.overlay must be other addresses/],
    [
      { local: { ...LOCAL, addresses: ['2001:db8::1', '10.1.0.1'] } },
      /options\.local\.addresses\[1\] must be an address outside of the node's own subnets \(10\.1\.0\.0\/16 has it/,
    ],
    [
      { local: { ...LOCAL, overlay: ['fd00:1::9'] } },
      /options\.local\.overlay\[0\] must be an address outside of the node's own/,
    ],
    [{ local: { ...LOCAL, bootId: 'x' } }, /options\.local\.bootId must be a boot id/],
    [{ local: LOCAL, netnss: 'x' }, /did you mean 'netns'/],
  ])('%j is refused', (wrong, says) => {
    expect(() => given(wrong)).toThrow(says)
  })

  test('with marks, which choose the packets, a node has its address in its own subnets', () => {
    const marked = given({ marks: 'cilium', local: { ...LOCAL, addresses: ['10.1.0.1', '2001:db8::1'] } })
    expect(marked.local.addresses.get(AF_INET)?.text).toBe('10.1.0.1')
  })

  test.each<[object, object, RegExp]>([
    [{}, { name: '' }, /node\.name must be a node's name/],
    [{}, { id: 3 }, /node\.id must be left out/],
    [{ marks: 'cilium' }, {}, /node\.id must be an integer from 1 to 65535/],
    [{}, { bootId: '' }, /node\.bootId must be a boot id/],
    [{}, { subnets: ['192.0.0.0/16'] }, /node\.addresses\[0\] must be an address outside of the node's own subnets/],
    [{}, { addresses: ['127.0.0.1'] }, /node\.addresses\[0\] must be the address of a host/],
  ])('with %j a node %j is refused', (more, wrong, says) => {
    const node = { name: 'b', addresses: ['192.0.2.2'], bootId: BOOT, ...wrong }
    expect(() => remote(node, 'node', given(more))).toThrow(says)
  })
})
