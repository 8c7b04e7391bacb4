import { describe, expect, test } from 'vitest'
import { keysOf, late, NodeKernel, Process } from './node-kernel.js'

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
    expect(await one.mesh.reclaimableIn(60_000)).toBeGreaterThan(50_000)
    await one.mesh.commit({})
    expect(await one.mesh.reclaimableIn(60_000)).toBeGreaterThan(50_000)
    expect(kernel.states).toEqual(['in 3', 'in 4', 'out 4'])
  })
})
