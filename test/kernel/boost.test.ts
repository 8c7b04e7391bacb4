import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { Aborted, InvalidArgument } from '../../lib/base/errors.js'
import { type PolicyOptions, Xfrm, XfrmBatch } from '../../lib/kernel/xfrm.js'
import { Overlay } from '../../lib/overlay/overlay.js'
import { withNetns } from './netns.js'

const program = new URL('boosted.mjs', import.meta.url).pathname

/** The host's switch, as it is now. */
function isExpedited(): boolean {
  return readFileSync('/sys/kernel/rcu_expedited', 'utf8').trim() !== '0'
}

/** Of policies whose destinations begin with 10 and `second`. */
function batchOf(count: number, put: (batch: XfrmBatch, policy: PolicyOptions) => unknown, second = 1): XfrmBatch {
  const batch = new XfrmBatch()
  for (let i = 0; i < count; i++) {
    const destination = `10.${second}.${i >> 8}.${i & 255}/32`
    put(batch, { direction: 'out', selector: { source: '10.0.0.1/32', destination }, templates: [{ reqid: 7 }] })
  }
  return batch
}

const policies = (count: number, second?: number) => batchOf(count, (batch, policy) => batch.addPolicy(policy), second)
const deleted = (batch: XfrmBatch, { direction, selector }: PolicyOptions) =>
  batch.deletePolicy({ direction, selector })

/** Awaits some work, and says whether the host was ever boosted meanwhile. */
async function sawBoost(work: Promise<{ readonly failures: readonly unknown[] }>): Promise<boolean> {
  const at = { work: true }
  const done = work.finally(() => (at.work = false))
  let seen = false
  while (at.work) {
    seen ||= isExpedited()
    await new Promise(setImmediate)
  }
  expect((await done).failures).toEqual([])
  return seen
}

/** boosted.mjs at work in a namespace, with the host boosted. */
async function boostedChild(netns: string): Promise<{ child: ChildProcess; gone: Promise<unknown> }> {
  const child = spawn(process.execPath, [program, netns], { stdio: ['ignore', 'pipe', 'inherit'] })
  const gone = once(child, 'exit')
  await once(child.stdout, 'data')
  while (!isExpedited() && child.exitCode === null) await new Promise(setImmediate)
  return { child, gone }
}

/** In the lab alone: the switch is the whole machine's, and there that is nobody else's. */

test('the host is boosted while many objects are added, and only if that was asked for', () =>
  withNetns(async (netns) => {
    expect(isExpedited()).toBe(false)
    {
      await using plain = await Xfrm.open({ netns })
      expect(await sawBoost(plain.commit(policies(20_000)))).toBe(false)
    }
    await withNetns(async (other) => {
      await using boosted = await Xfrm.open({ netns: other, boost: true })
      expect(isExpedited()).toBe(false)
      expect(await sawBoost(boosted.commit(policies(100)))).toBe(false)
      expect(await sawBoost(boosted.commit(batchOf(100, deleted)))).toBe(false)
      expect(await sawBoost(boosted.commit(policies(20_000)))).toBe(true)
      expect(isExpedited()).toBe(false)
      // Nothing grows by what is taken away.
      expect(await sawBoost(boosted.commit(batchOf(20_000, deleted)))).toBe(false)
    })
  }))

test('the boost stays until the last of all batches that want it is done', () =>
  withNetns(async (netns) => {
    await using xfrm = await Xfrm.open({ netns, boost: true })
    const others = policies(20_000, 2)
    const done: string[] = []
    const first = xfrm.commit(policies(5_000)).finally(() => done.push('first'))
    const last = xfrm.commit(others).finally(() => done.push('last'))
    await first
    // Nor does one overtake the other.
    expect(done).toEqual(['first'])
    expect(isExpedited()).toBe(true)
    await last
    expect(isExpedited()).toBe(false)
  }))

test('the boost stays until the last of all processes that want it is done', () =>
  withNetns(async (netns) => {
    const { child, gone } = await boostedChild(netns)
    child.kill('SIGSTOP')
    await withNetns(async (other) => {
      await using xfrm = await Xfrm.open({ netns: other, boost: true })
      await xfrm.commit(policies(2_000))
    })
    expect(isExpedited()).toBe(true)
    child.kill('SIGCONT')
    await gone
    expect(child.exitCode).toBe(0)
    expect(isExpedited()).toBe(false)
  }))

test('the boost ends with what wanted it, whatever that comes to', () =>
  withNetns(async (netns) => {
    const closed = await Xfrm.open({ netns, boost: true })
    const working = closed.commit(policies(20_000))
    while (!isExpedited()) await new Promise(setImmediate)
    const [told] = await Promise.allSettled([working, closed.close()])
    expect(told).toMatchObject({ status: 'rejected', reason: { code: 'ERR_XFRMESH_CLOSED' } })
    expect(String((told as PromiseRejectedResult).reason)).toMatch(/commit: .*operations/)
    expect(isExpedited()).toBe(false)

    await using xfrm = await Xfrm.open({ netns, boost: true })
    const aborted = new AbortController()
    const stopped = xfrm.commit(policies(20_000), { signal: aborted.signal })
    while (!isExpedited()) await new Promise(setImmediate)
    aborted.abort()
    await expect(stopped).rejects.toThrow(Aborted)
    expect(isExpedited()).toBe(false)
  }))

test('the boost ends though the name of the namespace is gone meanwhile', async () => {
  const name = `xfrmesh-boost-${process.pid}`
  execFileSync('ip', ['netns', 'add', name])
  await using xfrm = await Xfrm.open({ netns: `/run/netns/${name}`, boost: true })
  const working = xfrm.commit(policies(20_000))
  while (!isExpedited()) await new Promise(setImmediate)
  execFileSync('ip', ['netns', 'delete', name])
  expect((await working).failures).toEqual([])
  expect(isExpedited()).toBe(false)
})

test('an Overlay boosts what adds many SAs', () =>
  withNetns(async (netns) => {
    await using overlay = await Overlay.open({ local: '10.0.0.1', netns, boost: true, firewall: 'none' })
    await overlay.setKeys([{ tag: 1, value: new Uint8Array(16).fill(1) }])
    const peers = Array.from({ length: 2000 }, (_, i) => `10.1.${i >> 8}.${i & 255}`)
    expect(await sawBoost(overlay.addPeers(peers.slice(0, 100)))).toBe(false)
    expect(await sawBoost(overlay.addPeers(peers))).toBe(true)
    expect(isExpedited()).toBe(false)
    expect(await sawBoost(overlay.removePeers(peers))).toBe(false)
  }))

test('where the switch can not be had, opening says so and leaves it alone', () => {
  const open =
    'import("./dist/kernel/xfrm.js").then(({ Xfrm }) => Xfrm.open({ boost: true })).catch((e) => console.log(String(e)))'
  // A /run that nothing can be noted in, as a container's may be.
  const said = execFileSync(
    'unshare',
    ['--mount', 'sh', '-c', `mount -t tmpfs -o ro none /run && exec "$0" -e '${open}'`, process.execPath],
    { encoding: 'utf8', timeout: 60_000 },
  )
  expect(said).toMatch(
    /Unsupported.*boost: \/sys\/kernel\/rcu_expedited can't be set here, or not be noted in \/run \(EROFS/,
  )
  expect(isExpedited()).toBe(false)
})

test('what a killed process left of its boost is put back when the next one opens', () =>
  withNetns(async (netns) => {
    const { child, gone } = await boostedChild(netns)
    child.kill('SIGKILL')
    await gone
    expect(isExpedited()).toBe(true)
    const next = await Xfrm.open({ netns })
    expect(isExpedited()).toBe(false)
    await next.close()
  }))

test('boost is true or false', async () => {
  await expect(Xfrm.open({ boost: 1 as unknown as boolean })).rejects.toThrow(InvalidArgument)
})
