import { isIPv4, isIPv6 } from 'node:net'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { address, AF_INET, AF_INET6, formatAddress, hostAddress, parseAddress } from '../../lib/base/address.js'

function parsed(text: string): string | undefined {
  const bytes = new Uint8Array(32).fill(0xee)
  const family = parseAddress(text, bytes, 8)
  expect([...bytes.subarray(0, 8), ...bytes.subarray(24)]).toEqual(new Array(16).fill(0xee))
  return family === 0 ? undefined : formatAddress(bytes, 8, family)
}

describe('parseAddress', () => {
  test.each([
    ['0.0.0.0', '0.0.0.0'],
    ['255.255.255.255', '255.255.255.255'],
    ['10.0.0.1', '10.0.0.1'],
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['2001:DB8::0001', '2001:db8::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
    ['::2:3:4:5:6:7:8', '0:2:3:4:5:6:7:8'],
    ['1:0:3:4:5:6:7:8', '1:0:3:4:5:6:7:8'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
    ['1:2:3:4:5:6:1.2.3.4', '1:2:3:4:5:6:102:304'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::ffff:c000:201', '192.0.2.1'],
    ['0:0:0:0:0:FFFF:192.0.2.1', '192.0.2.1'],
    ['::1.2.3.4', '::102:304'],
  ])('takes %s as %s', (text, canonical) => {
    expect(parsed(text)).toBe(canonical)
  })

  test.each([
    '',
    ' ',
    '10',
    '10.1',
    '10.0.0',
    '10.0.0.',
    '.10.0.0.1',
    '10..0.1',
    '10.0.0.1.',
    '10.0.0.1.2',
    '010.0.0.1',
    '10.0.0.00',
    '10.0.0.256',
    '10.0.0.-1',
    '10.0.0.1 ',
    '0x0a.0.0.1',
    '10.0.0.1/32',
    '10.0.0.1:4789',
    '٣.0.0.1',
    ':',
    ':::',
    '1:2',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7:8::',
    '::1:2:3:4:5:6:7:8',
    '1::2::3',
    ':1::2',
    '1::2:',
    '1:2:3:4:5:6:7:',
    '12345::',
    'g::',
    '::1%eth0',
    '::1/128',
    '[::1]',
    '1:2:3:4:5:6:7:1.2.3.4',
    '1.2.3.4::',
    '::1.2.3',
    '::01.2.3.4',
    '::1.2.3.4:5',
    '::1.2.3.4.5',
    '::1.2.3.1234',
    '1::2:3:4:5:6:7:8',
  ])('refuses %j', (text) => {
    expect(parsed(text)).toBeUndefined()
  })

  test('agrees with URL and net on every IPv6 address', () => {
    const group = fc.oneof(
      fc.constant('0'),
      fc.constant('0000'),
      fc.integer({ min: 0, max: 0xffff }).map((n) => n.toString(16)),
    )
    const text = fc
      .array(fc.oneof(group, group, fc.constant('')), { minLength: 1, maxLength: 9 })
      .map((parts) => parts.join(':'))
    const any = fc.oneof(
      text,
      fc.ipV6(),
      fc.tuple(text, fc.ipV4()).map((parts) => parts.join(':')),
    )
    fc.assert(
      fc.property(any, (candidate) => {
        const found = parsed(candidate)
        expect(found !== undefined).toBe(isIPv6(candidate))
        if (found === undefined || found.includes('.')) return
        expect(`[${found}]`).toBe(new URL(`http://[${candidate}]/`).hostname)
      }),
      { numRuns: 5000 },
    )
  })

  test('agrees with net on every IPv4 address', () => {
    const part = fc.oneof(fc.integer({ min: -1, max: 300 }).map(String), fc.constantFrom('', '00', '01', 'a'))
    fc.assert(
      fc.property(fc.array(part, { minLength: 3, maxLength: 5 }), (parts) => {
        const text = parts.join('.')
        expect(parsed(text)).toBe(isIPv4(text) ? text : undefined)
      }),
      { numRuns: 5000 },
    )
  })

  test('survives any text', () => {
    fc.assert(fc.property(fc.stringMatching(/^[0-9a-f:.%]*$/), (text) => void parsed(text)))
  })
})

describe('address', () => {
  test('is a value: canonical text, family, bytes', () => {
    const four = address('::ffff:192.0.2.1', 'local')
    expect(four).toEqual({
      text: '192.0.2.1',
      family: AF_INET,
      bytes: Uint8Array.of(192, 0, 2, 1, ...new Array<number>(12).fill(0)),
    })
    const six = address('2001:DB8:0::1', 'local')
    expect(six.text).toBe('2001:db8::1')
    expect(six.family).toBe(AF_INET6)
    expect(Buffer.from(six.bytes).toString('hex')).toBe('20010db8000000000000000000000001')
  })

  test.each([
    ['fe80::1%eth0', 'local must be an address without a zone, not "fe80::1%eth0"'],
    ['10.0.0.1/8', 'local must be an address without a prefix length, not "10.0.0.1/8"'],
    ['host', `local must be an IPv4 or IPv6 address, as in '192.0.2.1' or '2001:db8::1', not "host"`],
    [42, `local must be an IPv4 or IPv6 address, as in '192.0.2.1' or '2001:db8::1', not 42`],
    [undefined, `local must be an IPv4 or IPv6 address, as in '192.0.2.1' or '2001:db8::1'`],
  ])('says what %j should have been', (value, message) => {
    expect(() => address(value, 'local')).toThrow(
      expect.objectContaining({ message, argument: 'local', code: 'ERR_XFRMESH_INVALID_ARGUMENT' }) as Error,
    )
  })
})

describe('hostAddress', () => {
  test.each([
    ['0.0.0.0', 'unspecified'],
    ['0.1.2.3', 'unspecified'],
    ['127.0.0.1', 'loopback'],
    ['224.0.0.1', 'multicast'],
    ['239.255.255.255', 'multicast'],
    ['255.255.255.255', 'broadcast'],
    ['::', 'unspecified'],
    ['::1', 'loopback'],
    ['ff02::1', 'multicast'],
    ['fe80::1', 'link-local'],
    ['febf::1', 'link-local'],
    ['::ffff:127.0.0.1', 'loopback'],
  ])('refuses %s, which is %s', (text, why) => {
    expect(() => hostAddress(text, 'peers[3]')).toThrow(
      new RegExp(`^peers\\[3\\] must be the address of a host; .* is ${why}`),
    )
  })

  test.each(['10.0.0.1', '240.0.0.1', '255.255.255.254', '2001:db8::1', 'fd00::1', 'fec0::1', '1::', '::2'])(
    'takes %s',
    (text) => {
      expect(hostAddress(text, 'peer').text).toBe(text)
    },
  )
})
