import { cmp, counter, meta, Nft, NftTransaction, payload, u16, u8, verdict } from 'xfrmesh/nft'

const nft = await Nft.open()
const table = { family: 'inet', table: 'example' }
const IPPROTO_UDP = 17

// All or nothing: one transaction, one answer.
const transaction = new NftTransaction()
  .addTable(table)
  .addChain({ ...table, chain: 'input', base: { type: 'filter', hook: 'input', priority: -300, policy: 'accept' } })
  .addRule({
    ...table,
    chain: 'input',
    expressions: [
      meta('l4proto'),
      cmp('==', u8(IPPROTO_UDP)),
      payload('transport', 2, 2),
      cmp('==', u16(4789)),
      counter(),
      verdict('drop'),
    ],
    comment: 'no VXLAN here',
  })
const { failures } = await nft.commit(transaction)
console.log({ failures })

for (const { chain, handle, comment } of await nft.rules(table)) console.log({ chain, handle, comment })
await nft.close()
