/** Adds policies, boosted, in the namespace given, and says so: to open has the switch tried, on and off. */
import process from 'node:process'
import { Xfrm, XfrmBatch } from '../../dist/kernel/xfrm.js'

const batch = new XfrmBatch()
for (let i = 0; i < 20_000; i++) {
  const destination = `10.1.${i >> 8}.${i & 255}/32`
  batch.addPolicy({ direction: 'out', selector: { source: '10.0.0.1/32', destination }, templates: [{ reqid: 7 }] })
}
const xfrm = await Xfrm.open({ netns: process.argv[2], boost: true, timeoutMs: 600_000 })
const committed = xfrm.commit(batch)
process.stdout.write('at work\n')
await committed
await xfrm.close()
