/** Opens an Overlay, as soon as its lock is free, with options given as JSON, and says how its UDP socket is. */
import process from 'node:process'
import { setInterval } from 'node:timers'
import { setTimeout as sleep } from 'node:timers/promises'
import { Overlay } from '../../../dist/index.js'

process.stdout.write('started\n')
for (;;) {
  const overlay = await Overlay.open(JSON.parse(process.argv[2])).catch((error) => {
    if (error.code !== 'ERR_XFRMESH_LOCKED') throw error
  })
  if (overlay !== undefined) {
    process.stdout.write(JSON.stringify((await overlay.status()).nat))
    break
  }
  await sleep(20)
}
setInterval(() => undefined, 1000)
