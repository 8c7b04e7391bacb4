import { Masquerade } from 'xfrmesh/masquerade'

const masquerade = await Masquerade.open({ layout: 'set' })
const eth0 = { network: 'podnet', interfaceName: 'eth0' }

// Any number in one transaction. What leaves from an address to outside its subnet gets the host's.
const containers = Array.from({ length: 10_000 }, (_, i) => ({
  ...eth0,
  containerId: `container-${i}`,
  addresses: [`10.88.${i >> 8}.${i & 255}/16`],
}))
const { added } = await masquerade.add(containers)
console.log({ added })

// Two have an address for a moment. Each takes away only its own.
await masquerade.add([{ ...eth0, containerId: 'next', addresses: ['10.88.0.7/16', '2001:db8::7/64'] }])
await masquerade.remove([{ ...eth0, containerId: 'container-7' }])

// All of the network but the one that lives.
const { removed } = await masquerade.collect('podnet', [{ interfaceName: 'eth0', containerId: 'next' }])
console.log({ removed })
console.log(await masquerade.list())
await masquerade.close()
