import { randomBytes } from 'node:crypto'
import { Overlay, overlayMtu } from 'xfrmesh'

const overlay = await Overlay.open({ local: '192.0.2.1' })

// From here on nothing of this network leaves or enters in the clear.
await overlay.addNetworks([4096])

// The first key is primary: it encrypts. All decrypt.
await overlay.setKeys([{ tag: 1, value: randomBytes(16) }])

const peers = Array.from({ length: 2000 }, (_, i) => `198.18.${i >> 8}.${i & 255}`)
const { applied, operations, failures } = await overlay.addPeers(peers)
console.log({ applied, operations, failures })

// A rotation. In a mesh each step is taken on all nodes before the next.
await overlay.updateKeys({ add: { tag: 2, value: randomBytes(16) } })
await overlay.updateKeys({ primary: 2 })
await overlay.updateKeys({ prune: 1 })
console.log(overlay.peers.get('198.18.0.7'))

// Make the kernel match, whatever happened to it meanwhile: nothing did.
console.log(await overlay.reconcile())

console.log('MTU of the VXLAN links:', overlayMtu({ mtu: 1500 }))
await overlay.close({ flush: true })
