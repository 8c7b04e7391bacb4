/** Opens an Overlay as JSON says, takes over what is there, says so, and holds it until it is killed. */
import process from 'node:process'
import { setInterval } from 'node:timers'
import { Overlay } from '../../dist/index.js'

const { options, networks, keys, peers } = JSON.parse(process.argv[2])
const overlay = await Overlay.open(options)
await overlay.addNetworks(networks)
await overlay.setKeys(keys.map(({ tag, value }) => ({ tag, value: Uint8Array.from(value) })))
const { operations } = await overlay.addPeers(peers)
process.stdout.write(`holding after ${operations} operations\n`)
setInterval(() => undefined, 1000)
