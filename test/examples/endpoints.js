import { randomBytes } from 'node:crypto'
import { Overlay } from 'xfrmesh'
import { createVxlan, Endpoints } from 'xfrmesh/vxlan'

const overlay = await Overlay.open({ local: '192.0.2.1' })
await overlay.addNetworks([4096])
await overlay.setKeys([{ tag: 1, value: randomBytes(16) }])
await createVxlan({ name: 'vx4096', vni: 4096, local: '192.0.2.1', mtu: 1424, learning: false })
const link = new Endpoints({ link: 'vx4096' })

// Containers, ten at each of 200 nodes: SAs with all nodes, then the neighbour and the FDB entry of each container.
const hex = (byte) => byte.toString(16).padStart(2, '0')
const container = (i, vtep = `198.18.${i % 200}.1`) => {
  const [high, low] = [i >> 8, i & 255]
  return { ip: `10.0.${high}.${low}`, mac: `02:42:0a:00:${hex(high)}:${hex(low)}`, vtep }
}
const containers = Array.from({ length: 2000 }, (_, i) => container(i + 1))
const { applied, operations } = await overlay.addEndpoints(link, containers)
console.log({ applied, operations }, overlay.peers.get('198.18.7.1').references)

// One moves to a new node: SAs with that, then its FDB entry. That it was elsewhere is no news any more.
console.log((await overlay.addEndpoints(link, [container(7, '198.18.200.1')])).operations)
const { unchanged } = await overlay.removeEndpoints(link, containers)
console.log(
  unchanged,
  [...overlay.peers].map(({ address, references }) => ({ address, references })),
)

await overlay.close({ flush: true })
await link.close()
