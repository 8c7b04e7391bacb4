import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { InvalidArgument, InvalidState, Unsupported } from '../../../lib/base/errors.js'
import {
  cmp,
  counter,
  counterReference,
  goto,
  jump,
  lookup,
  meta,
  Nft,
  NftTransaction,
  payload,
  u16,
  u8,
  verdict,
  xfrm,
} from '../../../lib/kernel/nft.js'
import { Channel } from '../../../lib/kernel/channel.js'
import { NETLINK_NETFILTER } from '../../../lib/native.js'
import { feedNetns, inNetns, withNetns } from '../netns.js'
import { withNft } from './nft.js'

const table = { family: 'inet', table: 't' } as const
const set = { ...table, set: 's' } as const

/** `nft -j`'s objects of one kind, without what differs from one namespace to the next. */
async function listed(netns: string, kind: string): Promise<Record<string, unknown>[]> {
  const { nftables } = JSON.parse(await inNetns(netns, 'nft', '-j', 'list', 'ruleset')) as {
    nftables: Record<string, Record<string, unknown>>[]
  }
  return nftables.flatMap((object) => (object[kind] === undefined ? [] : [object[kind]]))
}

describe('a transaction', () => {
  test('is done whole, as nft lists it', () =>
    withNft(async (nft, netns) => {
      const transaction = new NftTransaction()
        .addTable({ ...table, comment: 'a table' })
        .addSet({ ...set, keyBytes: 3, typeof: { offset: 96, length: 24 }, comment: 'a set' })
        .addChain({ ...table, chain: 'in', base: { type: 'filter', hook: 'input', priority: -300, policy: 'drop' } })
        .addChain({ ...table, chain: 'plain', comment: 'a chain' })
        .addRule({ ...table, chain: 'plain', expressions: [counter(5n, 400n), verdict('accept')], comment: 'second' })
        .addRule({ ...table, chain: 'plain', expressions: [counter(), goto('other')], at: 'head' })
        .addElements({ ...set, keyBytes: 3, keys: Uint8Array.of(0, 16, 0, 255, 255, 255) })
      // A chain may be named before it is there only if it comes in the same transaction, and earlier.
      const refused = await nft.commit(transaction)
      expect(refused.failures).toEqual([
        {
          index: 5,
          errno: 2,
          code: 'ENOENT',
          message: expect.any(String) as string,
          subject: 'rule 2 for chain plain of table inet t',
        },
      ])
      expect(await listed(netns, 'table')).toEqual([])

      const { failures } = await nft.commit(
        new NftTransaction()
          .addTable({ ...table, comment: 'a table' })
          .addSet({ ...set, keyBytes: 3, typeof: { offset: 96, length: 24 }, comment: 'a set' })
          .addChain({ ...table, chain: 'in', base: { type: 'filter', hook: 'input', priority: -300, policy: 'drop' } })
          .addChain({ ...table, chain: 'plain', comment: 'a chain' })
          .addRule({ ...table, chain: 'plain', expressions: [counter(5n, 400n), verdict('accept')], comment: 'second' })
          .addRule({ ...table, chain: 'plain', expressions: [counter(), verdict('return')], at: 'head' })
          .addElements({ ...set, keyBytes: 3, keys: Uint8Array.of(0, 16, 0, 255, 255, 255) }),
      )
      expect(failures).toEqual([])
      const text = await inNetns(netns, 'nft', 'list', 'ruleset')
      expect(text.replace(/\s+/g, ' ').trim()).toBe(
        'table inet t { comment "a table" set s { typeof @th,96,24 comment "a set" elements = { 0x1000, 0xffffff } } ' +
          'chain in { type filter hook input priority raw; policy drop; } ' +
          'chain plain { comment "a chain" counter packets 0 bytes 0 return ' +
          'counter packets 5 bytes 400 accept comment "second" } }',
      )
    }))

  test('names each change that the kernel refuses', () =>
    withNft(async (nft) => {
      const { failures } = await nft.commit(
        new NftTransaction()
          .deleteTable({ ...table, table: 'none' })
          .addTable(table)
          .deleteChain({ ...table, chain: 'none' }),
      )
      expect(failures.map(({ index, code, subject }) => [index, code, subject])).toEqual([
        [0, 'ENOENT', 'table inet none'],
        [2, 'ENOENT', 'chain none of table inet t'],
      ])
    }))

  test('names the element, the rule, the counter that the kernel refuses', () =>
    withNft(async (nft) => {
      const map = { ...table, set: 'm' }
      const chain = { ...table, chain: 'c' }
      const counting = { ...table, counter: 'n' }
      await nft.commit(
        new NftTransaction()
          .addTable(table)
          .addSet({ ...set, keyBytes: 3 })
          .addSet({ ...map, type: 'ipv4_addr', map: 'verdict' })
          .addChain(chain)
          .addCounter(counting)
          .addRule({ ...chain, expressions: [counterReference('n')] })
          .addElements({ ...map, elements: [{ key: Uint8Array.of(10, 0, 0, 2), verdict: verdict('drop') }] }),
      )
      // More than go into one message; the one that is not there is in the second.
      const keys = new Uint8Array(3 * 5000)
      for (let i = 0; i < 5000; i++) keys.set([1, i >> 8, i], i * 3)
      await nft.commit(new NftTransaction().addElements({ ...set, keyBytes: 3, keys: keys.subarray(0, 3 * 4998) }))
      const elements = [1, 2, 3].map((last) => ({ key: Uint8Array.of(10, 0, 0, last), verdict: verdict('accept') }))
      const { failures } = await nft.commit(
        new NftTransaction()
          .deleteElements({ ...set, keyBytes: 3, keys })
          .addElements({ ...map, elements })
          .addRule({ ...chain, expressions: [verdict('accept')] })
          .addRule({ ...chain, expressions: [jump('none')] })
          .deleteCounter(counting)
          .deleteRule({ ...chain, handle: 1234 })
          .addRule({ ...chain, expressions: [lookup('none')] })
          .flushChain({ ...chain, chain: 'none' })
          .deleteSet({ ...set, set: 'none' }),
      )
      expect(failures.map(({ index, code, subject }) => [index, code, subject])).toEqual([
        [0, 'ENOENT', 'element 0x011386 of set s of table inet t'],
        [1, 'EEXIST', 'element 0x0a000002 of set m of table inet t'],
        [3, 'ENOENT', 'rule 2 for chain c of table inet t'],
        [4, 'EBUSY', 'counter n of table inet t'],
        [5, 'ENOENT', 'rule with handle 1234 of chain c of table inet t'],
        [6, 'ENOENT', 'rule 3 for chain c of table inet t'],
        [7, 'ENOENT', 'rules of chain none of table inet t'],
        [8, 'ENOENT', 'set none of table inet t'],
      ])
    }))

  test('of no changes asks nothing of the kernel', () =>
    withNft(async (nft) => {
      const before = await nft.generation()
      expect(await nft.commit(new NftTransaction())).toEqual({ failures: [], elapsedMs: 0 })
      expect(await nft.generation()).toBe(before)
    }))

  test('of 20,000 elements goes in, and out, at once', () =>
    withNft(async (nft, netns) => {
      const keys = new Uint8Array(60_000)
      for (let i = 0; i < 20_000; i++) keys.set([i >> 16, i >> 8, i], i * 3)
      await nft.commit(new NftTransaction().addTable(table).addSet({ ...set, keyBytes: 3 }))
      const before = await nft.generation()
      expect((await nft.commit(new NftTransaction().addElements({ ...set, keyBytes: 3, keys }))).failures).toEqual([])
      expect(await nft.generation()).toBe(before + 1)
      const [{ elem } = {}] = await listed(netns, 'set')
      expect(new Set(elem as number[])).toEqual(new Set(Array.from({ length: 20_000 }, (_, i) => i)))
      expect((await nft.keys(set)).length).toBe(20_000)

      const most = keys.subarray(3)
      await nft.commit(new NftTransaction().deleteElements({ ...set, keyBytes: 3, keys: most }))
      expect(await nft.keys(set)).toEqual([Uint8Array.of(0, 0, 0)])
      await nft.commit(new NftTransaction().flushSet(set))
      expect(await nft.keys(set)).toEqual([])
    }))

  test('larger than a send is refused, by the name of the limit, and changes nothing', () =>
    withNetns(async (netns) => {
      const nft = await Nft.over(await Channel.open(NETLINK_NETFILTER, { netns, sendBuffer: 32 << 10 }))
      await nft.commit(new NftTransaction().addTable(table).addSet({ ...set, keyBytes: 4 }))
      const fill = (count: number) => {
        const keys = new Uint8Array(count * 4)
        const numbers = new DataView(keys.buffer)
        for (let i = 0; i < count; i++) numbers.setUint32(i * 4, i)
        return nft.commit(new NftTransaction().addElements({ ...set, keyBytes: 4, keys }))
      }
      const refusal = fill(10_000)
      await expect(refusal).rejects.toThrow(Unsupported)
      await expect(refusal).rejects.toMatchObject({ missing: 'net.core.wmem_max' })
      expect(await nft.keys(set)).toEqual([])
      expect((await fill(1000)).failures).toEqual([])
      expect(await nft.keys(set)).toHaveLength(1000)
      await nft.close()
    }))

  test('for a generation is refused once the ruleset is of another', () =>
    withNft(async (nft, netns) => {
      const generation = await nft.generation()
      await inNetns(netns, 'nft', 'add', 'table', 'ip', 'others')
      const late = nft.commit(new NftTransaction().addTable(table), { generation })
      await expect(late).rejects.toMatchObject({ code: 'ERR_XFRMESH_RULESET_CHANGED' })
      expect(await nft.table(table)).toBeUndefined()
      const now = await nft.generation()
      const { generation: since } = await nft.commit(new NftTransaction().addTable(table), { generation: now })
      expect(since).toBe(await nft.generation())
      expect(await nft.table(table)).toMatchObject({ ...table, flags: 0 })
    }))
})

describe('what the kernel has is read', () => {
  const ruleset = `
    table inet t {
      comment "theirs"
      set s { typeof @th,96,24; elements = { 0x1000 }; }
      chain base {
        type route hook output priority -7; policy drop;
        udp dport 4789 counter packets 3 bytes 1 goto plain
      }
      chain plain {
        comment "c"
        ipsec out spnum 2 reqid 7 return comment "r"
        ct state new drop
      }
    }
    table ip others {
      chain plain {
        accept
      }
    }
  `

  test('as nft made it, of one table alone', () =>
    withNft(async (nft, netns) => {
      await feedNetns(netns, ruleset, 'nft', '-f', '-')
      expect(await nft.table(table)).toMatchObject({ ...table, flags: 0, comment: 'theirs' })
      expect(await nft.chains(table)).toMatchObject([
        { ...table, chain: 'base', base: { type: 'route', hook: 'output', priority: -7, policy: 'drop' } },
        { ...table, chain: 'plain', base: undefined, comment: 'c' },
      ])
      expect(await nft.sets(table)).toMatchObject([{ ...set, keyBytes: 3, flags: 0 }])
      const rules = await nft.rules(table, { expressions: true })
      expect(rules).toMatchObject([
        {
          chain: 'base',
          expressions: [
            meta('l4proto'),
            cmp('==', u8(17)),
            payload('transport', 2, 2),
            cmp('==', u16(4789)),
            counter(3n, 1n),
            goto('plain'),
          ],
        },
        { chain: 'plain', comment: 'r' },
        { chain: 'plain' },
      ])
      expect(rules[1]!.expressions[0]).toEqual(xfrm('out', 'reqid', 2))
      expect(rules[2]!.expressions[0]).toMatchObject({ kind: 'other', name: 'ct' })

      // What is not known to us can be given back all the same.
      const copy = { ...table, chain: 'plain', expressions: rules[2]!.expressions }
      await nft.commit(new NftTransaction().addRule(copy).deleteRule(rules[2]!))
      const [first, second] = (await nft.rules(table, { expressions: true })).slice(1)
      expect(first).toEqual(rules[1])
      expect(second).toMatchObject({ expressions: rules[2]!.expressions })
      expect(await inNetns(netns, 'nft', 'list', 'chain', 'inet', 't', 'plain')).toContain('ct state new drop')
    }))

  test('as nothing where there is nothing', () =>
    withNft(async (nft) => {
      expect(await nft.table(table)).toBeUndefined()
      expect(await nft.chains(table)).toEqual([])
      expect(await nft.rules(table, { expressions: true })).toEqual([])
      expect(await nft.sets(table)).toEqual([])
      expect(await nft.keys(set)).toEqual([])
    }))

  test('again while it changes under the reading', () =>
    withNft(async (nft) => {
      let readings = 0
      const { value, generation } = await nft.snapshot(async () => {
        if (++readings < 3) await nft.commit(new NftTransaction().addTable({ ...table, table: `t${readings}` }))
        return readings
      })
      expect(value).toBe(3)
      expect(generation).toBe(await nft.generation())
      const never = nft.snapshot(() => nft.commit(new NftTransaction().addTable({ ...table, table: `t${++readings}` })))
      await expect(never).rejects.toMatchObject({ code: 'ERR_XFRMESH_BUSY' })
    }))
})

describe('it says why it cannot', () => {
  test('in a namespace that is not there', async () => {
    await expect(Nft.open({ netns: '/run/netns/none' })).rejects.toThrow(InvalidArgument)
  })

  test('once closed', () =>
    withNft(async (nft) => {
      await nft.close()
      await expect(nft.generation()).rejects.toThrow(InvalidState)
    }))

  describe('to an ordinary user', () => {
    const NOBODY = 65534
    beforeEach(() => process.seteuid!(NOBODY))
    afterEach(() => process.seteuid!(0))

    test('which capability it takes', async () => {
      await expect(Nft.open()).rejects.toMatchObject({ missing: 'CAP_NET_ADMIN' })
    })
  })
})
