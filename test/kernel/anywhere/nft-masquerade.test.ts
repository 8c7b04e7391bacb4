import { describe, expect, test } from 'vitest'
import {
  bitwise,
  cmp,
  counterReference,
  goto,
  Hole,
  map,
  masquerade,
  meta,
  NftTransaction,
  payload,
  RuleTemplate,
  setMeta,
  u8,
  verdict,
  vmap,
} from '../../../lib/kernel/nft.js'
import { feedNetns, inNetns } from '../netns.js'
import { withNft } from './nft.js'

const table = { family: 'inet', table: 't' } as const
const checks = { ...table, chain: 'checks' } as const
const owners = { ...table, set: 'owners' } as const
const address = (last: number) => Uint8Array.of(10, 0, 0, last)

/** What `nft` makes of this, it must say of ours too. */
const ruleset = `
  table inet t {
    comment "a table"
    counter seen { comment "some"; packets 3 bytes 400; }
    map owners { type ipv4_addr : verdict; comment "by address"; }
    map owners6 { type ipv6_addr : verdict; }
    map marks { type ipv4_addr : mark; }
    set names { type ifname; flags timeout; timeout 2h; size 100; }
    set ranges { type inet_service; flags interval; }
    set counting { type ipv4_addr; counter; }
    chain subnet {
      ip daddr 10.0.0.0/24 return
      masquerade
    }
    chain checks {
      comment "checks"
      ip saddr 10.1.16.2 ip daddr != 10.1.16.0/20 masquerade comment "an owner"
      ip6 saddr fd00::2 ip6 daddr != fd00::/64 masquerade
      ip saddr vmap @owners
      ip6 saddr vmap @owners6
      meta mark set ip saddr map @marks
      counter name "seen"
    }
    chain postrouting {
      type nat hook postrouting priority srcnat; policy accept;
      goto checks
    }
  }
  add element inet t owners { 10.0.0.2 comment "an owner" : goto subnet, 10.0.0.4 : drop }
  add element inet t owners6 { fd00::3 : goto subnet }
  add element inet t marks { 10.0.0.4 comment "six" : 7 }
  add element inet t names { "eth0" comment "second" }
  add element inet t ranges { 100-200 }
  add element inet t counting { 10.0.0.9 }
`

const ipv4 = [meta('nfproto'), cmp('==', u8(2))]
const ipv6 = [meta('nfproto'), cmp('==', u8(10))]
const saddr4 = payload('network', 12, 4)
const daddr4 = (bytes: number) => payload('network', 16, bytes)
const saddr6 = payload('network', 8, 16)
const address6 = (last: number) => Uint8Array.of(0xfd, ...new Uint8Array(14), last)
const nameOf = (name: string) => Uint8Array.from(Buffer.from(name.padEnd(16, '\0')))

function ours(): NftTransaction {
  const template = new RuleTemplate({
    ...checks,
    expressions: [
      ...ipv4,
      saddr4,
      cmp('==', new Hole('address', 4)),
      daddr4(4),
      bitwise(new Hole('mask', 4), new Uint8Array(4)),
      cmp('!=', new Hole('network', 4)),
      masquerade(),
    ],
  })
  const template6 = new RuleTemplate({
    ...checks,
    expressions: [
      ...ipv6,
      saddr6,
      cmp('==', new Hole('address', 16)),
      payload('network', 24, 8),
      cmp('!=', new Hole('network', 8)),
      masquerade(),
    ],
  })
  const rule = { address: Uint8Array.of(10, 1, 16, 2), mask: Uint8Array.of(255, 255, 240, 0) }
  const postrouting = { ...table, chain: 'postrouting' }
  return new NftTransaction()
    .addTable({ ...table, comment: 'a table' })
    .addCounter({ ...table, counter: 'seen', packets: 3n, bytes: 400n, comment: 'some' })
    .addSet({ ...owners, type: 'ipv4_addr', map: 'verdict', comment: 'by address' })
    .addSet({ ...table, set: 'owners6', type: 'ipv6_addr', map: 'verdict' })
    .addSet({ ...table, set: 'marks', type: 'ipv4_addr', map: 'mark' })
    .addSet({ ...table, set: 'names', type: 'ifname', timeoutMs: 7_200_000, size: 100 })
    .addSet({ ...table, set: 'ranges', type: 'inet_service', flags: ['interval'] })
    .addSet({ ...table, set: 'counting', type: 'ipv4_addr', counters: true })
    .addChain({ ...table, chain: 'subnet' })
    .addChain({ ...checks, comment: 'checks' })
    .addChain({ ...postrouting, base: { type: 'nat', hook: 'postrouting', priority: 100 } })
    .addRule({
      ...table,
      chain: 'subnet',
      expressions: [...ipv4, daddr4(3), cmp('==', Uint8Array.of(10, 0, 0)), verdict('return')],
    })
    .addRule({ ...table, chain: 'subnet', expressions: [masquerade()] })
    .addRuleFrom(template, { ...rule, network: Uint8Array.of(10, 1, 16, 0) }, 'an owner')
    .addRuleFrom(template6, { address: address6(2), network: address6(0).subarray(0, 8) })
    .addRule({ ...checks, expressions: [...ipv4, saddr4, vmap('owners')] })
    .addRule({ ...checks, expressions: [...ipv6, saddr6, vmap('owners6')] })
    .addRule({ ...checks, expressions: [...ipv4, saddr4, map('marks'), setMeta('mark')] })
    .addRule({ ...checks, expressions: [counterReference('seen')] })
    .addRule({ ...postrouting, expressions: [goto('checks')] })
    .addElements({
      ...owners,
      elements: [
        { key: address(2), verdict: goto('subnet'), comment: 'an owner' },
        { key: address(4), verdict: verdict('drop') },
      ],
    })
    .addElements({ ...table, set: 'owners6', elements: [{ key: address6(3), verdict: goto('subnet') }] })
    .addElements({
      ...table,
      set: 'marks',
      elements: [{ key: address(4), data: Uint8Array.of(7, 0, 0, 0), comment: 'six' }],
    })
    .addElements({ ...table, set: 'names', elements: [{ key: nameOf('eth0'), comment: 'second' }] })
    .addElements({
      ...table,
      set: 'ranges',
      elements: [
        { key: Uint8Array.of(0, 0), intervalEnd: true },
        { key: Uint8Array.of(0, 100) },
        { key: Uint8Array.of(0, 201), intervalEnd: true },
      ],
    })
    .addElements({ ...table, set: 'counting', keyBytes: 4, keys: address(9) })
}

/** What `nft` lists, without how much of a timeout is left. */
async function listed(netns: string): Promise<string> {
  const text = await inNetns(netns, 'nft', 'list', 'ruleset')
  return text.replace(/ expires \w+/g, '')
}

describe('masquerading', () => {
  test('is listed by nft as its own text is', () =>
    withNft(async (nft, netns) => {
      await feedNetns(netns, ruleset, 'nft', '-f', '-')
      const expected = await listed(netns)
      await inNetns(netns, 'nft', 'flush', 'ruleset')
      expect((await nft.commit(ours())).failures).toEqual([])
      expect(await listed(netns)).toBe(expected)
      expect(expected).toContain('10.0.0.2 comment "an owner" : goto subnet')
    }))

  test('made by nft is read as ours is', () =>
    withNft(async (nft, netns) => {
      const read = async () => {
        const sets = await nft.sets(table)
        const elements = await Promise.all(sets.map(async ({ set }) => nft.elements({ ...table, set })))
        const withoutClock = elements.map((list) =>
          list
            .map((element) => ({ ...element, expiresMs: element.expiresMs !== undefined }))
            .sort((a, b) => Buffer.compare(a.key, b.key)),
        )
        const withoutHandle = <T extends { handle: number }>(list: readonly T[]) =>
          list.map(({ handle: _, ...rest }) => rest)
        return {
          tables: withoutHandle(await nft.tables()),
          chains: withoutHandle(await nft.chains(table)),
          rules: withoutHandle(await nft.rules(table, { expressions: true, counters: true })),
          counters: withoutHandle(await nft.counters(table)),
          sets: withoutHandle(sets),
          elements: withoutClock,
        }
      }
      await feedNetns(netns, ruleset, 'nft', '-f', '-')
      const expected = await read()
      await inNetns(netns, 'nft', 'flush', 'ruleset')
      await nft.commit(ours())
      expect(await read()).toEqual(expected)
      expect(expected.elements.flat()).toHaveLength(9)
      expect(expected.counters).toMatchObject([{ counter: 'seen', packets: 3n, bytes: 400n, use: 1, comment: 'some' }])
      expect(expected.sets.find(({ set }) => set === 'owners')).toMatchObject({ type: 'ipv4_addr', map: 'verdict' })
    }))

  test('is listed in part: one family, one chain, one element, comments or not', () =>
    withNft(async (nft, netns) => {
      await nft.commit(ours())
      await inNetns(netns, 'nft', 'add', 'table', 'ip', 'other')
      expect(await nft.tables({ family: 'ip' })).toMatchObject([{ family: 'ip', table: 'other', use: 0 }])
      expect((await nft.tables()).map(({ table }) => table).sort()).toEqual(['other', 't'])
      const rules = await nft.rules(checks)
      expect(rules.map(({ chain, comment }) => [chain, comment])).toEqual([
        ['checks', 'an owner'],
        ...Array<unknown>(5).fill(['checks', undefined]),
      ])
      expect((await nft.rules(checks, { comments: false }))[0]).toEqual({ ...rules[0], comment: undefined })
      expect(await nft.rules({ ...table, chain: 'none' })).toEqual([])
      expect(await nft.rules(table)).toHaveLength(9)

      expect(await nft.element(owners, address(2))).toMatchObject({ verdict: goto('subnet'), comment: 'an owner' })
      expect(await nft.element(owners, address(3))).toBeUndefined()
      expect(await nft.element({ ...table, set: 'none' }, address(2))).toBeUndefined()
      const names = await nft.element({ ...table, set: 'names' }, nameOf('eth0'))
      expect(names).toMatchObject({ comment: 'second' })
      expect(names!.expiresMs).toBeGreaterThan(0)
      expect(names!.expiresMs).toBeLessThanOrEqual(7_200_000)
      expect(await nft.elements({ ...table, set: 'none' })).toEqual([])
      expect(await nft.counters({ ...table, table: 'none' })).toEqual([])
    }))

  test('is taken away by what was listed', () =>
    withNft(async (nft) => {
      await nft.commit(ours())
      const transaction = new NftTransaction()
      for (const rule of await nft.rules(table)) transaction.deleteRule(rule)
      for (const { set } of await nft.sets(table)) {
        transaction.deleteElements({ ...table, set, elements: await nft.elements({ ...table, set }) })
      }
      expect((await nft.commit(transaction)).failures).toEqual([])
      expect(await nft.rules(table)).toEqual([])
      for (const set of await nft.sets(table)) expect(await nft.keys(set)).toEqual([])
      const rest = new NftTransaction()
      for (const set of await nft.sets(table)) rest.deleteSet(set)
      for (const chain of await nft.chains(table)) rest.deleteChain(chain)
      for (const counter of await nft.counters(table)) rest.deleteCounter(counter)
      expect((await nft.commit(rest)).failures).toEqual([])
      expect(await nft.tables()).toMatchObject([{ ...table, use: 0 }])
    }))

  test('of an address that is mapped already is nothing new, or refused', () =>
    withNft(async (nft) => {
      await nft.commit(ours())
      const add = (comment: string, to: string) =>
        nft.commit(
          new NftTransaction()
            .addChain({ ...table, chain: to })
            .addElements({ ...owners, elements: [{ key: address(2), verdict: goto(to), comment }] }),
        )
      expect((await add('another owner', 'subnet')).failures).toEqual([])
      expect(await nft.element(owners, address(2))).toMatchObject({ comment: 'an owner' })
      const { failures } = await add('another owner', 'elsewhere')
      expect(failures).toMatchObject([{ index: 1, code: 'EEXIST' }])
      // As one change: out with the old, in with the new.
      const replaced = new NftTransaction()
        .deleteElements({ ...owners, keyBytes: 4, keys: address(2) })
        .addElements({ ...owners, elements: [{ key: address(2), verdict: goto('subnet'), comment: 'another owner' }] })
      expect((await nft.commit(replaced)).failures).toEqual([])
      expect(await nft.element(owners, address(2))).toMatchObject({ comment: 'another owner' })
    }))
})
