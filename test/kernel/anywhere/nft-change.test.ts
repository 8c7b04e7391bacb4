import { describe, expect, test } from 'vitest'
import { Aborted } from '../../../lib/base/errors.js'
import { Channel } from '../../../lib/kernel/channel.js'
import { counter, Nft, NftTransaction } from '../../../lib/kernel/nft.js'
import { NETLINK_NETFILTER } from '../../../lib/native.js'
import { inNetns, withNetns } from '../netns.js'
import { withNft } from './nft.js'

const table = { family: 'inet', table: 't' } as const
const set = { ...table, set: 's' } as const
const chain = { ...table, chain: 'c' } as const

/** Two writers on one namespace, each with a socket of its own. */
async function withTwo(work: (one: Nft, other: Nft, netns: string) => Promise<void>): Promise<void> {
  await withNft(async (one, netns) => {
    const other = await Nft.open({ netns })
    try {
      await work(one, other, netns)
    } finally {
      await other.close()
    }
  })
}

function numbers(keys: readonly Uint8Array[]): number[] {
  return keys.map((key) => Buffer.from(key).readUInt32BE()).sort((a, b) => a - b)
}

function keyOf(number: number): Uint8Array {
  const key = Buffer.alloc(4)
  key.writeUInt32BE(number)
  return key
}

describe('a change', () => {
  test('of what two writers read and write is never lost', () =>
    withTwo(async (one, other) => {
      await one.commit(new NftTransaction().addTable(table).addSet({ ...set, keyBytes: 4 }))
      const rounds = 60
      let builds = 0
      // Each takes the next number: whoever does not see the other's would take it twice, and be told EEXIST or lose it.
      const work = async (nft: Nft) => {
        for (let i = 0; i < rounds; i++) {
          const build = async () => {
            builds++
            const taken = numbers(await nft.keys(set))
            expect(taken).toEqual(taken.map((_, n) => n))
            return new NftTransaction().addElements({ ...set, keyBytes: 4, keys: keyOf(taken.length) })
          }
          expect((await nft.change(build, { tries: 1000 })).failures).toEqual([])
        }
      }
      await Promise.all([work(one), work(other)])
      expect(numbers(await one.keys(set))).toEqual(Array.from({ length: 2 * rounds }, (_, n) => n))
      // They did meet.
      expect(builds).toBeGreaterThan(2 * rounds)
    }))

  test('without the generation of what was read is lost: the test above can fail', () =>
    withTwo(async (one, other) => {
      await one.commit(new NftTransaction().addTable(table).addSet({ ...set, keyBytes: 4 }))
      const take = async (nft: Nft) => {
        const taken = numbers(await nft.keys(set))
        return new NftTransaction().addElements({ ...set, keyBytes: 4, keys: keyOf(taken.length) })
      }
      const [first, second] = [await take(one), await take(other)]
      await one.commit(first)
      await other.commit(second)
      expect(numbers(await one.keys(set))).toEqual([0])
    }))

  test('says which generation it made, and what it made', () =>
    withNft(async (nft) => {
      const change = () => new NftTransaction().addTable(table).addChain(chain)
      const { failures, generation, handles } = await nft.change(change, { echo: true })
      expect(failures).toEqual([])
      expect(generation).toBe(await nft.generation())
      expect(handles).toEqual(Float64Array.of((await nft.table(table))!.handle, (await nft.chains(table))[0]!.handle))
      const { failures: refused, generation: none } = await nft.change(() =>
        new NftTransaction().deleteChain({ ...chain, chain: 'none' }),
      )
      expect(refused).toMatchObject([{ code: 'ENOENT', subject: 'chain none of table inet t' }])
      expect(none).toBeUndefined()
    }))

  test('that is none sends nothing', () =>
    withNft(async (nft) => {
      const generation = await nft.generation()
      expect(await nft.change(() => undefined)).toMatchObject({ failures: [], generation })
      expect(await nft.change(() => new NftTransaction())).toMatchObject({ failures: [], generation })
      expect(await nft.generation()).toBe(generation)
    }))

  test('is built anew when the ruleset changed meanwhile, whatever was read, or thrown', () =>
    withTwo(async (one, other) => {
      let builds = 0
      const disturb = () => other.commit(new NftTransaction().addTable({ ...table, table: `t${++builds}` }))
      await one.change(async () => {
        if (builds === 0) {
          await disturb()
          throw new Error('two halves of two states')
        }
        if (builds === 1) {
          await disturb()
          return undefined
        }
        if (builds === 2) await disturb()
        return new NftTransaction().addTable(table)
      })
      expect(builds).toBe(3)
      expect((await one.tables()).map(({ table: name }) => name).sort()).toEqual(['t', 't1', 't2', 't3'])
    }))

  test('is given up in the end, and on what build throws of itself at once', () =>
    withTwo(async (one, other) => {
      let builds = 0
      const disturbed = async () => {
        await other.commit(new NftTransaction().addTable({ ...table, table: `t${++builds}` }))
        return new NftTransaction().addTable(table)
      }
      await expect(one.change(disturbed, { tries: 3 })).rejects.toMatchObject({ code: 'ERR_XFRMESH_BUSY' })
      expect(builds).toBe(3)
      expect(await one.table(table)).toBeUndefined()
      let calls = 0
      const refused = one.change(() => {
        calls++
        throw new Error('of another shape')
      })
      await expect(refused).rejects.toThrow('of another shape')
      expect(calls).toBe(1)
    }))

  test('ends when its signal says so', () =>
    withTwo(async (one, other) => {
      const abort = new AbortController()
      let builds = 0
      const disturbed = async () => {
        await other.commit(new NftTransaction().addTable({ ...table, table: `t${++builds}` }))
        if (builds === 5) abort.abort(new Error('enough'))
        return new NftTransaction().addTable(table)
      }
      const aborted = one.change(disturbed, { tries: 1000, signal: abort.signal })
      await expect(aborted).rejects.toThrow(Aborted)
      await expect(aborted).rejects.toMatchObject({ cause: new Error('enough') })
      expect(builds).toBe(5)
      expect(await one.table(table)).toBeUndefined()
    }))
})

describe('handles', () => {
  test('come back for what is made, and for nothing else', () =>
    withNft(async (nft) => {
      const rule = { ...chain, expressions: [counter()] }
      await nft.commit(new NftTransaction().addTable(table))
      const { failures, handles } = await nft.commit(
        new NftTransaction()
          .addTable(table)
          .addChain(chain)
          .addSet({ ...set, keyBytes: 4 })
          .addElements({ ...set, keyBytes: 4, keys: new Uint8Array(4) })
          .addCounter({ ...table, counter: 'n' })
          .addRule({ ...rule, comment: 'second' })
          .addRule({ ...rule, comment: 'first', at: 'head' }),
        { echo: true },
      )
      expect(failures).toEqual([])
      const [rules, [madeChain], [madeSet], [madeCounter]] = await Promise.all([
        nft.rules(table),
        nft.chains(table),
        nft.sets(table),
        nft.counters(table),
      ])
      const [first, second] = rules
      expect(second).toMatchObject({ comment: 'second' })
      const expected = [0, madeChain!.handle, madeSet!.handle, 0, madeCounter!.handle, second!.handle, first!.handle]
      expect(handles).toEqual(Float64Array.from(expected))
      const gone = await nft.commit(new NftTransaction().deleteRule(first!), { echo: true })
      expect(gone.handles).toEqual(Float64Array.of(0))
      expect(await nft.commit(new NftTransaction().addChain(chain))).not.toHaveProperty('handles')
    }))

  test('of thousands of rules in a row come back, though the receive buffer holds only a few', () =>
    withNetns(async (netns) => {
      const nft = await Nft.over(await Channel.open(NETLINK_NETFILTER, { netns, receiveBuffer: 4096 }))
      const count = 3000
      const transaction = new NftTransaction().addTable(table).addChain(chain)
      for (let i = 0; i < count; i++) transaction.addRule({ ...chain, expressions: [counter()], comment: `rule ${i}` })
      const { handles } = await nft.commit(transaction, { echo: true })
      await nft.close()
      const listed = await inNetns(netns, 'nft', '-a', 'list', 'chain', 'inet', 't', 'c')
      const found = Array.from(listed.matchAll(/comment "rule \d+" # handle (\d+)/g), ([, handle]) => Number(handle))
      expect(found).toHaveLength(count)
      expect(Array.from(handles!.subarray(2))).toEqual(found)
    }))

  test('of rules in several chains, with others deleted and put at the head, name each', () =>
    withNft(async (nft, netns) => {
      const count = 300
      const transaction = new NftTransaction()
        .addTable(table)
        .addChain(chain)
        .addChain({ ...chain, chain: 'other' })
      const made: number[] = []
      for (let i = 0; i < count; i++) {
        made.push(transaction.size)
        const where = {
          ...chain,
          chain: i % 7 === 0 ? 'other' : chain.chain,
          at: i % 5 === 0 ? 'head' : 'end',
        } as const
        transaction.addRule({ ...where, expressions: [counter()], comment: `rule ${i}` })
        if (i % 50 === 49) transaction.addSet({ ...set, set: `s${i}`, keyBytes: 4 })
      }
      const first = await nft.commit(transaction, { echo: true })
      const handles = made.map((change) => first.handles![change]!)
      const listed = new Map((await nft.rules(table)).map(({ comment, handle }) => [comment, handle]))
      expect(handles).toEqual(made.map((_, i) => listed.get(`rule ${i}`)))
      const some = new NftTransaction()
      for (const [i, handle] of handles.entries()) {
        if (i !== 8) some.deleteRule({ ...chain, chain: i % 7 === 0 ? 'other' : chain.chain, handle })
      }
      expect((await nft.commit(some)).failures).toEqual([])
      expect(await inNetns(netns, 'nft', 'list', 'table', 'inet', 't')).toContain('comment "rule 8"')
      expect(await nft.rules(table)).toHaveLength(1)
    }))

  test('that the receive buffer does not hold are left out, and all is done', () =>
    withNetns(async (netns) => {
      const nft = await Nft.over(await Channel.open(NETLINK_NETFILTER, { netns, receiveBuffer: 4096 }))
      const count = 500
      const transaction = new NftTransaction().addTable(table).addChain(chain)
      // A rule between chains is told of on its own.
      for (let i = 0; i < count; i++) {
        transaction.addChain({ ...chain, chain: `c${i}` })
        transaction.addRule({ ...chain, expressions: [counter()], comment: `rule ${i}` })
      }
      const result = await nft.commit(transaction, { echo: true })
      expect(result.failures).toEqual([])
      expect(result).not.toHaveProperty('handles')
      expect(await nft.rules(chain)).toHaveLength(count)
      // What was lost is not in the way of the next.
      const more = new NftTransaction().addRule({ ...chain, expressions: [counter()] })
      const { handles } = await nft.commit(more, { echo: true })
      expect(handles).toEqual(Float64Array.of((await nft.rules(chain)).at(-1)!.handle))
      await nft.close()
    }))

  test('of what was refused are none', () =>
    withNft(async (nft) => {
      const transaction = new NftTransaction().addTable(table).deleteChain(chain)
      const result = await nft.commit(transaction, { echo: true })
      expect(result.failures).toMatchObject([{ index: 1, code: 'ENOENT' }])
      expect(result).not.toHaveProperty('handles')
      expect(await nft.tables()).toEqual([])
    }))
})
