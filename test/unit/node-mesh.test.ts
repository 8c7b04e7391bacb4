import { afterEach, describe, expect, test, vi } from 'vitest'
import { isPolicyRecord } from '../../lib/kernel/record-identity.js'
import { Policy } from '../../lib/kernel/records.js'
import { ACTION_BLOCK } from '../../lib/kernel/xfrm-names.js'
import { keysOf, late, NodeKernel, Process } from './node-kernel.js'

afterEach(() => vi.useRealTimers())

describe('reclaim', () => {
  test('waits after a commit that failed, and was made again', async () => {
    const kernel = new NodeKernel()
    const one = new Process(kernel, 3)
    await one.upsert([2, 3])
    await one.mesh.prepare(keysOf(4), {})
    kernel.before = (call) => {
      if (call === 'commit') throw late()
    }
    await expect(one.mesh.commit({})).rejects.toMatchObject({ code: 'ERR_XFRMESH_TIMEOUT' })
    kernel.before = () => undefined
    expect(await one.mesh.reclaim(60_000, {})).toBeGreaterThan(50_000)
    await one.mesh.commit({})
    expect(await one.mesh.reclaim(60_000, {})).toBeGreaterThan(50_000)
    expect(kernel.states).toEqual(['in 3', 'in 4', 'out 4'])
  })

  describe.each([false, 'cilium'] as const)('after a restart (marks: %s)', (marks) => {
    /** A kernel that a process left, which had prepared key 4, or committed it. */
    async function left(commits: boolean) {
      const kernel = new NodeKernel()
      const one = new Process(kernel, 3, marks)
      await one.upsert([2, 5])
      if (commits) await one.rotate(keysOf(4))
      else await one.mesh.prepare(keysOf(4), {})
      return kernel
    }

    test('takes the old key, and never the one that encrypts', async () => {
      const kernel = await left(true)
      const next = new Process(kernel, 4, marks)
      await next.upsert([2, 5])
      await next.mesh.reclaim(0, {})
      expect(kernel.states).toEqual(['in 4', 'out 4'])
    })

    test('leaves the key that was prepared, which others may know', async () => {
      for (const id of [3, 4]) {
        const kernel = await left(false)
        const next = new Process(kernel, id, marks)
        await next.upsert([2, 5])
        await next.mesh.reclaim(0, {})
        expect(kernel.states).toEqual(['in 3', 'in 4', 'out 3'])
      }
    })

    test('with the old file takes nothing of the key that encrypts', async () => {
      const kernel = await left(true)
      const before = [...kernel.held]
      const next = new Process(kernel, 3, marks)
      await next.upsert([2, 5])
      const reclaimed = next.mesh.reclaim(0, {})
      if (marks === false) await reclaimed
      else await expect(reclaimed).rejects.toThrow(/SAs lead out under key 4 .* after those of key 3.*can't be told/)
      expect(kernel.held).toEqual(before)
      // The way out: the right keys.
      await next.rotate(keysOf(4))
      expect(kernel.held).toEqual(before)
      await next.mesh.reclaim(0, {})
      expect(kernel.states).toEqual(['in 4', 'out 4'])
    })
  })
})

describe('backing out of a rotation', () => {
  test('the key that was prepared decrypts for as long as an old one', async () => {
    vi.useFakeTimers({ toFake: ['Date'] })
    const kernel = new NodeKernel()
    await new Process(kernel, 3).upsert([2])
    // The present one has encrypted for long.
    vi.setSystemTime(Date.now() + 3_600_000)
    const one = new Process(kernel, 3)
    await one.upsert([2])
    expect(await one.mesh.reclaim(60_000, {})).toMatchObject({ operations: 0 })
    await one.mesh.prepare(keysOf(4), {})
    await one.mesh.prepare(keysOf(3), {})
    expect(one.mesh.keyring.old).toEqual([4])
    expect(await one.mesh.reclaim(60_000, {})).toBeGreaterThan(50_000)
    expect(kernel.states).toEqual(['in 3', 'in 4', 'out 3'])
  })
})

describe('a call that fails', () => {
  test('at its first look leaves the guard, and its nodes are degraded until a call does them too', async () => {
    const kernel = new NodeKernel()
    const one = new Process(kernel, 3)
    kernel.before = (call) => {
      if (call === 'read') throw late()
    }
    await expect(one.upsert([2, 3])).rejects.toMatchObject({ code: 'ERR_XFRMESH_TIMEOUT' })
    expect(kernel.calls).toContain('guard')
    expect(Object.keys(one.lacks)).toEqual(['node2', 'node3'])
    kernel.before = () => undefined
    await one.upsert([4])
    expect(one.lacks).toEqual({})
    expect(kernel.states).toEqual(['in 3', 'out 3'])
    expect(kernel.held).toHaveLength(3 * (2 + 3))
  })

  test('at its first look leaves the policies that drop, where marks choose', async () => {
    const kernel = new NodeKernel()
    const one = new Process(kernel, 3, 'cilium')
    kernel.before = (call) => {
      if (call === 'read') throw late()
    }
    await expect(one.upsert([2])).rejects.toMatchObject({ code: 'ERR_XFRMESH_TIMEOUT' })
    expect(kernel.held).toHaveLength(1)
    expect(kernel.held[0]!.record[Policy.action]).toBe(ACTION_BLOCK)
    expect(Object.keys(one.lacks)).toEqual(['node2'])
    kernel.before = () => undefined
    await one.upsert([])
    expect(one.lacks).toEqual({})
    expect(kernel.states).toEqual(['in 3', 'out 3'])
  })

  test.each([false, 'cilium'] as const)('at what is to drop the rest does nothing else (marks: %s)', async (marks) => {
    const kernel = new NodeKernel()
    const one = new Process(kernel, 3, marks)
    kernel.before = (call) => {
      if (call === (marks === false ? 'guard' : 'commit')) throw late()
    }
    await expect(one.upsert([2])).rejects.toMatchObject({ code: 'ERR_XFRMESH_TIMEOUT' })
    expect(kernel.held).toEqual([])
    expect(Object.keys(one.lacks)).toEqual(['node2'])
    kernel.before = () => undefined
    expect((await one.upsert([3])).failures).toEqual([])
    expect(one.lacks).toEqual({})
  })

  test('before it prepared a key leaves all as it was, and its nodes are tried again', async () => {
    const kernel = new NodeKernel()
    await new Process(kernel, 3).upsert([2])
    const one = new Process(kernel, 3)
    one.want([2])
    kernel.before = (call) => {
      if (call === 'guard') throw late()
    }
    await expect(one.mesh.prepare(keysOf(4), {})).rejects.toMatchObject({ code: 'ERR_XFRMESH_TIMEOUT' })
    expect(Object.keys(one.lacks)).toEqual(['node2'])
    expect(one.mesh.keyring.next).toBeUndefined()
    kernel.before = () => undefined
    await one.upsert([])
    expect(one.lacks).toEqual({})
  })

  test('later on degrades those that it was about, and a repair does them', async () => {
    const kernel = new NodeKernel()
    const one = new Process(kernel, 3)
    await one.upsert([2])
    kernel.before = (call) => {
      if (call === 'guard') throw late()
    }
    await expect(one.upsert([3])).rejects.toMatchObject({ code: 'ERR_XFRMESH_TIMEOUT' })
    expect(Object.keys(one.lacks)).toEqual(['node3'])
    await expect(one.mesh.repair({})).rejects.toMatchObject({ code: 'ERR_XFRMESH_TIMEOUT' })
    expect(Object.keys(one.lacks)).toEqual(['node2', 'node3'])
    kernel.before = () => undefined
    const { done, plan } = await one.mesh.repair({})
    expect([done.added, plan.filter(({ phase }) => phase !== 'guard sets').length]).toEqual([5, 5])
    expect(one.lacks).toEqual({})
  })
})

test('what a repair would do is said without doing it: what was lacking still is', async () => {
  const kernel = new NodeKernel()
  const one = new Process(kernel, 3)
  kernel.takes = (record) => isPolicyRecord(record, 0)
  expect((await one.upsert([2])).failures).toHaveLength(1)
  kernel.takes = () => true
  const { lacks } = one
  expect(Object.keys(lacks)).toEqual(['node2'])
  expect((await one.mesh.survey()).map(({ operation }) => operation)).toContain('add inbound SA')
  expect(one.lacks).toEqual(lacks)
  await one.upsert([])
  expect(one.lacks).toEqual({})
})

describe('prepare', () => {
  test('as the first call after another process, which encrypted under another key than the one given', async () => {
    const kernel = new NodeKernel()
    await new Process(kernel, 3).upsert([2])
    const next = new Process(kernel, 4)
    await next.mesh.prepare(keysOf(5), {})
    expect([next.mesh.keyring.current, next.mesh.keyring.next]).toEqual([3, 5])
    await next.upsert([2])
    expect(kernel.states).toContain('out 3')
    await next.mesh.commit({})
    expect(next.mesh.keyring.current).toBe(5)
    expect(kernel.states).toContain('out 5')
    expect(kernel.states).not.toContain('out 4')
  })

  describe('an id that the kernel has', () => {
    const refusal = /keys must be of an id that is not in use: key id \d is in use by other keys: increment the key id/

    /** A kernel that a process left with key 4 prepared, or committed, and what SAs it has. */
    async function left(commits: boolean) {
      const kernel = new NodeKernel()
      const one = new Process(kernel, 3)
      await one.upsert([2, 5])
      if (commits) await one.rotate(keysOf(4))
      else await one.mesh.prepare(keysOf(4), {})
      return { kernel, before: [...kernel.held] }
    }

    test.each([
      ['an inbound one, after a restart with the old file', 3, 4, false],
      ['the one that was prepared, after a restart with the new file', 4, 4, false],
      ['the one that encrypts, after a restart with the new file', 4, 3, false],
      ['an old one, after a commit and a restart', 4, 3, true],
    ])('is refused for other keys, and taken for its own, with nothing swapped: %s', async (_, opened, id, commits) => {
      const { kernel, before } = await left(commits)
      const next = new Process(kernel, opened)
      await next.upsert([2, 5])
      const { current, next: prepared } = next.mesh.keyring
      await expect(next.mesh.prepare(keysOf(id, 1), {})).rejects.toThrow(refusal)
      expect(kernel.held).toEqual(before)
      expect([next.mesh.keyring.current, next.mesh.keyring.next]).toEqual([current, prepared])
      expect(await next.mesh.prepare(keysOf(id), {})).toMatchObject({ failures: [], operations: 0 })
      expect(kernel.held).toEqual(before)
      await expect(next.mesh.prepare(keysOf(id, 1), {})).rejects.toThrow(refusal)
    })

    test('is of keys unknown where all that have it have booted since: the way out is told, and is one', async () => {
      const { kernel } = await left(false)
      const next = new Process(kernel, 3)
      await next.upsert([2, 5], 2)
      await expect(next.mesh.prepare(keysOf(4), {})).rejects.toThrow(
        /in use by other keys: .* reclaim\(\) it first, or remove\(\) and upsert\(\) the nodes that booted since/,
      )
      const { roster } = next.mesh
      await next.mesh.follow(
        ['node2', 'node5'].map((name) => roster.drop(name)!),
        {},
      )
      await next.upsert([2, 5], 2)
      expect((await next.mesh.prepare(keysOf(4), {})).failures).toEqual([])
      expect(kernel.states).toEqual(['in 3', 'in 4', 'out 3'])
    })

    test('is its own though a node has booted since', async () => {
      const { kernel } = await left(false)
      const next = new Process(kernel, 3)
      await next.upsert([2])
      await next.upsert([5], 2)
      expect(await next.mesh.prepare(keysOf(4), {})).toMatchObject({ failures: [], added: 1, removed: 1 })
    })

    test('is not to be told as long as no node is named that has it', async () => {
      const { kernel, before } = await left(false)
      const next = new Process(kernel, 3)
      await expect(next.mesh.prepare(keysOf(4), {})).rejects.toThrow(
        /by nodes that are not named.*: upsert\(\) them, or reconcile\(\) if they are gone/,
      )
      expect(kernel.held).toEqual(before)
      await next.upsert([2, 5])
      await next.mesh.prepare(keysOf(4), {})
      expect(kernel.held).toEqual(before)
    })
  })
})

describe('the key that encrypts is an earlier process’s, and not at hand', () => {
  /** What a process that was given the next key finds. */
  async function found() {
    const kernel = new NodeKernel()
    await new Process(kernel, 3).upsert([2, 5])
    return { kernel, next: new Process(kernel, 4) }
  }
  const advice =
    'key 3, under which an earlier process encrypts here, is not at hand: open with it, or prepare() and commit() the next'

  test('what is there goes on; a node that is new, or booted anew, is degraded, and not encrypted to under the next', async () => {
    const { kernel, next } = await found()
    const before = [...kernel.held]
    expect(await next.upsert([2])).toMatchObject({ failures: [], operations: 0 })
    const { failures } = await next.upsert([7])
    expect(failures).toMatchObject([{ subject: 'node7', code: 'ERR_XFRMESH_NO_KEY' }])
    expect(next.lacks).toEqual({ node7: `between 192.0.2.1 and 192.0.2.7 an SA is missing, and ${advice}` })
    expect((await next.upsert([2], 2)).failures).toMatchObject([{ subject: 'node2' }, { subject: 'node7' }])
    expect(next.lacks['node2']).toBe(`it booted anew, and ${advice}`)
    expect(kernel.states).toEqual(['in 3', 'out 3'])
    expect(kernel.held).toEqual(expect.arrayContaining(before))
  })

  test('where an SA of it is deleted the node is degraded, and a rotation mends it', async () => {
    const { kernel, next } = await found()
    await next.upsert([2, 5])
    kernel.held = kernel.held.filter(({ record }) => isPolicyRecord(record, 0))
    expect((await next.mesh.repair({})).done.failures).toHaveLength(2)
    expect(Object.keys(next.lacks)).toEqual(['node2', 'node5'])
    // What decrypts can be prepared: the way out.
    expect((await next.mesh.prepare(keysOf(4), {})).failures).toEqual([])
    expect(Object.keys(next.lacks)).toEqual(['node2', 'node5'])
    expect(kernel.states).toEqual(['in 4'])
    expect((await next.mesh.commit({})).failures).toEqual([])
    expect(next.lacks).toEqual({})
    expect(kernel.states).toEqual(['in 4', 'out 4'])
  })
})
