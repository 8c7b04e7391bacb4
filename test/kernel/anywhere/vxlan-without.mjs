/** Makes, deletes and lists links in a namespace, and prints what that came to: errors, and how many links are there. */
import process from 'node:process'
import { createVxlan, deleteVxlan, listVxlan } from '../../../dist/vxlan/index.js'

const netns = process.argv[2]
const outcome = (promise) =>
  promise.then(
    () => 'done',
    ({ code, missing }) => ({ code, missing }),
  )
process.stdout.write(
  JSON.stringify([
    await outcome(createVxlan({ name: 'other', vni: 2, netns })),
    await outcome(deleteVxlan({ name: 'vx', netns })),
    (await listVxlan({ netns })).length,
  ]),
)
