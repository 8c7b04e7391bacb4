/** Encrypts a network in its own namespace and stops, and prints what that came to. */
import process from 'node:process'
import { Overlay } from '../../../dist/index.js'

const overlay = await Overlay.open({ local: '192.0.2.1' })
const { applied } = await overlay.addNetworks([4096])
await overlay.close({ flush: true })
process.stdout.write(JSON.stringify({ uid: process.getuid(), applied }))
