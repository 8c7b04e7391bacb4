/** Opens an Xfrm, in the namespace of the path given or this process's own, and prints what that came to. */
import process from 'node:process'
import { Xfrm } from '../../../dist/kernel/xfrm.js'

const netns = process.argv[2]
const { code, missing } = await Xfrm.open(netns === undefined ? {} : { netns }).then(
  (xfrm) => xfrm.close().then(() => ({})),
  (error) => error,
)
process.stdout.write(JSON.stringify({ code, missing }))
