/**
 * Encrypts as many networks as it is told, at once, and prints, a line, what checkHost says of them and what that came to;
 * again for each line of its input.
 */
import process from 'node:process'
import { createInterface } from 'node:readline'
import { checkHost, Overlay } from '../../dist/index.js'

const count = Number(process.argv[2])
const networks = Array.from({ length: count }, (_, i) => i)

async function attempt() {
  const check = (await checkHost({ networks: count })).find(({ name }) => name === 'net.core.wmem_max')
  const overlay = await Overlay.open({ local: '192.0.2.1' })
  const outcome = await overlay.addNetworks(networks).then(
    ({ applied }) => ({ applied }),
    ({ missing }) => ({ missing }),
  )
  await overlay.close()
  process.stdout.write(`${JSON.stringify({ check, outcome })}\n`)
}

await attempt()
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]()
while (!(await lines.next()).done) await attempt()
