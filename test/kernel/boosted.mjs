/** Commits a batch of policies, boosted, in the namespace given; says so when it is at work. */
import process from 'node:process'
import { Xfrm, XfrmBatch } from '../../dist/kernel/xfrm.js'

const [netns, policies] = [process.argv[2], Number(process.argv[3])]
const batch = new XfrmBatch()
for (let i = 0; i < policies; i++) {
  const destination = `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}/32`
  batch.addPolicy({ direction: 'out', selector: { source: '10.0.0.1/32', destination }, templates: [{ reqid: 7 }] })
}
const xfrm = await Xfrm.open({ netns, boost: true })
const committed = xfrm.commit(batch)
process.stdout.write('at work\n')
await committed
await xfrm.close()
