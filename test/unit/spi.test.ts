import { expect, test } from 'vitest'
import { address } from '../../lib/base/address.js'
import { deriveSpi, SpiDeriver } from '../../lib/overlay/spi.js'

// By another implementation: FNV-1a in Python, over ipaddress' packed bytes.
const vectors: [source: string, destination: string, tag: number, spi: number][] = [
  ['10.0.0.1', '10.0.0.2', 1, 0xf9c16827],
  ['10.0.0.2', '10.0.0.1', 1, 0x37213ca7],
  ['10.0.0.1', '10.0.0.2', 0xffffffff, 0x39d213b4],
  ['203.0.113.1', '192.0.2.255', 0, 0xf6854dbf],
  ['2001:db8::1', '2001:db8::2', 1, 0xa7c6db1b],
  ['2001:db8::2', '2001:db8::1', 0x80000001, 0xf59074db],
]

test.each(vectors)('from %s to %s under key %i', (source, destination, tag, spi) => {
  expect(deriveSpi(source, destination, tag)).toBe(spi)
  const packed = new Uint8Array(48)
  packed.set(address(destination, 'peer').bytes, 16)
  expect(new SpiDeriver(address(source, 'local')).forward(tag, packed, 16)).toBe(spi)
  packed.set(address(source, 'peer').bytes, 32)
  expect(new SpiDeriver(address(destination, 'local')).reverse(tag, packed, 32)).toBe(spi)
})

test('an IPv4-mapped address is its IPv4 address', () => {
  expect(deriveSpi('::ffff:10.0.0.1', '::ffff:a00:2', 1)).toBe(0xf9c16827)
})

test.each<[string, unknown[], string]>([
  ['source', ['10.0.0', '10.0.0.2', 1], 'source must be an IPv4 or IPv6 address'],
  ['destination', ['10.0.0.1', 'fe80::1%2', 1], 'destination must be an address without a zone'],
  ['tag', ['10.0.0.1', '10.0.0.2', -1], 'tag must be an integer from 0 to 4294967295, not -1'],
])('refuses a wrong %s', (_, given, message) => {
  expect(() => deriveSpi(...(given as [string, string, number]))).toThrow(message)
})
