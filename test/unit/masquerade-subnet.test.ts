import { isIP } from 'node:net'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { InvalidArgument } from '../../lib/base/errors.js'
import { NftTransaction } from '../../lib/kernel/nft.js'
import { emptyLedger } from '../../lib/masquerade/ledger.js'
import { checks, mappingOf, mappingRule, prefixOfChain, subnetChain } from '../../lib/masquerade/rules.js'
import { mappingText, Subnets } from '../../lib/masquerade/subnet.js'
import { write } from '../../lib/masquerade/write.js'
import { planned, withAddon, type Named } from './masquerade-addon.js'
import { mappingAt } from './masquerade-mapping.js'
import { heldBy } from './nft-wire.js'

describe('an address with its prefix', () => {
  test.each([
    ['192.168.1.2/24', '192.168.1.2/24', '192.168.1.0/24'],
    ['10.1.2.3/0', '10.1.2.3/0', '0.0.0.0/0'],
    ['10.1.2.3/32', '10.1.2.3/32', '10.1.2.3/32'],
    ['10.1.255.3/18', '10.1.255.3/18', '10.1.192.0/18'],
    ['2001:DB8:0::2/64', '2001:db8::2/64', '2001:db8::/64'],
    ['2001:db8:ffff:ffff::2/45', '2001:db8:ffff:ffff::2/45', '2001:db8:fff8::/45'],
    ['fd00::1/128', 'fd00::1/128', 'fd00::1/128'],
    ['::ffff:10.0.0.1/8', '10.0.0.1/8', '10.0.0.0/8'],
  ])('%s is %s on %s', (text, canonical, subnet) => {
    const mapping = mappingAt(text)
    expect(mappingText(mapping)).toBe(canonical)
    expect(mapping.subnet.text).toBe(subnet)
  })

  test.each([
    ['192.168.1.2', 'an address and its prefix'],
    ['192.168.1/24', 'an address and its prefix'],
    ['/24', 'an address and its prefix'],
    ['', 'an address and its prefix'],
    ['192.168.1.2/', '0 to 32 bits'],
    ['192.168.1.2/33', '0 to 32 bits'],
    ['192.168.1.2/024', '0 to 32 bits'],
    ['192.168.1.2/-1', '0 to 32 bits'],
    ['192.168.1.2/1e1', '0 to 32 bits'],
    ['192.168.1.2/24/24', '0 to 32 bits'],
    ['192.168.1.2/255.255.255.0', '0 to 32 bits'],
    ['::ffff:10.0.0.1/120', '0 to 32 bits'],
    ['2001:db8::1/129', '0 to 128 bits'],
    ['fe80::1%eth0/64', 'an address and its prefix'],
    ['224.0.0.1/24', 'no multicast'],
    ['ff02::1/64', 'no multicast'],
    [7, 'an address and its prefix'],
    [null, 'an address and its prefix'],
  ])('%j is none', (text, expected) => {
    const check = () => mappingAt(text, 'attachments[1].addresses[2]')
    expect(check).toThrow(InvalidArgument)
    expect(check).toThrow(expect.objectContaining({ argument: 'attachments[1].addresses[2]' }) as Error)
    expect(check).toThrow(expected)
  })

  test('is one if and only if both parts are, by another parser', () => {
    const prefix = fc.oneof(fc.nat(140).map(String), fc.string())
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6(), fc.string()), prefix, (text, bits) => {
        const family = isIP(text)
        const most = { 0: -1, 4: 32, 6: 128 }[family]!
        const multicast = /^(22[4-9]|23\d)\.|^ff[\da-f]{2}:/i.test(text)
        const mapped = /^::ffff:/i.test(text) || /^(0+:)+ffff:/i.test(text)
        fc.pre(!mapped && !text.includes('%'))
        const good = /^(0|[1-9]\d{0,2})$/.test(bits) && Number(bits) <= most && !multicast
        let taken = true
        try {
          mappingAt(`${text}/${bits}`)
        } catch (error) {
          expect(error).toBeInstanceOf(InvalidArgument)
          taken = false
        }
        expect(taken, `${text}/${bits}`).toBe(good)
      }),
    )
  })
})

describe('a rule for a mapping', () => {
  const mappings = fc
    .tuple(fc.oneof(fc.ipV4(), fc.ipV6()), fc.nat(128))
    .filter(([text]) => !/^(22[4-9]|23\d)\.|^ff[\da-f]{2}:/i.test(text))
    .map(([text, prefix]) => mappingAt(`${text}/${text.includes(':') ? prefix : prefix % 33}`))

  test('is read as that mapping', () => {
    fc.assert(
      fc.property(mappings, (mapping) => {
        expect(mappingOf(mappingRule(mapping), new Subnets())).toEqual(mapping)
      }),
    )
  })

  test('as it is written is the same, byte for byte', () =>
    withAddon((addon) =>
      fc.assert(
        fc.asyncProperty(mappings, async (mapping) => {
          const comment = '6fd94d501e58f0aa-287fc69eff0574a2, net: unit-test, if: eth0, id: one'
          const expected = new NftTransaction().addRule({ ...checks, expressions: mappingRule(mapping), comment })
          const ledger = emptyLedger()
          const one: Named = ['unit-test', 'eth0', 'one', [mappingText(mapping)]]
          const plan = await planned(addon, ledger, { what: 'add' }, 'rules', [one])
          expect(heldBy(write(plan!, ledger).transaction).at(-1)).toEqual(heldBy(expected)[0])
        }),
      ),
    ))

  test('with anything else in it is none', () => {
    const rule = mappingRule(mappingAt('10.1.2.3/18'))
    for (let i = 0; i < rule.length; i++) {
      expect(mappingOf(rule.toSpliced(i, 1), new Subnets())).toBeUndefined()
      expect(
        mappingOf(rule.toSpliced(i, 0, { kind: 'counter', packets: 0n, bytes: 0n }), new Subnets()),
      ).toBeUndefined()
    }
    expect(mappingOf([], new Subnets())).toBeUndefined()
  })

  test("has a subnet whose chain's name tells the prefix", () => {
    fc.assert(
      fc.property(mappings, (mapping) => {
        const chain = subnetChain(mapping.subnet)
        expect(prefixOfChain(chain)).toBe(mapping.subnet.prefix)
        // What nft reads as one name.
        expect(chain).toMatch(/^[a-z_][\w/.-]*$/)
      }),
    )
    for (const chain of ['masq_checks', 'postrouting', 'subnet_', 'subnet_x/24', 'subnet_10.0.0.0']) {
      expect(prefixOfChain(chain)).toBeUndefined()
    }
  })
})
