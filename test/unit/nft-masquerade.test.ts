import { describe, expect, test } from 'vitest'
import {
  bitwise,
  cmp,
  counterReference,
  goto,
  jump,
  map,
  masquerade,
  meta,
  payload,
  setMeta,
  u8,
  verdict,
  vmap,
  type Expression,
} from '../../lib/kernel/nft-expressions.js'
import { Hole } from '../../lib/kernel/nft-holes.js'
import { RuleTemplate } from '../../lib/kernel/nft-template.js'
import { NftTransaction } from '../../lib/kernel/nft-transaction.js'
import { heldBy, nft } from './nft-wire.js'

/** What masquerading is made of: source NAT rules by the thousand, and maps with owners in their elements' comments. */

const table = { family: 'inet', table: 'cni_plugins_masquerade' } as const
const checks = { ...table, chain: 'masq_checks' } as const
const set = (name: string) => ({ ...table, set: name }) as const
const bytes = (hex: string) => Buffer.from(hex.replaceAll(' ', ''), 'hex')

const ipv4 = [meta('nfproto'), cmp('==', u8(2))]
const ipv6 = [meta('nfproto'), cmp('==', u8(10))]
const saddr4 = payload('network', 12, 4)
const saddr6 = payload('network', 8, 16)

const changes: Record<string, (transaction: NftTransaction) => NftTransaction> = {
  table: (t) => t.addTable({ ...table, comment: 'Masquerading' }),
  chain: (t) => t.addChain({ ...checks, comment: 'checks' }),
  'base chain': (t) =>
    t.addChain({ ...table, chain: 'postrouting', base: { type: 'nat', hook: 'postrouting', priority: 100 } }),
  'verdict map': (t) => t.addSet({ ...set('owners4'), type: 'ipv4_addr', map: 'verdict', comment: 'by address' }),
  'verdict map, IPv6': (t) => t.addSet({ ...set('owners6'), type: 'ipv6_addr', map: 'verdict' }),
  'data map of intervals that counts': (t) =>
    t.addSet({ ...set('marks'), type: 'ipv4_addr', map: 'mark', flags: ['interval'], counters: true }),
  'set of names with timeouts': (t) =>
    t.addSet({ ...set('names'), type: 'ifname', flags: ['timeout'], timeoutMs: 7_200_000, size: 100 }),
  'set that rules fill': (t) => t.addSet({ ...set('ports'), type: 'inet_service', flags: ['dynamic'], size: 100 }),
  'constant set': (t) => t.addSet({ ...set('fixed'), type: 'ether_addr', flags: ['constant'] }),
  'set of protocols': (t) => t.addSet({ ...set('protocols'), type: 'inet_proto' }),
  'set of marks': (t) => t.addSet({ ...set('marked'), type: 'mark' }),
  verdicts: (t) =>
    t.addElements({
      ...set('owners4'),
      elements: [
        { key: bytes('0a000002'), verdict: goto('subnet'), comment: 'an owner' },
        { key: bytes('0a000003'), verdict: jump('subnet') },
        { key: bytes('0a000004'), verdict: verdict('drop') },
      ],
    }),
  'verdicts, IPv6': (t) =>
    t.addElements({
      ...set('owners6'),
      elements: [{ key: bytes('fd00 0000 0000 0000 0000 0000 0000 0002'), verdict: goto('subnet') }],
    }),
  'data of an interval': (t) =>
    t.addElements({
      ...set('marks'),
      elements: [
        { key: bytes('00000000'), intervalEnd: true },
        { key: bytes('0a000004'), data: bytes('07000000'), comment: 'six' },
        { key: bytes('0a00000a'), intervalEnd: true },
      ],
    }),
  'elements with timeouts': (t) =>
    t.addElements({
      ...set('names'),
      elements: [
        { key: bytes('65746830000000000000000000000000'), timeoutMs: 3_600_000 },
        { key: bytes('65746831000000000000000000000000'), comment: 'second' },
      ],
    }),
  'delete a verdict': (t) => t.deleteElements({ ...set('owners4'), keyBytes: 4, keys: bytes('0a000003') }),
  'delete the table': (t) => t.deleteTable(table),
}

describe('a transaction holds what nft sends', () => {
  for (const [name, change] of Object.entries(changes)) {
    test(name, () => expect(heldBy(change(new NftTransaction()))).toEqual(nft(`masquerade: ${name}`)))
  }

  test('counter, after the table that nft sends with it', () => {
    const held = new NftTransaction()
      .addTable(table)
      .addCounter({ ...table, counter: 'seen', packets: 3n, bytes: 400n, comment: 'some' })
    expect(heldBy(held)).toEqual(nft('masquerade: counter'))
  })

  test('a deleted counter, but for the empty attribute of its values', () => {
    const [expected] = nft('masquerade: delete a counter in use: EBUSY')
    const attributes = expected!.attributes.filter(([, value]) => value.length > 0)
    const held = new NftTransaction().deleteCounter({ ...table, counter: 'seen' })
    expect(heldBy(held)).toEqual([{ ...expected, attributes }])
  })
})

const rules: Record<string, Record<string, Expression[]>> = {
  postrouting: {
    multicast: [
      ...ipv4,
      payload('network', 16, 4),
      bitwise(bytes('f0000000'), bytes('00000000')),
      cmp('==', bytes('e0000000')),
      verdict('return'),
    ],
    'multicast, IPv6': [...ipv6, payload('network', 24, 1), cmp('==', u8(0xff)), verdict('return')],
    'check the rest': [goto('masq_checks')],
  },
  masq_checks: {
    'masquerade, IPv6': [
      ...ipv6,
      saddr6,
      cmp('==', bytes('fd00 0001 0000 0000 0000 0000 0000 0002')),
      payload('network', 24, 8),
      cmp('!=', bytes('fd00 0001 0000 0000')),
      masquerade(),
    ],
    'masquerade, a network of 20 bits': [
      ...ipv4,
      saddr4,
      cmp('==', bytes('0a011002')),
      payload('network', 16, 4),
      bitwise(bytes('fffff000'), bytes('00000000')),
      cmp('!=', bytes('0a011000')),
      masquerade(),
    ],
    'masquerade, a network of 60 bits': [
      ...ipv6,
      saddr6,
      cmp('==', bytes('fd00 0002 0000 0000 0000 0000 0000 0002')),
      payload('network', 24, 16),
      bitwise(bytes('ffff ffff ffff fff0 0000 0000 0000 0000'), new Uint8Array(16)),
      cmp('!=', bytes('fd00 0002 0000 0000 0000 0000 0000 0000')),
      masquerade(),
    ],
    'masquerade, a network of one address': [
      ...ipv4,
      saddr4,
      cmp('==', bytes('0a020002')),
      payload('network', 16, 4),
      cmp('!=', bytes('0a020002')),
      masquerade(),
    ],
    'masquerade, whatever the network': [...ipv4, saddr4, cmp('==', bytes('0a030002')), masquerade()],
    'verdict map': [...ipv4, saddr4, vmap('owners4')],
    'verdict map, IPv6': [...ipv6, saddr6, vmap('owners6')],
    'data map': [...ipv4, saddr4, map('marks'), setMeta('mark')],
    'named counter': [counterReference('seen')],
  },
}

describe('a rule is made of what nft makes of it', () => {
  for (const [chain, named] of Object.entries(rules)) {
    for (const [name, expressions] of Object.entries(named)) {
      const held = () => heldBy(new NftTransaction().addRule({ ...table, chain, expressions }))
      test(`${chain}: ${name}`, () => expect(held()).toEqual(nft(`masquerade, ${chain}: ${name}`)))
    }
  }

  test('with a comment of bytes, as they are', () => {
    const expected = heldBy(
      new NftTransaction().addRule({ ...checks, expressions: [masquerade()], comment: 'whole: ü' }),
    )
    const comment = Buffer.from('whole: ü')
    expect(heldBy(new NftTransaction().addRule({ ...checks, expressions: [masquerade()], comment }))).toEqual(expected)
    const [rule] = heldBy(
      new NftTransaction().addRule({ ...checks, expressions: [masquerade()], comment: comment.subarray(0, 8) }),
    )
    expect(rule!.attributes.at(-1)).toEqual([7, `0009${comment.toString('hex', 0, 8)}00`])
    for (const wrong of [new Uint8Array(129).fill(0x78), Uint8Array.of(0x78, 0)]) {
      expect(() => new NftTransaction().addRule({ ...checks, expressions: [], comment: wrong })).toThrow(
        'rule.comment must be up to 128 bytes, none of them zero',
      )
    }
  })

  test('with a comment as long as nft takes', () => {
    const held = new NftTransaction().addRule({ ...checks, expressions: [masquerade()], comment: 'x'.repeat(128) })
    expect(heldBy(held)).toEqual(nft('masquerade, masq_checks: masquerade, a comment of 128 bytes'))
  })
})

describe('a template', () => {
  const template = () =>
    new RuleTemplate({
      ...checks,
      expressions: [
        ...ipv4,
        saddr4,
        cmp('==', new Hole('address', 4)),
        payload('network', 16, 4),
        bitwise(new Hole('mask', 4), new Uint8Array(4)),
        cmp('!=', new Hole('network', 4)),
        masquerade(),
      ],
    })

  test('makes the rules that its expressions would make', () => {
    const one = { address: bytes('0a011002'), mask: bytes('fffff000'), network: bytes('0a011000') }
    const other = { address: bytes('0a020002'), mask: bytes('ffff0000'), network: bytes('0a020000') }
    const made = new NftTransaction()
    const [first, second] = [template(), template()]
    made.addRuleFrom(first, one).addRuleFrom(first, other, 'a comment').addRuleFrom(second, one)
    const expected = ({ address, mask, network }: typeof one) => [
      ...ipv4,
      saddr4,
      cmp('==', address),
      payload('network', 16, 4),
      bitwise(mask, new Uint8Array(4)),
      cmp('!=', network),
      masquerade(),
    ]
    const written = new NftTransaction()
      .addRule({ ...checks, expressions: expected(one) })
      .addRule({ ...checks, expressions: expected(other), comment: 'a comment' })
      .addRule({ ...checks, expressions: expected(one) })
    expect(heldBy(made)).toEqual(heldBy(written))
  })

  test('wants a value for each hole, as long as it is', () => {
    const transaction = new NftTransaction()
    const [four, three] = [new Uint8Array(4), new Uint8Array(3)]
    expect(() => transaction.addRuleFrom(template(), { address: four, mask: four })).toThrow(
      'values.network must be a Uint8Array of 4 bytes',
    )
    expect(() => transaction.addRuleFrom(template(), { address: three, mask: four, network: four })).toThrow(
      'values.address must be a Uint8Array of 4 bytes, not 3 bytes',
    )
    expect(() => transaction.addRuleFrom(undefined as unknown as RuleTemplate, {})).toThrow(
      'template must be a RuleTemplate',
    )
    // What was refused left nothing behind.
    expect(transaction.size).toBe(0)
    expect(heldBy(transaction.addTable(table))).toEqual(heldBy(new NftTransaction().addTable(table)))
  })

  test('is the only place for a hole', () => {
    const rule = { ...checks, expressions: [meta('mark'), cmp('==', new Hole('mark', 4))] }
    expect(() => new NftTransaction().addRule(rule)).toThrow(
      'rule.expressions[1].data must be a value: holes are for a RuleTemplate',
    )
    expect(() => new Hole('none', 0)).toThrow('bytes must be an integer from 1 to 64')
  })
})

describe('elements by their keys', () => {
  const v4 = ['0a000002', '0a000003', '0a000004']
  const v6 = ['fd000000000000000000000000000002', 'fd000000000000000000000000000003']
  const texts = ['an owner', undefined, 'ü'.repeat(64), Buffer.from('cut within \xc3', 'latin1')]

  test.each([
    ['verdicts', 'owners4', v4, jump('subnet'), undefined],
    ['verdicts and comments', 'owners4', v4, jump('a chain of another length'), texts.slice(0, 3)],
    ['comments alone', 'names', v6, undefined, texts.slice(2)],
    ['IPv6', 'owners6', v6, verdict('drop'), texts.slice(0, 2)],
    ['keys that are no words', 'protocols', ['06', '11'], undefined, texts.slice(0, 2)],
  ])('with %s are what they are in a list', (_, name, keys, held, comments) => {
    const elements = keys.map((key, i) => ({
      key: bytes(key),
      ...(held && { verdict: held }),
      ...(comments?.[i] !== undefined && { comment: comments[i] }),
    }))
    const packed = { keyBytes: keys[0]!.length / 2, keys: bytes(keys.join('')) }
    const given = { ...set(name), ...packed, ...(held && { verdict: held }), ...(comments && { comments }) }
    const made = new NftTransaction().addElements(given)
    expect(heldBy(made)).toEqual(heldBy(new NftTransaction().addElements({ ...set(name), elements })))
  })

  const two = { ...set('owners4'), keyBytes: 4, keys: new Uint8Array(8) }
  const some = jump('subnet')
  test.each<[string, (t: NftTransaction) => unknown, string]>([
    ['too few comments', (t) => t.addElements({ ...two, comments: ['one'] }), 'elements.comments must be 2 comments'],
    ['no list', (t) => t.addElements({ ...two, comments: 'ab' as never }), 'elements.comments must be an array'],
    ['one too long', (t) => t.addElements({ ...two, comments: ['', 'x'.repeat(129)] }), 'elements.comments[1] must be'],
    ['no verdict', (t) => t.addElements({ ...two, verdict: 'drop' as never }), 'elements.verdict must be a verdict'],
    ['a goto to no chain', (t) => t.addElements({ ...two, verdict: { verdict: 'goto' } as never }), 'verdict.chain'],
    ['a verdict to delete', (t) => t.deleteElements({ ...two, verdict: some }), 'elements.verdict must be left out'],
    ['comments to delete', (t) => t.deleteElements({ ...two, comments: ['', ''] }), 'elements.comments must be left'],
    ['a list beside it', (t) => t.addElements({ ...set('s'), elements: [], verdict: some }), 'left out where'],
  ])('with %s are refused', (_, change, message) => {
    const transaction = new NftTransaction()
    expect(() => change(transaction)).toThrow(message)
    expect(transaction.size).toBe(0)
  })
})

describe('elements and sets that cannot be are refused', () => {
  const key = new Uint8Array(4)
  const add = (element: unknown) => () =>
    new NftTransaction().addElements({ ...set('s'), elements: [{ key }, element as { key: Uint8Array }] })
  const cases: [string, () => unknown, string][] = [
    ['no key', add({}), 'elements.elements[1].key must be a Uint8Array of 1 to 64 bytes'],
    ['a key too long', add({ key: new Uint8Array(65) }), 'elements.elements[1].key must be'],
    ['no element', add(null), 'elements.elements[1] must be an element, not null'],
    ['a misspelled property', add({ key, coment: 'c' }), 'elements.elements[1].coment must be left out: there are key'],
    ['a verdict by its name', add({ key, verdict: 'drop' }), 'elements.elements[1].verdict must be a verdict'],
    ['a goto to no chain', add({ key, verdict: { verdict: 'goto' } }), 'elements[1].verdict.chain must be a name'],
    ['two values', add({ key, verdict: verdict('drop'), data: key }), 'elements[1].data must be left out'],
    ['an endless timeout', add({ key, timeoutMs: Infinity }), 'elements[1].timeoutMs must be an integer from 1'],
    ['a comment too long', add({ key, comment: 'x'.repeat(129) }), 'elements[1].comment must be a string of up to 128'],
    [
      'keys and elements at once',
      () => new NftTransaction().addElements({ ...set('s'), keyBytes: 4, keys: key, elements: [] }),
      'elements.elements must be left out where there are keys',
    ],
    [
      'a type of another length',
      () => new NftTransaction().addSet({ ...set('s'), type: 'ipv4_addr', keyBytes: 3 }),
      'set.keyBytes must be left out, or the 4 bytes of ipv4_addr, not 3',
    ],
    [
      'a field of a key with a type',
      () => new NftTransaction().addSet({ ...set('s'), type: 'mark', typeof: { offset: 0, length: 32 } }),
      'set.typeof must be left out: keys of type mark need none',
    ],
    [
      'a map to integers of no length',
      () => new NftTransaction().addSet({ ...set('s'), type: 'mark', map: 'integer' }),
      "set.map must be one of 'verdict'",
    ],
    [
      'a flag that there is not',
      () => new NftTransaction().addSet({ ...set('s'), type: 'mark', flags: ['intervall' as 'interval'] }),
      "did you mean 'interval'?",
    ],
    [
      'a count that is none',
      () => new NftTransaction().addCounter({ ...table, counter: 'c', packets: 1 as unknown as bigint }),
      'counter.packets must be a bigint',
    ],
  ]
  for (const [name, change, message] of cases) test(name, () => expect(change).toThrow(message))
})
