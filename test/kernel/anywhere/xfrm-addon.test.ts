import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { NETLINK_XFRM, native } from '../../../lib/native.js'
import { withNetns } from '../netns.js'
import { ipList } from '../xfrm-oracle.js'

/** Runs a kind of worker.mjs to its end; what it said, once it has exited with 0 and without a word on standard error. */
async function work(kind: string, netns: string): Promise<unknown> {
  const script = fileURLToPath(new URL('worker.mjs', import.meta.url))
  const child = spawn(process.execPath, ['--expose-gc', script, kind, netns], { stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  let complained = ''
  child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (complained += chunk.toString()))
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null]
  expect({ code, signal, complained }).toEqual({ code: 0, signal: null, complained: '' })
  return JSON.parse(said)
}

test('a process exits with batches, lists and closes in flight', () =>
  withNetns(async (netns) => {
    for (let i = 0; i < 5; i++) expect(await work('exit', netns)).toBe('exiting')
  }))

test('an open socket with nothing to do does not keep the process', () =>
  withNetns(async (netns) => {
    expect(await work('idle', netns)).toBe('idle')
    expect((await ipList(netns, 'policy')).length).toBe(10)
  }))

test('a batch in flight does', () =>
  withNetns(async (netns) => {
    expect(await work('pending', netns)).toBe(20_000)
  }))

test('so does a monitor that somebody waits for, and no other', () =>
  withNetns(async (netns) => {
    expect(await work('monitor', netns)).toBe('added')
    expect(await work('waiting', netns)).toBe('exiting')
  }))

test('sockets that nobody holds are collected when their work is done, with their threads', () =>
  withNetns(async (netns) => {
    const { applied, threads } = (await work('garbage', netns)) as { applied: number; threads: number }
    expect(applied).toBe(40_000)
    // Node's own and what was opened last.
    expect(threads).toBeLessThan(20)
  }))

test('a hundred rounds of open, work and close leave no descriptor, no thread and little memory', () =>
  withNetns(async (netns) => {
    const { before, after, grown } = (await work('rounds', netns)) as { before: object; after: object; grown: number }
    expect(after).toEqual(before)
    // One socket's buffers alone are a third of a MiB.
    expect(grown).toBeLessThan(16 << 20)
  }))

test('a closed socket keeps no descriptor of its namespace, even while somebody holds it', () =>
  withNetns(async (netns) => {
    expect(await work('namespaces', netns)).toEqual({ kept: 600, left: 0 })
  }))

test("what names no namespace is never taken for the process's own", () => {
  for (const netns of [null, {}, true, 0.5, 2 ** 32, -(2 ** 32), NaN]) {
    const options = { protocol: NETLINK_XFRM, netns: netns as number, receiveBuffer: 0, sendBuffer: 0, chunk: 0 }
    expect(() => new native.Socket(options)).toThrow(TypeError)
  }
})

test('a path that cannot be followed any more is told of, one that may not be is left to the kernel', () =>
  withNetns(async (netns) => {
    const [hidden, circular] = ['ERR_XFRMESH_UNSUPPORTED', 'ERR_XFRMESH_NAMESPACE_GONE']
    expect(await work('unseen', netns)).toEqual({ hidden, circular })
  }))

test('worker threads have sockets of their own, and one may end at work', () =>
  withNetns(async (netns) => {
    const { results, out } = (await work('threads', netns)) as { results: number[]; out: number }
    expect(results).toEqual([20_000, 20_000, 20_000])
    expect(out).toBeGreaterThanOrEqual(60_000)
  }))

test("libuv's pool is free while more batches than it has threads are at work", () =>
  withNetns(async (netns) => {
    // A pool of four with six batches ahead would have had three of them done first.
    const { finishedBeforePool } = (await work('pool', netns)) as { finishedBeforePool: number }
    expect(finishedBeforePool).toBeLessThan(3)
  }))
