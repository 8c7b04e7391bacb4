import { randomBytes } from 'node:crypto'
import { Overlay, overlayMtu } from 'xfrmesh'

// Its own interface says 10.0.0.5; the others know it as 203.0.113.7.
const nat = { port: 4500, keepalive: 20, onMapping: (mapping) => console.log('packets come from', mapping) }
const overlay = await Overlay.open({ local: '10.0.0.5', advertise: '203.0.113.7', nat })
await overlay.addNetworks([4096])
await overlay.setKeys([{ tag: 1, value: randomBytes(16) }])

// For the one a router keeps port 41000. The other's port is assumed to be 4500, and learned from its packets.
await overlay.addPeers([{ address: '203.0.113.9', port: 41000 }, '198.51.100.2'])
for (const { address, port } of overlay.peers) console.log(address, port)

// Another node behind the address of the first.
try {
  await overlay.addPeers([{ address: '203.0.113.9', port: 42000 }])
} catch (error) {
  console.log(error.code, error.argument)
}

console.log('MTU of the VXLAN links:', overlayMtu({ mtu: 1500, nat }))
console.log((await overlay.status()).nat.ports)
await overlay.close({ flush: true })
