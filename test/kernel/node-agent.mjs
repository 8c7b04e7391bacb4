/**
 * A node's agent that does what it is told until it is killed. Arguments, as JSON: what NodeEncryption.open takes, but that
 * keys are a path; the other nodes; and the steps to go through, each 'prepare', 'commit' or 'reclaim' with the path of a key
 * file where it needs one. Says 'open', and each step once it is done; then waits.
 */
import process from 'node:process'
import { setInterval } from 'node:timers'
import { loadKeysFile, NodeEncryption } from '../../dist/node/index.js'

const { options, nodes, steps } = JSON.parse(process.argv[2])
const say = (word) => process.stdout.write(`${word}\n`)
const node = await NodeEncryption.open({ ...options, keys: await loadKeysFile(options.keys) })
await node.upsert(nodes)
say('open')
for (const [step, path] of steps) {
  if (step === 'prepare') await node.prepare(await loadKeysFile(path))
  else if (step === 'commit') await node.commit()
  else await node.reclaim({ after: 0 })
  say(step)
}
setInterval(() => undefined, 1000)
