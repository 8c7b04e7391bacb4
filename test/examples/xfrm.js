import { randomBytes } from 'node:crypto'
import { Xfrm, XfrmBatch } from 'xfrmesh/xfrm'

const xfrm = await Xfrm.open()
const ends = { source: '192.0.2.1', destination: '192.0.2.2' }
// AES-128-GCM: sixteen bytes of key and four of salt.
const aead = { name: 'rfc4106(gcm(aes))', key: randomBytes(20), icvBits: 128 }

const batch = new XfrmBatch()
batch.addState({ ...ends, spi: 0x1000, protocol: 'esp', reqid: 7, aead })
batch.addState({ ...ends, spi: 0x1000, protocol: 'esp', reqid: 7, aead }) // the same again
batch.addPolicy({
  direction: 'out',
  selector: { source: '192.0.2.1/32', destination: '192.0.2.2/32', protocol: 'udp', destinationPort: 4789 },
  templates: [{ reqid: 7, protocol: 'esp', mode: 'transport' }],
})
const { applied, failures } = await xfrm.commit(batch)
console.log({ applied, failures })

for await (const { source, destination, spi, aead } of xfrm.states({ reqid: 7 })) {
  console.log({ source, destination, spi, aead })
}
await xfrm.close()
