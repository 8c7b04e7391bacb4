import { createVxlan, deleteVxlan, LinkDiffers, listVxlan } from 'xfrmesh/vxlan'

// Without UDP checksums, which ESP hides from a NAT. With bridge and moveTo it is attached, in another namespace, at once.
const link = { name: 'vx4096', vni: 4096, local: '192.0.2.1', mtu: 1424, learning: false }
console.log(await createVxlan(link))

// Asked for again, what is there is left alone, and what differs is said.
console.log((await createVxlan(link)).created)
try {
  await createVxlan({ ...link, port: 4790, learning: true })
} catch (error) {
  if (!(error instanceof LinkDiffers)) throw error
  console.log(error.differences)
}

// Any number in one call.
const links = Array.from({ length: 20 }, (_, i) => ({ ...link, name: `vx${i}`, vni: i }))
await createVxlan(links)
const listed = await listVxlan()
console.log(listed.length, listed.filter(({ udpChecksum }) => udpChecksum).length)
console.log(await deleteVxlan({ vni: 4096 }), await deleteVxlan({ vni: 4096 }))
