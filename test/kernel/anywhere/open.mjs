/** Opens an Xfrm in this process's namespace and prints what that came to. */
import process from 'node:process'
import { Xfrm } from '../../../dist/kernel/xfrm.js'

const { code, missing } = await Xfrm.open().then(
  (xfrm) => xfrm.close().then(() => ({})),
  (error) => error,
)
process.stdout.write(JSON.stringify({ code, missing }))
