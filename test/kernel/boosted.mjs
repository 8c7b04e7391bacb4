/** Commits a batch of policies, boosted, in the namespace given; says so when it is at work, and waits to be killed. */
import process from 'node:process'
import { Xfrm, XfrmBatch } from '../../dist/kernel/xfrm.js'

const xfrm = await Xfrm.open({ netns: process.argv[2], boost: true })
for (let round = 0; ; round++) {
  const batch = new XfrmBatch()
  for (let i = 0; i < 20_000; i++) {
    const destination = `10.${round}.${i >> 8}.${i & 255}/32`
    batch.addPolicy({ direction: 'out', selector: { source: '10.0.0.1/32', destination }, templates: [{ reqid: 7 }] })
  }
  const committed = xfrm.commit(batch)
  if (round === 0) process.stdout.write('at work\n')
  await committed
}
