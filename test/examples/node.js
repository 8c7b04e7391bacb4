import { randomBytes } from 'node:crypto'
import { NodeEncryption, parseKeys } from 'xfrmesh/node'

// In earnest loadKeysFile() or watchKeysFile(): all nodes have the same file.
const keys = (id) => parseKeys(`${id} rfc4106(gcm(aes)) ${randomBytes(20).toString('hex')} 128\n`)

const node = await NodeEncryption.open({
  local: { addresses: ['192.0.2.1', '2001:db8::1'], subnets: ['10.0.0.0/24', 'fd00::/64'] },
  keys: keys(3),
})

// From here on nothing between pods here and there leaves or enters in the clear.
const others = Array.from({ length: 250 }, (_, i) => ({
  name: `node${i}`,
  addresses: [`198.18.${i >> 8}.${i & 255}`, `2001:db8:1::${i.toString(16)}`],
  subnets: [`10.${1 + (i >> 8)}.${i & 255}.0/24`, `fd00:1:${i.toString(16)}::/64`],
  bootId: `00000000-0000-4000-8000-${String(i).padStart(12, '0')}`,
}))
const { applied, operations, failures } = await node.upsert(others)
console.log({ applied, operations, failures })

// A rotation. All nodes have prepared before any commits; old keys decrypt until they are reclaimed.
const next = keys(4)
await node.prepare(next)
await node.commit()
await node.reclaim({ after: 0 })
console.log((await node.status()).keys)

// It booted anew: keys derive from boot ids too.
const [first] = others
await node.upsert([{ ...first, bootId: 'ffffffff-0000-4000-8000-000000000000' }])
await node.remove(['node7'])

// Make the kernel match, whatever happened to it meanwhile: nothing did.
console.log(await node.reconcile())
await node.close({ flush: true })
