/**
 * A guard against slow changes that nobody meant: what an operation costs on our side of the kernel, in instructions and
 * in ratios, which are the same on a busy machine. Times are the benchmark's.
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { YesKernel } from '../../bench/harness/recording.js'
import { threadMs } from '../../bench/harness/sessions.js'
import { KEYS, NEXT_KEY, peerAddresses } from '../../bench/xfrm/common.js'
import { Overlay } from '#dist/index.js'

/** Seen with g++ 12, and a quarter more, for another compiler. */
const MOST_INSTRUCTIONS = {
  'encode state': 626 * 1.25,
  'decode state': 930 * 1.25,
  'encode policy': 547 * 1.25,
  'decode policy': 758 * 1.25,
}

test('an operation takes no more instructions from record to message, and back, than it did', async () => {
  const { stdout } = await promisify(execFile)('native/test/cost.sh')
  const counted = JSON.parse(stdout) as Record<string, number>
  expect(Object.keys(counted)).toEqual(Object.keys(MOST_INSTRUCTIONS))
  for (const [what, most] of Object.entries(MOST_INSTRUCTIONS)) {
    expect(counted[what]).toBeGreaterThan(0)
    expect({ what, instructions: counted[what] }).toSatisfy(({ instructions }) => instructions <= most)
  }
})

test('ten times the peers take ten times the work of the JavaScript thread, not a hundred times', async () => {
  // What is compiled as it runs, and what else the machine does, makes some rounds longer: the shortest counts.
  const each = async (size: number) => {
    const rounds: number[] = []
    for (let i = 0; i < 5; i++) rounds.push((await workOf(size)) / size)
    return Math.min(...rounds)
  }
  await each(4000)
  expect((await each(40_000)) / (await each(4000))).toBeLessThan(4)
})

/** Milliseconds of the JavaScript thread for peers that are added, rotated and removed. */
async function workOf(size: number): Promise<number> {
  const peers = peerAddresses(size)
  await using overlay = Overlay.over({ local: '10.100.0.1', firewall: 'none' }, new YesKernel(false).ports)
  await overlay.setKeys(KEYS)
  const before = threadMs()
  await overlay.addPeers(peers)
  await overlay.updateKeys({ add: NEXT_KEY, primary: 2, prune: 1 })
  await overlay.removePeers(peers)
  return threadMs() - before
}
