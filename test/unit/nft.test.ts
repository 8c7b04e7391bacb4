import { describe, expect, test } from 'vitest'
import { InvalidArgument } from '../../lib/base/errors.js'
import {
  bitwise,
  cmp,
  exthdr,
  counter,
  goto,
  hostU32,
  immediate,
  jump,
  lookup,
  meta,
  payload,
  rt,
  setMeta,
  u16,
  u8,
  verdict,
  xfrm,
  type Expression,
} from '../../lib/kernel/nft-expressions.js'
import { NftTransaction } from '../../lib/kernel/nft-transaction.js'
import { Nft } from '../../lib/kernel/nft.js'
import { guardOf } from '../../lib/overlay/guard.js'
import { elementsOf, replacing } from '../../lib/overlay/guard-table.js'
import { heldBy, nft, type Message as Sent } from './nft-wire.js'
import { VniSet } from '../../lib/overlay/vni-set.js'

const table = { family: 'inet', table: 'xfrmesh_58464d' } as const
const set = { ...table, set: 'encrypted-vnis' } as const
const MARK = 0x58464d
const VNI = { offset: 96, length: 24 }

const changes: Record<string, (transaction: NftTransaction) => NftTransaction> = {
  'add a table with a comment': (t) => t.addTable({ ...table, comment: 'networks that xfrmesh encrypts' }),
  'add a table that exists': (t) => t.addTable(table),
  'delete a table': (t) => t.deleteTable(table),
  'add a set with a comment': (t) => t.addSet({ ...set, keyBytes: 3, typeof: VNI, comment: 'VNIs' }),
  'delete a set': (t) => t.deleteSet({ ...table, set: 'few' }),
  'flush a set': (t) => t.flushSet(set),
  'add elements': (t) => t.addElements(elementsOf(table, new VniSet([0x1000, 0x1001]))),
  'delete elements': (t) => t.deleteElements(elementsOf(table, new VniSet([0x1000, 0x1001]))),
  'add the base chain output': (t) =>
    t.addChain({
      ...table,
      chain: 'output',
      base: { type: 'route', hook: 'output', priority: -150, policy: 'accept' },
    }),
  'add the base chain input': (t) =>
    t.addChain({ ...table, chain: 'input', base: { type: 'filter', hook: 'input', priority: -300, policy: 'accept' } }),
  'add the base chain postrouting': (t) =>
    t.addChain({
      ...table,
      chain: 'postrouting',
      base: { type: 'filter', hook: 'postrouting', priority: 300, policy: 'accept' },
    }),
  'add a plain chain': (t) => t.addChain({ ...table, chain: 'guard-in' }),
  'add a plain chain with a comment': (t) => t.addChain({ ...table, chain: 'guard-out', comment: 'out' }),
  'delete a chain': (t) => t.deleteChain({ ...table, chain: 'output' }),
  'flush a chain': (t) => t.flushChain({ ...table, chain: 'output' }),
  'rule at the head of its chain': (t) =>
    t.addRule({ ...table, chain: 'guard-in', expressions: [counter(), verdict('accept')], at: 'head' }),
  'delete a rule that is not there: ENOENT': (t) => t.deleteRule({ ...table, chain: 'output', handle: 65535 }),
}

describe('a transaction holds what nft sends', () => {
  for (const [name, change] of Object.entries(changes)) {
    test(name, () => expect(heldBy(change(new NftTransaction()))).toEqual(nft(name)))
  }

  test('rule, output: comment', () => {
    const rule = { ...table, chain: 'output', expressions: [...udpTo(4789), counter()], comment: 'set by xfrmesh' }
    expect(heldBy(new NftTransaction().addRule(rule))).toEqual(nft('rule, output: comment'))
  })
})

const udp = [meta('l4proto'), cmp('==', u8(17))]
const udpTo = (port: number) => [...udp, payload('transport', 2, 2), cmp('==', u16(port))]
const vni = payload('transport', 12, 3)
const bytes = (hex: string) => Buffer.from(hex, 'hex')
const port = payload('transport', 0, 2)

const rules: Record<string, Record<string, Expression[]>> = {
  output: {
    'mark packets of encrypted networks': [
      ...udpTo(4789),
      vni,
      lookup('encrypted-vnis'),
      counter(),
      immediate(hostU32(MARK)),
      setMeta('mark'),
    ],
    'bits of the mark set, the rest kept': [meta('mark'), bitwise(hostU32(0xff000000), hostU32(MARK)), setMeta('mark')],
    'bits of the mark compared': [
      meta('mark'),
      bitwise(hostU32(0xffffff), hostU32(0)),
      cmp('==', hostU32(MARK)),
      verdict('return'),
    ],
    'sender of the packet': [meta('skuid'), cmp('==', hostU32(0)), verdict('return')],
    'any sender but one': [meta('skuid'), cmp('!=', hostU32(65534)), verdict('return')],
    'index of the loopback interface': [meta('oif'), cmp('==', hostU32(1)), verdict('return')],
  },
  input: {
    'jump for good': [...udpTo(4789), goto('guard-in')],
    'jump and return': [...udpTo(4789), jump('guard-in')],
    'port range': [...udp, port, cmp('>=', u16(49152)), cmp('<=', u16(65535)), verdict('accept')],
    'any port but one': [...udp, payload('transport', 2, 2), cmp('!=', u16(4789)), verdict('accept')],
    family: [meta('nfproto'), cmp('==', u8(10)), verdict('accept')],
    'IPv4 address': [
      meta('nfproto'),
      cmp('==', u8(2)),
      payload('network', 16, 4),
      cmp('==', bytes('0a010001')),
      verdict('accept'),
    ],
    'no IPsec at all': [meta('secpath'), cmp('==', u8(0)), verdict('drop')],
    'first fragment': [
      meta('nfproto'),
      cmp('==', u8(10)),
      exthdr(44, 2, 2),
      bitwise(u16(0xfff8), u16(0)),
      cmp('==', u16(0)),
      verdict('drop'),
    ],
  },
  'guard-in': {
    'not in the set': [vni, lookup('encrypted-vnis', true), verdict('return')],
    'one VNI': [vni, cmp('==', bytes('001000')), verdict('return')],
    'came under our reqid': [xfrm('in', 'reqid'), cmp('==', hostU32(MARK)), verdict('return')],
    'came under our reqid, at depth 5': [xfrm('in', 'reqid', 5), cmp('==', hostU32(MARK)), verdict('return')],
    'came under an SPI': [xfrm('in', 'spi'), cmp('==', bytes('00001000')), verdict('return')],
    drop: [verdict('drop')],
    'count and drop': [counter(), verdict('drop')],
    'count from': [counter(5n, 400n), verdict('drop')],
  },
  'guard-out': {
    'goes out under our reqid': [xfrm('out', 'reqid'), cmp('==', hostU32(MARK)), verdict('return')],
    'no IPsec on the route': [rt('xfrm'), cmp('==', u8(0)), verdict('drop')],
  },
}

describe('a rule is made of what nft makes it of', () => {
  for (const [chain, named] of Object.entries(rules)) {
    for (const [name, expressions] of Object.entries(named)) {
      const held = () => heldBy(new NftTransaction().addRule({ ...table, chain, expressions }))
      test(`${chain}: ${name}`, () => expect(held()).toEqual(nft(`rule, ${chain}: ${name}`)))
    }
  }
})

const guard = guardOf({ mark: MARK, port: 4789, exclusive: false, linksElsewhere: true })

test('the whole guard is what nft makes of its text, and replaces whatever is there', () => {
  const held = heldBy(replacing(table, guard, new VniSet([0x1000, 0x1001])))
  const byType = (messages: Sent[]) => messages.toSorted((a, b) => a.type - b.type)
  const [first, second, ...rest] = nft('replace the table in one transaction')
  expect(held.slice(0, 2)).toEqual([first, second])
  expect(byType(held.slice(2))).toEqual(byType(rest))
})

describe('what cannot be is refused before anything is sent', () => {
  const refused = (change: (t: NftTransaction) => unknown) => {
    try {
      change(new NftTransaction())
    } catch (error) {
      expect(error).toBeInstanceOf(InvalidArgument)
      return (error as InvalidArgument).message
    }
    return 'taken'
  }
  const rule = (...expressions: unknown[]) => ({ ...table, chain: 'c', expressions: expressions as Expression[] })

  const cases: [string, (t: NftTransaction) => unknown, string][] = [
    ['an unknown family', (t) => t.addTable({ family: 'inet6' as 'inet', table: 't' }), 'family must be one of'],
    [
      'an empty name',
      (t) => t.addTable({ ...table, table: '' }),
      'table.table must be a name of 1 to 255 bytes, not ""',
    ],
    ['a name too long in bytes', (t) => t.addTable({ ...table, table: 'é'.repeat(128) }), 'table.table must be'],
    ['a NUL in a name', (t) => t.deleteTable({ ...table, table: 'a\0b' }), 'table.table must be'],
    ['a comment too long', (t) => t.addTable({ ...table, comment: 'x'.repeat(129) }), 'up to 128 bytes'],
    [
      'a misspelled option',
      (t) => t.addSet({ ...set, keyByte: 3 } as unknown as Parameters<typeof t.addSet>[0]),
      "did you mean 'keyBytes'?",
    ],
    [
      'a set of no key',
      (t) => t.addSet({ ...set, keyBytes: 0 }),
      'set.keyBytes must be an integer from 1 to 64, not 0',
    ],
    [
      'a field unlike the keys',
      (t) => t.addSet({ ...set, keyBytes: 4, typeof: VNI }),
      'the 32 bits of the keys, not 24',
    ],
    ['half a key', (t) => t.addElements({ ...set, keyBytes: 3, keys: new Uint8Array(4) }), 'keys of 3 bytes each'],
    [
      'an unknown hook',
      (t) => t.addChain({ ...table, chain: 'c', base: { type: 'filter', hook: 'ouput' as 'output', priority: 0 } }),
      "did you mean 'output'?",
    ],
    ['no handle', (t) => t.deleteRule({ ...table, chain: 'c', handle: 0 }), 'rule.handle must be an integer from 1'],
    [
      'no expression',
      (t) => t.addRule(rule({ kind: 'metta' })),
      "rule.expressions[0].kind must be one of 'meta', 'meta-set',",
    ],
    ['null for an expression', (t) => t.addRule(rule(null)), 'rule.expressions[0] must be an expression, not null'],
    ['a text for one', (t) => t.addRule(rule(counter(), 'drop')), 'rule.expressions[1] must be an expression'],
    ...[
      'meta',
      'meta-set',
      'payload',
      'cmp',
      'lookup',
      'immediate',
      'verdict',
      'bitwise',
      'counter',
      'rt',
      'xfrm',
      'other',
    ].map((kind): (typeof cases)[number] => [
      `an expression that has nothing but its kind, ${kind}`,
      (t) => t.addRule(rule({ kind })),
      'rule.expressions[0].',
    ]),
    [
      'an expression with a field too many',
      (t) => t.addRule(rule({ ...counter(), packet: 1n })),
      "expressions[0].packet must be left out: there is no such option (did you mean 'packets'?)",
    ],
    [
      'a count below 0',
      (t) => t.addRule(rule(counter(-1n))),
      'expressions[0].packets must be a bigint from 0 to 2^64 - 1, not -1n',
    ],
    ['a count past 64 bits', (t) => t.addRule(rule(counter(0n, 1n << 70n))), 'expressions[0].bytes must be a bigint'],
    [
      'a count that is no bigint',
      (t) => t.addRule(rule(counter(1 as unknown as bigint))),
      'expressions[0].packets must be a bigint',
    ],
    [
      'an inversion that is none',
      (t) => t.addRule(rule(lookup('s', 'no' as unknown as boolean))),
      'expressions[0].inverted must be true or false',
    ],
    [
      'a jump to no chain',
      (t) => t.addRule(rule({ kind: 'verdict', verdict: 'jump' })),
      'expressions[0].chain must be a name',
    ],
    [
      'a chain that nothing goes to',
      (t) => t.addRule(rule({ kind: 'verdict', verdict: 'accept', chain: 'c' })),
      'expressions[0].chain must be left out',
    ],
    [
      'attributes that are no bytes',
      (t) => t.addRule(rule({ kind: 'other', name: 'log', attributes: [1] })),
      'expressions[0].attributes must be a Uint8Array',
    ],
    ['9 bits in a byte', () => u8(256), 'value must be an integer from 0 to 255, not 256'],
    ['17 bits in two bytes', () => u16(65536), 'value must be an integer from 0 to 65535, not 65536'],
    ['a negative number in four bytes', () => hostU32(-1), 'value must be an integer from 0 to 4294967295, not -1'],
    ['an unknown key', (t) => t.addRule(rule(counter(), meta('marc' as 'mark'))), 'expressions[1].key must be one of'],
    [
      'a register too high',
      (t) => t.addRule(rule(meta('mark', 24))),
      'expressions[0].register must be an integer from 1',
    ],
    [
      'an empty value',
      (t) => t.addRule(rule(cmp('==', new Uint8Array()))),
      'expressions[0].data must be 1 to 64 bytes',
    ],
    [
      'too deep a path',
      (t) => t.addRule(rule(xfrm('in', 'reqid', 6))),
      'expressions[0].depth must be an integer from 0 to 5',
    ],
    ['masks of two lengths', (t) => t.addRule(rule(bitwise(u8(1), u16(1)))), 'expressions[0].xor must be as long as'],
    ['a rule too long', (t) => t.addRule(rule(...Array<Expression>(5000).fill(counter()))), 'less than 64 KiB'],
  ]
  for (const [name, change, message] of cases) {
    test(name, () => expect(refused(change)).toContain(message))
  }

  test('what is no transaction', async () => {
    const nft = Object.create(Nft.prototype) as Nft
    for (const value of [{}, undefined, null, []] as unknown[]) {
      const committed = nft.commit(value as NftTransaction)
      await expect(committed).rejects.toThrow(InvalidArgument)
      await expect(committed).rejects.toThrow('transaction must be an NftTransaction')
    }
  })

  test('each property is read once: what was checked is what is sent', () => {
    const once = <T extends object>(value: T): T => {
      const fickle = {} as T
      for (const [name, held] of Object.entries(value)) {
        const answers: unknown[] = [held]
        Object.defineProperty(fickle, name, { get: () => answers.pop() ?? 0, enumerable: true })
      }
      return fickle
    }
    const fill = (of: <T extends object>(value: T) => T) =>
      new NftTransaction()
        .addTable(of({ ...table, comment: 'c' }))
        .addChain(
          of({ ...table, chain: 'c', base: of({ type: 'filter', hook: 'input', priority: 1, policy: 'drop' }) }),
        )
        .addSet(of({ ...set, keyBytes: 3, typeof: of(VNI) }))
        .addElements(of({ ...set, keyBytes: 1, keys: u8(1) }))
        .addRule(
          of({
            ...table,
            chain: 'c',
            at: 'head',
            comment: 'c',
            expressions: [vni, bitwise(u8(1), u8(2)), counter(1n, 2n), lookup('s', true), jump('c')].map(of),
          }),
        )
        .deleteRule(of({ ...table, chain: 'c', handle: 7 }))
        .flushChain(of({ ...table, chain: 'c' }))
        .flushSet(of(set))
        .deleteSet(of(set))
        .deleteTable(of(table))
    expect(fill(once).take()).toEqual(fill((value) => value).take())
  })

  test('a transaction a second time', () => {
    const transaction = new NftTransaction().addTable(table)
    transaction.take()
    expect(() => transaction.take()).toThrow('was committed')
    expect(() => transaction.addTable(table)).toThrow('was committed')
  })

  test('nothing is no change', () => {
    const transaction = new NftTransaction()
      .addElements(elementsOf(table, VniSet.none))
      .deleteElements(elementsOf(table, VniSet.none))
    expect(transaction.size).toBe(0)
  })
})
