import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { address } from '../../lib/base/address.js'
import { bootId, bootIdBytes } from '../../lib/node/boot-id.js'
import { pairKey } from '../../lib/node/pair-key.js'

const HERE = '5f616d5f-b237-aed6-4ac7-123456789abc'
const THERE = '5f616d5f-aed6-4ac7-b237-987654321abc'
const REBOOTED = '0d3c9a4e-60f7-4f1f-9c1e-2f6f1f0a7b11'

const shared = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 37 + length) & 0xff)

function derived(length: number, source: string, destination: string, sourceBootId: string, destinationBootId: string) {
  const from = address(source, 'source')
  const ends = {
    family: from.family,
    source: from.bytes,
    destination: address(destination, 'destination').bytes,
    sourceBootId: bootIdBytes(sourceBootId, 'source'),
    destinationBootId: bootIdBytes(destinationBootId, 'destination'),
  }
  return Buffer.from(pairKey(shared(length), ends)).toString('hex')
}

/** An address as inet_pton has it, by somebody else. */
function packed(text: string): Buffer {
  const program = 'import sys,ipaddress;sys.stdout.buffer.write(ipaddress.ip_address(sys.argv[1]).packed)'
  return execFileSync('python3', ['-c', program, text])
}

/** The same by openssl's hashes and python's addresses. */
function expected(length: number, source: string, destination: string, ...bootIds: string[]): string {
  const input = Buffer.concat([shared(length), packed(source), packed(destination), Buffer.from(bootIds.join(''))])
  const hash = execFileSync('openssl', ['dgst', length <= 32 ? '-sha256' : '-sha512', '-binary'], { input })
  return hash.subarray(0, length).toString('hex')
}

describe.each([16, 20, 32, 33, 36, 64])('a key of %i bytes', (length) => {
  test.each([
    ['10.0.0.1', '10.0.0.2'],
    ['2001:db8::1', '2001:db8::2'],
  ])('from %s to %s is what openssl makes of it, and another in each other case', (source, destination) => {
    const key = derived(length, source, destination, HERE, THERE)
    expect(key).toBe(expected(length, source, destination, HERE, THERE))
    const others = [
      derived(length, destination, source, THERE, HERE),
      derived(length, source, destination, REBOOTED, THERE),
      derived(length, source, destination, HERE, REBOOTED),
      derived(length, source, destination, THERE, HERE),
    ]
    expect(new Set([key, ...others]).size).toBe(5)
  })
})

test('known vectors, made once by openssl', () => {
  // printf '\x10\x35…' (16 bytes: i * 37 + 16) | cat - <4 bytes> <4 bytes> <boot ids> | openssl dgst -sha256
  expect(derived(16, '10.0.0.1', '10.0.0.2', HERE, THERE)).toBe('4e885edd19200713dfd432fbcb47e203')
  expect(derived(64, '2001:db8::1', '2001:db8::2', HERE, THERE)).toBe(
    'b350d75721a1e14461871c009a12796355386b826a3f86a9affa0d184cc2e87f1c9f41102c61d609c6f3299e8682627ccd20ed0e540d974c3f6f3a165339e2b7',
  )
})

test('an empty key derives an empty one', () => {
  expect(derived(0, '10.0.0.1', '10.0.0.2', HERE, THERE)).toBe('')
})

test('refuses a key that no hash is long enough for', () => {
  expect(() => derived(65, '10.0.0.1', '10.0.0.2', HERE, THERE)).toThrow(/at most 64 bytes/)
})

test('the boot id is this machine’s, and anything else is refused', () => {
  expect(`${bootId()}\n`).toBe(readFileSync('/proc/sys/kernel/random/boot_id', 'latin1'))
  for (const wrong of ['', HERE.slice(1), `${HERE}0`, ` ${HERE.slice(1)}`, undefined]) {
    expect(() => bootIdBytes(wrong, 'bootId')).toThrow(/^bootId must be a boot id, 36 characters/)
  }
})
