import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { InvalidArgument } from '../../lib/base/errors.js'
import { type PolicyOptions, Xfrm, XfrmBatch } from '../../lib/kernel/xfrm.js'
import { withNetns } from './netns.js'

const program = new URL('boosted.mjs', import.meta.url).pathname

/** The host's switch, as it is now. */
function isExpedited(): boolean {
  return readFileSync('/sys/kernel/rcu_expedited', 'utf8').trim() !== '0'
}

const policies = (count: number) => batchOf(count, (batch, policy) => batch.addPolicy(policy))

function batchOf(count: number, put: (batch: XfrmBatch, policy: PolicyOptions) => unknown): XfrmBatch {
  const batch = new XfrmBatch()
  for (let i = 0; i < count; i++) {
    const destination = `10.1.${i >> 8}.${i & 255}/32`
    put(batch, { direction: 'out', selector: { source: '10.0.0.1/32', destination }, templates: [{ reqid: 7 }] })
  }
  return batch
}

/** Commits, and says whether the host was ever boosted meanwhile. */
async function sawBoost(xfrm: Xfrm, batch: XfrmBatch): Promise<boolean> {
  const work = { done: false }
  const committed = xfrm.commit(batch).finally(() => (work.done = true))
  let seen = false
  while (!work.done) {
    seen ||= isExpedited()
    await new Promise(setImmediate)
  }
  expect((await committed).failures).toEqual([])
  return seen
}

/** In the lab alone: the switch is the whole machine's, and there that is nobody else's. */

test('the host is boosted while a large batch is at work, and only if that was asked for', () =>
  withNetns(async (netns) => {
    expect(isExpedited()).toBe(false)
    {
      await using plain = await Xfrm.open({ netns })
      expect(await sawBoost(plain, policies(20_000))).toBe(false)
    }
    await withNetns(async (other) => {
      await using boosted = await Xfrm.open({ netns: other, boost: true })
      expect(isExpedited()).toBe(false)
      expect(await sawBoost(boosted, policies(100))).toBe(false)
      await using again = await Xfrm.open({ netns, boost: true })
      const batch = batchOf(20_000, (into, { direction, selector }) => into.deletePolicy({ direction, selector }))
      expect(await sawBoost(again, batch)).toBe(true)
      expect(isExpedited()).toBe(false)
    })
  }))

test('what a killed process left of its boost is put back when the next one opens', () =>
  withNetns(async (netns) => {
    const child = spawn(process.execPath, [program, netns], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(child.stdout, 'data')
    while (!isExpedited()) await new Promise(setImmediate)
    const gone = once(child, 'exit')
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
