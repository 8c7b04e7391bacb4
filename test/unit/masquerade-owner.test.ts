import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { InvalidArgument } from '../../lib/base/errors.js'
import {
  checkedInterface,
  checkedText,
  networkHash,
  ownerOf,
  readComment,
  writeOwner,
} from '../../lib/masquerade/owner.js'
import { native } from '../../lib/native.js'
import { commentsOf, planned, userdataFor, withAddon, type Named } from './masquerade-addon.js'

const containerId = 'f'.repeat(64)
const half = (text: string) => createHash('sha512').update(text).digest('hex').slice(0, 16)
const commented = async (...name: [network: string, interfaceName: string, id: string]) => (await commentsOf(name))[0]!

describe('a comment', () => {
  // Those that the plugins' own tests expect.
  test.each([
    ['unit-test', 'eth0', 'one', '6fd94d501e58f0aa-287fc69eff0574a2, net: unit-test, if: eth0, id: one'],
    ['unit-test', 'eth0', 'two', '6fd94d501e58f0aa-d750b2c8f0f25d5f, net: unit-test, if: eth0, id: two'],
    ['unit-test', 'eth0', 'four', '6fd94d501e58f0aa-e766de567ef6c543, net: unit-test, if: eth0, id: four'],
    ['alternate', 'net1', 'three', '82783ef24bdc7036-acb19d111858e348, net: alternate, if: net1, id: three'],
  ])("of %s, %s, %s is the plugins'", async (network, interfaceName, id, comment) => {
    expect(await commented(network, interfaceName, id)).toBe(comment)
    expect(readComment(comment)).toEqual({
      owner: comment.slice(0, 33),
      name: { network, interfaceName, containerId: id },
    })
  })

  test('has no quotes, and then says no names: whose it is stays told by the hash of all', async () => {
    const comment = await commented('a "b"', 'eth0', 'c"')
    expect(comment).toBe(`${half('a "b"')}-${half('eth0:c"')}, net: a b, if: eth0, id: c`)
    expect(readComment(comment)).toEqual({ owner: `${half('a "b"')}-${half('eth0:c"')}`, name: undefined })
  })

  test('is cut at 128 bytes, within a character too, and then says no names', async () => {
    const long = await commented('a-network-of-a-rather-long-name', 'eth0', containerId)
    expect(long).toHaveLength(128)
    expect(readComment(long)).toEqual({ owner: long.slice(0, 33), name: undefined })
    for (let length = 60; length < 80; length++) {
      const name = { network: `${'n'.repeat(length)}üüüüüüüü`, interfaceName: 'eth0', containerId }
      const owner = ownerOf(networkHash(name.network), name.interfaceName, name.containerId)
      const whole = Buffer.from(`${owner}, net: ${name.network}, if: eth0, id: ${containerId}`)
      const made = await userdataFor([name.network, name.interfaceName, name.containerId])
      expect(made).toEqual([Buffer.concat([Uint8Array.of(0, 129), whole.subarray(0, 128), Uint8Array.of(0)])])
    }
  })

  test.each([
    '',
    'masquerade',
    '6fd94d501e58f0aa',
    '6FD94D501E58F0AA-287fc69eff0574a2',
    ' 6fd94d501e58f0aa-287fc69eff0574a2',
  ])('%j is nobody’s', (comment) => expect(readComment(comment)).toBeUndefined())

  test('with the hash of other names says none', () => {
    expect(readComment('6fd94d501e58f0aa-287fc69eff0574a2, net: unit-test, if: eth0, id: two')).toEqual({
      owner: '6fd94d501e58f0aa-287fc69eff0574a2',
      name: undefined,
    })
  })

  test('whatever it is, is read without an error, and never as names that it was not made from', async () => {
    const text = fc
      .string({ unit: 'grapheme', minLength: 1, maxLength: 40 })
      .filter((some) => !/[\p{Cc}\p{Cs}]/u.test(some) && Buffer.byteLength(some) <= 255)
    const name = text.filter((some) => !/[\s/:]/.test(some) && Buffer.byteLength(some) <= 15 && !/^\.\.?$/.test(some))
    await fc.assert(
      fc.asyncProperty(text, name, text, async (network, interfaceName, id) => {
        const read = readComment(await commented(network, interfaceName, id))
        expect(read?.owner).toBe(ownerOf(networkHash(network), interfaceName, id))
        if (read?.name !== undefined) expect(read.name).toEqual({ network, interfaceName, containerId: id })
      }),
    )
    fc.assert(fc.property(fc.string({ unit: 'binary' }), (comment) => void readComment(comment)))
  })
})

describe('owners by the thousand', () => {
  test('are in the order given, each the hashes that node makes', async () => {
    const names = Array.from(
      { length: 3000 },
      (_, i) => [`net${i % 7}`, `eth${i % 3}`, `${i} ${'x'.repeat(i % 250)}`] as const,
    )
    const comments = await commentsOf(...names)
    expect(comments.map((comment) => comment.slice(0, 33))).toEqual(
      names.map(([network, interfaceName, id]) => `${half(network)}-${half(`${interfaceName}:${id}`)}`),
    )
  })

  test('are those that a text read from a comment stands for', () =>
    withAddon(async (addon) => {
      const owners = new Uint8Array(32)
      writeOwner(ownerOf(networkHash('podnet'), 'eth0', 'one'), owners, 0)
      writeOwner(ownerOf(networkHash('podnet'), 'eth0', 'two'), owners, 16)
      const none = new Uint8Array()
      const mappings = native.newLedger(none, none, none, none, owners, Float64Array.of(7, 8))
      const ledger = { mappings, maps: new Set<never>(), mapRules: new Map<never, number>() }
      const two: Named = ['podnet', 'eth0', 'two', []]
      expect((await planned(addon, ledger, { what: 'remove' }, 'set', [two]))?.deleteRules).toEqual(Float64Array.of(8))
      const collected = (network: string) => planned(addon, ledger, { what: 'collect', network }, 'set', [two])
      expect((await collected('podnet'))?.deleteRules).toEqual(Float64Array.of(7))
      expect(await collected('other')).toBeUndefined()
    }))
})

describe('names', () => {
  const good = { network: 'podnet', interfaceName: 'eth0', containerId }
  const checkedName = (
    { network, interfaceName, containerId }: Record<keyof typeof good, unknown>,
    argument: string,
  ) => ({
    network: checkedText(network, `${argument}.network`),
    interfaceName: checkedInterface(interfaceName, `${argument}.interfaceName`),
    containerId: checkedText(containerId, `${argument}.containerId`),
  })

  test('are taken as they are', () => {
    for (const name of [
      good,
      { ...good, network: 'n'.repeat(255) },
      { ...good, interfaceName: 'i'.repeat(15) },
      { ...good, containerId: 'ü'.repeat(127) },
      { ...good, network: 'a "quoted" one, with 日本語' },
    ]) {
      expect(checkedName(name, 'x')).toEqual(name)
    }
  })

  test.each([
    ['network', '', '1 to 255 bytes'],
    ['network', 'n'.repeat(256), '1 to 255 bytes'],
    ['network', 'ü'.repeat(128), '1 to 255 bytes'],
    ['network', 'a\nb', 'control characters'],
    ['network', 'a\0b', 'control characters'],
    ['network', '\ud800', 'control characters'],
    ['network', 7, 'a string'],
    ['network', undefined, 'a string'],
    ['interfaceName', '', "a network device's name"],
    ['interfaceName', 'i'.repeat(16), '1 to 15 bytes'],
    ['interfaceName', 'eth 0', "no space, '/' or ':'"],
    ['interfaceName', 'a:b', "no space, '/' or ':'"],
    ['interfaceName', 'a/b', "no space, '/' or ':'"],
    ['interfaceName', '..', "a network device's name"],
    ['containerId', '', '1 to 255 bytes'],
    ['containerId', 'c'.repeat(256), '1 to 255 bytes'],
    ['containerId', null, 'a string'],
  ])('%s %j is refused by name', (field, value, expected) => {
    const check = () => checkedName({ ...good, [field]: value }, 'attachments[3]')
    expect(check).toThrow(InvalidArgument)
    expect(check).toThrow(expect.objectContaining({ argument: `attachments[3].${field}` }) as Error)
    expect(check).toThrow(expected)
  })
})
