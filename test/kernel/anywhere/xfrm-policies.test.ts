import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { Aborted, InvalidArgument, InvalidState, XfrmeshError } from '../../../lib/base/errors.js'
import { Xfrm, XfrmBatch, type PolicyId, type PolicyOptions } from '../../../lib/kernel/xfrm.js'
import { policyText } from '../../unit/ip-text.js'
import { inNetns, withNetns } from '../netns.js'
import { additions, collect, ipBatch, ipList, timeless, withXfrm } from '../xfrm-oracle.js'

const run = promisify(execFile)
const all = additions('policy').map(({ command, options }) => ({
  command,
  options: options as unknown as PolicyOptions,
}))

/** Policies 10.0.0.1 to 10.x.y.z, by their numbers. */
function numbered(from: number, to: number): XfrmBatch {
  const batch = new XfrmBatch()
  for (let i = from; i < to; i++) {
    const destination = `10.${1 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}/32`
    batch.addPolicy({ direction: 'out', selector: { source: '10.0.0.1/32', destination }, templates: [{ reqid: 7 }] })
  }
  return batch
}

function idOf({ direction, selector, mark, ifId }: PolicyOptions): PolicyId {
  return { direction, selector, ...(mark === undefined ? {} : { mark }), ...(ifId === undefined ? {} : { ifId }) }
}

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  )
}

test("policies of every kind are in the kernel as ip's are, are listed as ip lists them, are found, and are deleted", () =>
  withXfrm(async (xfrm, ours) => {
    expect(all.length).toBeGreaterThan(20)
    const batch = new XfrmBatch()
    for (const { options } of all) batch.addPolicy(options)
    expect(await xfrm.commit(batch)).toMatchObject({ applied: all.length, failures: [] })
    const listed = await ipList(ours, 'policy')
    await withNetns(async (theirs) => {
      await ipBatch(
        theirs,
        all.map(({ command }) => command),
      )
      expect(timeless(listed)).toEqual(timeless(await ipList(theirs, 'policy')))
    })
    expect((await collect(xfrm.policies())).map((policy) => policyText(policy))).toEqual(listed)
    for (const { options } of all) {
      const found = await xfrm.getPolicy(idOf(options))
      expect(listed).toContain(policyText(found!))
      const { selector, ...rest } = idOf(options)
      expect(selector).toBeDefined()
      expect(await xfrm.getPolicy({ ...rest, index: found!.index })).toEqual(found)
    }
    const deletion = new XfrmBatch()
    for (const { options } of all) deletion.deletePolicy(idOf(options))
    expect(await xfrm.commit(deletion)).toMatchObject({ applied: all.length, failures: [] })
    expect(await ipList(ours, 'policy')).toEqual([])
    expect(await xfrm.getPolicy(idOf(all[0]!.options))).toBeUndefined()
  }))

test('an update takes the place of the policy that is there, and adds where there is none', () =>
  withXfrm(async (xfrm, netns) => {
    const policy = { direction: 'in', selector: { destination: 'fd00::/64' } } as const
    const batch = new XfrmBatch()
    batch.updatePolicy({ ...policy, priority: 5 })
    batch.updatePolicy({
      ...policy,
      priority: 5,
      action: 'block',
      templates: [{ reqid: 3, mode: 'tunnel', source: '10.0.0.1', destination: '10.0.0.2' }],
    })
    expect((await xfrm.commit(batch)).failures).toEqual([])
    const listed = await ipList(netns, 'policy')
    expect(listed.length).toBe(1)
    expect(listed[0]).toContain('dir in action block')
    expect(listed[0]).toContain('reqid 3(0x00000003) mode tunnel')
  }))

test('a batch of thousands is done in order, and each refusal bears its index', () =>
  withXfrm(async (xfrm, netns) => {
    expect((await xfrm.commit(numbered(500, 1500))).failures).toEqual([])
    const { applied, failures, elapsedMs } = await xfrm.commit(numbered(0, 3000))
    expect(applied).toBe(2000)
    expect(failures.map(({ index }) => index)).toEqual(Array.from({ length: 1000 }, (_, i) => i + 500))
    expect(new Set(failures.map(({ code }) => code))).toEqual(new Set(['EEXIST']))
    expect(elapsedMs).toBeGreaterThan(0)
    expect((await ipList(netns, 'policy')).length).toBe(3000)
    expect((await collect(xfrm.policies({ reqid: 7 }))).length).toBe(3000)
    expect(await collect(xfrm.policies({ reqid: 8 }))).toEqual([])
    expect(await xfrm.info()).toMatchObject({ policies: { out: 3000, in: 0, fwd: 0 } })
    expect(await inNetns(netns, 'ip', '-s', 'xfrm', 'policy', 'count')).toContain('OUT 3000')
  }))

test('calls run in the order made', () =>
  withXfrm(async (xfrm) => {
    const first = xfrm.commit(numbered(0, 5000))
    const listed = collect(xfrm.policies())
    const second = xfrm.commit(numbered(4999, 5001))
    expect((await listed).length).toBe(5000)
    expect((await first).applied).toBe(5000)
    expect((await second).failures.map(({ index }) => index)).toEqual([0])
  }))

test('an empty batch is done at once, and a batch is committed once', () =>
  withXfrm(async (xfrm) => {
    const batch = new XfrmBatch()
    expect(await xfrm.commit(batch)).toMatchObject({ applied: 0, failures: [] })
    expect(await rejection(xfrm.commit(batch))).toBeInstanceOf(InvalidState)
    expect(await rejection(xfrm.commit(null as unknown as XfrmBatch))).toBeInstanceOf(InvalidArgument)
  }))

test('an aborted commit says what was applied, and no more was sent', () =>
  withXfrm(async (xfrm) => {
    const before = await rejection(xfrm.commit(numbered(0, 10), { signal: AbortSignal.abort('why') }))
    expect(before).toMatchObject({ code: 'ERR_XFRMESH_ABORTED', cause: 'why', report: { requested: 10, applied: 0 } })
    const controller = new AbortController()
    const committing = xfrm.commit(numbered(0, 100_000), { signal: controller.signal })
    setTimeout(() => controller.abort('enough'), 20)
    const error = await rejection(committing)
    expect(error).toBeInstanceOf(Aborted)
    const { report } = error as Aborted
    expect(report?.applied).toBeLessThan(100_000)
    expect((await xfrm.info()).policies.out).toBe(report?.applied)
  }))

test('a commit past its time limit rejects, with all that was sent answered', () =>
  withNetns(async (netns) => {
    const hurried = await Xfrm.open({ netns, timeoutMs: 20 })
    const error = await rejection(hurried.commit(numbered(0, 200_000)))
    expect(error).toMatchObject({ code: 'ERR_XFRMESH_TIMEOUT' })
    const [, applied] = /: (\d+) of 200000 operations were applied/.exec((error as Error).message) ?? []
    expect((await hurried.info()).policies.out).toBe(Number(applied))
    await hurried.close()
  }))

test('close ends what is at work, and what waits, and later calls are refused', () =>
  withNetns(async (netns) => {
    const xfrm = await Xfrm.open({ netns })
    const working = rejection(xfrm.commit(numbered(0, 100_000)))
    const waiting = rejection(xfrm.info())
    const reading = rejection(xfrm.statistics())
    await new Promise((resolve) => setTimeout(resolve, 20))
    await xfrm.close()
    expect(await working).toMatchObject({ code: 'ERR_XFRMESH_CLOSED' })
    expect(await waiting).toMatchObject({ code: 'ERR_XFRMESH_CLOSED' })
    expect(await reading).toMatchObject({ code: 'ERR_XFRMESH_CLOSED' })
    expect(await rejection(xfrm.commit(numbered(0, 1)))).toMatchObject({ code: 'ERR_XFRMESH_CLOSED' })
    await xfrm.close()
    await using again = await Xfrm.open({ netns })
    const { policies } = await again.info()
    expect(policies.out).toBeLessThan(100_000)
  }))

test('a namespace that is gone, or another of its name, is told of', () =>
  withNetns(async (netns) => {
    const xfrm = await Xfrm.open({ netns })
    await run('ip', ['netns', 'delete', netns.slice('/run/netns/'.length)])
    try {
      expect(await rejection(xfrm.commit(numbered(0, 1)))).toMatchObject({ code: 'ERR_XFRMESH_NAMESPACE_GONE' })
      await run('ip', ['netns', 'add', netns.slice('/run/netns/'.length)])
      const error = await rejection(xfrm.info())
      expect(error).toMatchObject({ code: 'ERR_XFRMESH_NAMESPACE_GONE' })
      expect((error as XfrmeshError).message).toContain(netns)
    } finally {
      await xfrm.close()
    }
  }))

test('what is no namespace is refused by its name', async () => {
  for (const netns of ['/run/netns/none-such', '/dev/null', '', 'a\0b', 1.5, -1, 9999]) {
    expect(await rejection(Xfrm.open({ netns }))).toBeInstanceOf(InvalidArgument)
  }
  expect(await rejection(Xfrm.open({ netnz: 1 } as object))).toMatchObject({ argument: 'options.netnz' })
  expect(await rejection(Xfrm.open({ timeoutMs: 0 }))).toMatchObject({ argument: 'options.timeoutMs' })
})

test("the namespace's counters are what /proc/net/xfrm_stat shows there", () =>
  withXfrm(async (xfrm, netns) => {
    const shown = await inNetns(netns, 'cat', '/proc/net/xfrm_stat')
    const counters = await xfrm.statistics()
    expect(counters['XfrmInError']).toBe(0)
    expect(Object.keys(counters).length).toBe(shown.trim().split('\n').length)
  }))

test('without CAP_NET_ADMIN opening says what is missing', async () => {
  const script = fileURLToPath(new URL('open.mjs', import.meta.url))
  const missing = { code: 'ERR_XFRMESH_UNSUPPORTED', missing: 'CAP_NET_ADMIN' }
  const { stdout } = await run('unshare', ['--user', process.execPath, script])
  expect(JSON.parse(stdout)).toMatchObject(missing)
  // In a namespace that it may enter, too.
  await withNetns(async (netns) => {
    const { stdout } = await run('setpriv', ['--bounding-set=-net_admin', process.execPath, script, netns])
    expect(JSON.parse(stdout)).toMatchObject(missing)
  })
})
