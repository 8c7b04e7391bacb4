import { monitorEventLoopDelay } from 'node:perf_hooks'
import { expect, test } from 'vitest'
import { deriveSpi, Overlay } from '../../lib/index.js'
import { inNetns, withNetns } from './netns.js'

/** Ten thousand peers, as another tool sees them; the figures are printed, not judged. */

const PEERS = 10_000
const local = '10.0.0.1'
const peers = Array.from({ length: PEERS }, (_, i) => `10.1.${i >> 8}.${i & 0xff}`)
const key = (tag: number) => ({ tag, value: new Uint8Array(16).fill(tag) })

test('10,000 peers with 3 keys are added, rotated and removed', async () => {
  await withNetns(async (netns) => {
    await using overlay = await Overlay.open({ local, netns, timeoutMs: 60_000 })
    await overlay.addNetworks([4096])
    await overlay.setKeys([key(1), key(2), key(3)])
    const delay = monitorEventLoopDelay({ resolution: 1 })
    const say = (what: string, { operations, elapsedMs }: { operations: number; elapsedMs: number }) => {
      const each = (elapsedMs * 1000) / operations
      const p99 = delay.percentile(99) / 1e6
      console.log(
        `${what}: ${operations} operations, ${elapsedMs.toFixed(0)} ms, ${each.toFixed(1)} µs each; event loop p99 ${p99.toFixed(2)} ms`,
      )
      delay.reset()
    }

    await new Promise((resolve) => setTimeout(resolve, 500))
    delay.enable()
    await new Promise((resolve) => setTimeout(resolve, 500))
    say('idle', { operations: 1, elapsedMs: 500 })
    const added = await overlay.addPeers(peers)
    say('add', added)
    expect(added).toMatchObject({ requested: PEERS, applied: PEERS, unchanged: 0, operations: PEERS * 4 })
    expect(await spis(netns)).toEqual(expected([1, 2, 3], 1))

    const again = await overlay.addPeers(peers)
    expect(again).toMatchObject({ unchanged: PEERS, operations: 0 })
    await overlay.removePeers(peers)

    const rotated = await overlay.updateKeys({ add: key(4), primary: 4, prune: 1 })
    say('rotate', rotated)
    expect(rotated.operations).toBe(PEERS * 4)
    expect(await spis(netns)).toEqual(expected([2, 3, 4], 4))
    expect(await overlay.reconcile({ dryRun: true })).toMatchObject({ added: 0, updated: 0, removed: 0 })
    delay.reset()

    const removed = await overlay.removePeers(peers)
    say('remove', removed)
    expect(removed).toMatchObject({ applied: PEERS, operations: PEERS * 4 })
    expect(await spis(netns)).toEqual([])
  })
})

/** The SPIs that these keys give, in order: from each peer under each key, and to each peer under the primary. */
function expected(tags: number[], primary: number): number[] {
  const reverse = peers.flatMap((peer) => tags.map((tag) => deriveSpi(peer, local, tag)))
  return [...reverse, ...peers.map((peer) => deriveSpi(local, peer, primary))].sort((a, b) => a - b)
}

/** The SPIs of all SAs, as `ip` prints them, in order. */
async function spis(netns: string): Promise<number[]> {
  const text = await inNetns(netns, 'ip', 'xfrm', 'state', 'list', 'nokeys')
  return Array.from(text.matchAll(/ spi 0x([0-9a-f]{8}) /g), ([, spi]) => Number.parseInt(spi!, 16)).sort(
    (a, b) => a - b,
  )
}
