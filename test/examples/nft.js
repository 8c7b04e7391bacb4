import { cmp, counter, Hole, meta, Nft, NftTransaction, payload, RuleTemplate, u8, verdict } from 'xfrmesh/nft'

const nft = await Nft.open()
const table = { family: 'inet', table: 'example' }
const chain = { ...table, chain: 'input' }
const blocked = { ...table, set: 'blocked' }
const IPPROTO_UDP = 17

// Of ten thousand rules that differ in a port: one template. All or nothing: one transaction, one answer.
const template = new RuleTemplate({
  ...chain,
  expressions: [
    ...[meta('l4proto'), cmp('==', u8(IPPROTO_UDP))],
    ...[payload('transport', 2, 2), cmp('==', new Hole('port', 2))],
    ...[counter(), verdict('drop')],
  ],
})
const transaction = new NftTransaction()
  .addTable(table)
  .addSet({ ...blocked, type: 'ipv4_addr' })
  .addChain({ ...chain, base: { type: 'filter', hook: 'input', priority: -300, policy: 'accept' } })
for (let port = 20_000; port < 30_000; port++) {
  transaction.addRuleFrom(template, { port: Uint8Array.of(port >> 8, port) }, `no service at ${port}`)
}
const { failures, handles } = await nft.commit(transaction, { echo: true })
console.log({ failures, handles: handles.length })

const [first, ...others] = await nft.rules(chain)
console.log(first.comment, 'and', others.length, 'others')

// What is there decides what is to be done: built anew if somebody else changed the ruleset meanwhile.
await nft.change(async () => {
  const element = { key: Uint8Array.of(192, 0, 2, 1), comment: 'seen scanning' }
  if (await nft.element(blocked, element.key)) return undefined
  return new NftTransaction().addElements({ ...blocked, elements: [element] })
})
for (const { key, comment } of await nft.elements(blocked)) console.log(key.join('.'), comment)
await nft.close()
