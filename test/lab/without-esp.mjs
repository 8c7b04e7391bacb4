/** Says as JSON what an Overlay of the options in each argument comes to on this kernel: see without-esp.test.ts. */
import { execFileSync } from 'node:child_process'
import process from 'node:process'
import { Overlay } from '../../dist/index.js'

const tool = (...words) => execFileSync('nsenter', [`--net=${netns}`, ...words], { encoding: 'utf8' })
const kernel = () => [
  tool('nft', '--stateless', 'list', 'ruleset'),
  tool('ip', 'xfrm', 'state'),
  tool('ip', 'xfrm', 'policy'),
]
const netns = '/run/netns/without-esp'

for (const text of process.argv.slice(2)) {
  const { options, peer } = JSON.parse(text)
  execFileSync('ip', ['netns', 'add', 'without-esp'])
  const overlay = await Overlay.open({ netns, ...options })
  const { applied } = await overlay.addNetworks([4096])
  await overlay.setKeys([{ tag: 1, value: new Uint8Array(32).fill(1) }])
  const before = kernel()
  const refusal = await overlay.addPeers([peer]).then(
    () => undefined,
    ({ code, missing, message }) => ({ code, missing, message }),
  )
  const { firewall } = await overlay.status()
  const after = kernel()
  const said = { applied, refusal, peers: overlay.peers.size, guarded: firewall.intact, before, after }
  process.stdout.write(`${JSON.stringify(said)}\n`)
  await overlay.close()
  execFileSync('ip', ['netns', 'delete', 'without-esp'])
}
