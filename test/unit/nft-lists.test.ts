import { describe, expect, test } from 'vitest'
import { readElements, readKeys } from '../../lib/kernel/nft-element-list.js'
import { goto, jump, verdict, type Expression } from '../../lib/kernel/nft-expressions.js'
import { readChains, readCounters, readSets, readTables } from '../../lib/kernel/nft-lists.js'
import { Message } from '../../lib/kernel/nft-names.js'
import { readRules } from '../../lib/kernel/nft-rule-list.js'
import { guardOf } from '../../lib/overlay/guard.js'
import { capture, captures, isAnswer, joined, receivedBy, sentBy } from './nft-wire.js'

const table = { family: 'inet', table: 'xfrmesh_58464d' } as const
const masquerade = { family: 'inet', table: 'cni_plugins_masquerade' } as const
const LIST = 'masquerade: list in JSON'

/** What the kernel answered, of one kind. */
function answers(name: string, type: number): Uint8Array {
  return joined(receivedBy(capture(name)).filter((message) => isAnswer(message, type)))
}

/** A message of nft's with a handle, as the kernel gives it back. */
function withHandle(hex: string): Uint8Array {
  const message = Buffer.from(`${hex}0c0003000000000000000001`, 'hex')
  message.writeUInt32LE(message.length)
  return Uint8Array.from(message)
}

/** The rules that nft sent until the list, per chain and in order, as the kernel should have them. */
function rulesSentBefore(name: string, from: number): Map<string, Expression[][]> {
  const sent = new Map<string, Expression[][]>()
  for (const one of captures.slice(from, captures.indexOf(capture(name)))) {
    if (one.name.includes(': E')) continue
    for (const [i, message] of sentBy(one).entries()) {
      if (message.type !== Message.newRule) continue
      const [rule] = readRules(withHandle(one.sent[i + 1]!), table, { expressions: true })
      const chain = sent.get(rule!.chain) ?? []
      if (one.name === 'rule at the head of its chain') chain.unshift([...rule!.expressions])
      else chain.push([...rule!.expressions])
      sent.set(rule!.chain, chain)
    }
  }
  return sent
}

function rulesFound(name: string): Map<string, Expression[][]> {
  const found = new Map<string, Expression[][]>()
  for (const rule of readRules(answers(name, Message.newRule), table, { expressions: true })) {
    found.set(rule.chain, [...(found.get(rule.chain) ?? []), [...rule.expressions]])
  }
  return found
}

describe("the kernel's lists are read back as what was sent", () => {
  test('rules, and none of them as expressions that we do not know', () => {
    const name = 'list every rule in JSON'
    const found = rulesFound(name)
    expect(found).toEqual(rulesSentBefore(name, 0))
    expect([...found.values()].flat(2).map(({ kind }) => kind)).not.toContain('other')
  })

  test('rules that masquerade, and but for random ports none that we do not know', () => {
    const found = rulesFound(LIST)
    expect(found).toEqual(rulesSentBefore(LIST, captures.indexOf(capture('masquerade: table'))))
    const others = [...found.values()].flat(2).filter(({ kind }) => kind === 'other')
    expect(others).toEqual([expect.objectContaining({ name: 'masq' })])
  })

  test('rules without what was not asked for', () => {
    const messages = answers(LIST, Message.newRule)
    const whole = readRules(messages, masquerade, { expressions: true })
    expect(whole.length).toBeGreaterThan(10)
    const listed = readRules(messages, masquerade, {})
    expect(listed).toEqual(whole.map(({ expressions: _, ...rule }) => rule))
    expect(listed.map(({ comment }) => comment)).toContain('an owner')
    const bare = readRules(messages, masquerade, { comments: false })
    expect(bare).toEqual(listed.map((rule) => ({ ...rule, comment: undefined })))
  })

  test('counters of rules', () => {
    const messages = answers('list every rule in JSON', Message.newRule)
    const rules = readRules(messages, table, { expressions: true, counters: true })
    const counted = rules.flatMap(({ counter }) => (counter === undefined ? [] : [counter]))
    expect(counted).toContainEqual({ packets: 5n, bytes: 400n })
    for (const { counter, expressions } of rules) {
      const expected = expressions.find(({ kind }) => kind === 'counter')
      expect(counter && { kind: 'counter', ...counter }).toEqual(expected)
    }
  })

  test('chains', () => {
    const chains = readChains(answers('list the whole guard', Message.newChain))
    const expected = guardOf({ mark: 0x58464d, port: 4789, exclusive: false, linksElsewhere: true }).chains.map(
      ({ chain, base }) => ({ ...table, chain, base }),
    )
    expect(chains).toHaveLength(expected.length)
    for (const one of expected) expect(chains).toContainEqual(expect.objectContaining(one))
    expect(readChains(answers(LIST, Message.newChain))).toContainEqual(
      expect.objectContaining({ ...masquerade, chain: 'masq_checks', base: undefined, comment: 'checks' }),
    )
  })

  test('table, set and keys', () => {
    const name = 'list the whole guard'
    expect(readTables(answers(name, Message.newTable))).toContainEqual(
      expect.objectContaining({ ...table, flags: 0, comment: 'networks that xfrmesh encrypts' }),
    )
    const [found] = readSets(answers(name, Message.newSet))
    expect(found).toMatchObject({ ...table, set: 'encrypted-vnis', type: 'integer', keyBytes: 3, flags: 0 })
    const keys = readKeys(answers('list 300 elements in JSON', Message.newElements))
    const numbers = keys.map((key) => Buffer.from(key).readUIntBE(0, 3)).sort((a, b) => a - b)
    expect(numbers).toEqual(Array.from({ length: 300 }, (_, i) => 0x2000 + i))
  })

  test('maps and sets of each kind', () => {
    const nothing = { map: undefined, timeoutMs: undefined, size: undefined, comment: undefined }
    const expected = [
      { set: 'owners4', type: 'ipv4_addr', keyBytes: 4, flags: 8, map: 'verdict', comment: 'by address' },
      { set: 'owners6', type: 'ipv6_addr', keyBytes: 16, flags: 8, map: 'verdict' },
      { set: 'marks', type: 'ipv4_addr', keyBytes: 4, flags: 12, map: 'mark' },
      { set: 'names', type: 'ifname', keyBytes: 16, flags: 16, timeoutMs: 7_200_000, size: 100 },
      { set: 'ports', type: 'inet_service', keyBytes: 2, flags: 32, size: 100 },
      { set: 'fixed', type: 'ether_addr', keyBytes: 6, flags: 2 },
      { set: 'protocols', type: 'inet_proto', keyBytes: 1, flags: 0 },
      { set: 'marked', type: 'mark', keyBytes: 4, flags: 0 },
    ]
    const found = readSets(answers(LIST, Message.newSet))
    expect(found).toEqual(
      expected.map((set) => ({ ...nothing, ...masquerade, ...set, handle: expect.any(Number) as number })),
    )
  })

  test('elements with all that is in them', () => {
    const found = readElements(answers(LIST, Message.newElements))
    const byKey = new Map(found.map((element) => [Buffer.from(element.key).toString('hex'), element]))
    const nothing = {
      verdict: undefined,
      data: undefined,
      intervalEnd: false,
      comment: undefined,
      counter: undefined,
      timeoutMs: undefined,
      expiresMs: undefined,
    }
    const element = (key: string, value: object) => ({
      ...nothing,
      key: Uint8Array.from(Buffer.from(key, 'hex')),
      ...value,
    })
    const of = (key: string, value: object) => [key, element(key, value)] as const
    const [eth0, eth1] = ['eth0', 'eth1'].map((name) => Buffer.alloc(16, `${name}${'\0'.repeat(12)}`).toString('hex'))
    const left = expect.any(Number) as number
    const expected = [
      of('0a000002', { verdict: goto('subnet'), comment: 'an owner' }),
      of(`fd00${'0'.repeat(27)}2`, { verdict: goto('subnet') }),
      of('00000000', { intervalEnd: true }),
      of('0a00000a', { intervalEnd: true }),
      of(eth0!, { timeoutMs: 3_600_000, expiresMs: left }),
      of(eth1!, { expiresMs: left, comment: 'second' }),
    ]
    for (const [key, value] of expected) expect(byKey.get(key)).toEqual(value)
    // That key is in two maps.
    expect(found).toContainEqual(element('0a000004', { verdict: verdict('drop') }))
    const data = Uint8Array.of(7, 0, 0, 0)
    const counter = { packets: 0n, bytes: 0n }
    expect(found).toContainEqual(element('0a000004', { data, comment: 'six', counter }))
    expect(found).not.toContainEqual(expect.objectContaining({ verdict: jump('subnet') }))
    expect(found).toHaveLength(8)
  })

  test('one element', () => {
    const [found, ...more] = readElements(answers('masquerade: get an element in JSON', Message.newElements)).filter(
      ({ comment }) => comment === 'an owner',
    )
    expect(found).toMatchObject({ key: Uint8Array.of(10, 0, 0, 2), verdict: goto('subnet') })
    expect(more).toHaveLength(1)
  })

  test('counters with names', () => {
    expect(readCounters(answers(LIST, Message.newObject))).toEqual([
      {
        ...masquerade,
        counter: 'seen',
        handle: expect.any(Number) as number,
        packets: 3n,
        bytes: 400n,
        use: 1,
        comment: 'some',
      },
    ])
  })
})
