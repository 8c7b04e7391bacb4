import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { overlayMtu, type OverlayMtuOptions } from '../../lib/overlay/mtu.js'

/** Size of the outermost packet that carries an inner packet of that size, built up from the inside as the kernel does. */
function wireSize(inner: number, { family, suite, nat }: OverlayMtuOptions): number {
  const plain = 8 + 8 + 14 + inner
  const padded = Math.ceil((plain + 2) / 4) * 4
  const icv = { 'aes-gcm-64': 8, 'aes-gcm-96': 12, 'aes-gcm-128': 16, 'chacha20-poly1305': 16 }[suite!]
  return (family === 6 ? 40 : 20) + (nat === false ? 0 : 8) + 8 + 8 + padded + icv
}

describe('exact', () => {
  test.each<[OverlayMtuOptions, number]>([
    [{}, 1424],
    [{ mtu: 1500, family: 4, suite: 'aes-gcm-64', nat: false, formula: 'exact' }, 1424],
    [{ family: 6 }, 1404],
    [{ suite: 'aes-gcm-128' }, 1416],
    [{ suite: 'aes-gcm-96' }, 1420],
    [{ suite: 'chacha20-poly1305', family: 6, nat: true }, 1388],
    [{ nat: { port: 4500, socket: 3 } }, 1416],
    [{ mtu: 9001 }, 8924],
  ])('%j gives %i', (options, mtu) => {
    expect(overlayMtu(options)).toBe(mtu)
  })

  test('is the largest that fits', () => {
    const options = fc.record({
      mtu: fc.integer({ min: 1280, max: 65535 }),
      family: fc.constantFrom(4 as const, 6 as const),
      suite: fc.constantFrom(
        'aes-gcm-64' as const,
        'aes-gcm-96' as const,
        'aes-gcm-128' as const,
        'chacha20-poly1305' as const,
      ),
      nat: fc.boolean(),
    })
    fc.assert(
      fc.property(options, (given) => {
        const inner = overlayMtu(given)
        expect(wireSize(inner, given)).toBeLessThanOrEqual(given.mtu)
        expect(wireSize(inner + 1, given)).toBeGreaterThan(given.mtu)
      }),
      { numRuns: 2000 },
    )
  })
})

test.each([
  [1500, 1424],
  [1501, 1424],
  [1504, 1428],
  [9000, 8924],
  [1280, 1204],
])("Docker's for %i is %i", (mtu, inner) => {
  expect(overlayMtu({ mtu, formula: 'docker', family: 6, nat: true })).toBe(inner)
})

test.each<[unknown, string]>([
  [{ mtu: 500 }, 'mtu must be an integer from 576 to 65535, not 500'],
  [{ mtu: 1279, family: 6 }, 'mtu must be an integer from 1280 to 65535, not 1279'],
  [{ mtu: '1500' }, 'mtu must be an integer from 576 to 65535, not "1500"'],
  [{ family: 5 }, 'family must be 4 or 6, not 5'],
  [{ suite: 'des' }, 'suite must be one of'],
  [{ nat: 4500 }, 'nat must be an object, not 4500'],
  [{ nat: null }, 'nat must be an object, not null'],
  [{ nat: { prot: 4500 } }, `nat.prot must be left out: there is no such option (did you mean 'port'?)`],
  [{ mtu: null }, 'mtu must be an integer from 576 to 65535, not null'],
  [{ formula: 'moby' }, `formula must be one of 'exact', 'docker', not "moby"`],
  [{ mut: 1500 }, `options.mut must be left out: there is no such option (did you mean 'mtu'?)`],
  [1500, 'options must be an object, not 1500'],
])('%j is refused', (options, message) => {
  expect(() => overlayMtu(options as OverlayMtuOptions)).toThrow(message)
})
