/**
 * Works on an Overlay until it is killed, from the moment it starts: takes over what is there, then rotates without end.
 * Arguments: what Overlay.open takes, the peers, and the tags to go through, as JSON. Says 'open' and 'rotating'.
 */
import process from 'node:process'
import { Overlay } from '../../dist/index.js'

const { options, networks, peers, tags } = JSON.parse(process.argv[2])
const key = ({ tag, value }) => ({ tag, value: Uint8Array.from(value) })
const [always, ...turns] = tags.map(key)

const overlay = await Overlay.open(options)
process.stdout.write('open\n')
await overlay.addNetworks(networks)
await overlay.setKeys([turns[0], always])
await overlay.addPeers(peers)
process.stdout.write('rotating\n')
for (let turn = 1; ; turn++) await overlay.setKeys([turns[turn % turns.length], always])
