/** Sets whose hash tables still grow, which they do for a while after many elements were added, and how they are read. */
import { expect, test } from 'vitest'
import { NftTransaction } from '../../../lib/kernel/nft.js'
import { withNft } from '../anywhere/nft.js'
import { feedNetns } from '../netns.js'

const table = { family: 'inet', table: 't' } as const
const set = { ...table, set: 's', keyBytes: 4 } as const
const COUNT = 50_000

test('none of its elements is left out, and none comes twice', () =>
  withNft(async (nft) => {
    const keys = new Uint8Array(new Uint32Array(COUNT).map((_, i) => i).buffer)
    for (let round = 0; round < 5; round++) {
      await nft.commit(
        new NftTransaction()
          .addTable(table)
          .addSet({ ...set, type: 'mark' })
          .addElements({ ...set, keys }),
      )
      for (const read of [nft.keys(set), nft.elements(set).then((elements) => elements.map(({ key }) => key))]) {
        const found = (await read).map((key) => new DataView(key.buffer, key.byteOffset).getUint32(0))
        expect([found.length, new Set(found).size]).toEqual([COUNT, COUNT])
      }
      await nft.commit(new NftTransaction().deleteTable(table))
    }
  }))

test('ranges that touch are no sign of it', () =>
  withNft(async (nft, netns) => {
    const ranges =
      'table inet t { set s { type inet_service; flags interval; elements = { 1-5, 6-10, 10000-65535 }; }\n}'
    await feedNetns(netns, ranges, 'nft', '-f', '-')
    expect((await nft.keys(set)).map((key) => (key[0]! << 8) | key[1]!).sort((a, b) => a - b)).toEqual([
      0, 1, 6, 6, 11, 10000,
    ])
  }))
