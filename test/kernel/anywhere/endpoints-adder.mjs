/** Moves endpoints to and fro without end, until it is killed. Arguments: a namespace's path, the link, how many. */
import process from 'node:process'
import { Endpoints } from '../../../dist/vxlan/index.js'

const [netns, link, count] = process.argv.slice(2)
const endpoints = new Endpoints({ link, netns })
const list = (moves) =>
  Array.from({ length: Number(count) }, (_, i) => {
    const low = [(i >> 8) & 255, i & 255]
    const mac = `02:42:0a:00:${low.map((byte) => byte.toString(16).padStart(2, '0')).join(':')}`
    return { ip: `10.0.${low.join('.')}`, mac, vtep: `192.0.${2 + (moves % 2)}.1` }
  })
await endpoints.add(list(0).slice(0, 10))
process.stdout.write('open\n')
for (let moves = 0; ; moves++) await endpoints.add(list(moves))
