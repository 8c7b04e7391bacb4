import { describe, expect, test } from 'vitest'
import { viewOf } from '../../lib/kernel/attributes.js'
import { isPolicyRecord } from '../../lib/kernel/record-identity.js'
import { appendPlain } from '../../lib/kernel/record-details.js'
import { LITTLE_ENDIAN, Operation, RecordWriter, State } from '../../lib/kernel/records.js'
import { InvalidState } from '../../lib/base/errors.js'
import { keyIdOf } from '../../lib/node/tunnels.js'
import { keysOf, late, NodeKernel, Process } from './node-kernel.js'

/** Objects, whatever order they came in, and whatever sequence numbers they began with. */
const contents = ({ held }: NodeKernel) =>
  held.map(({ record, keys, algorithms }) => JSON.stringify([plain(record), keys, algorithms])).sort()

function plain(record: Uint8Array): string {
  const writer = new RecordWriter()
  if (isPolicyRecord(record, 0)) {
    writer.record(record, Operation.addPolicy)
  } else {
    appendPlain(writer, record, 0)
    // Where a key was in what came with it.
    for (const offset of [State.cipherKey, State.authKey]) writer.u32(offset, 0)
  }
  return Buffer.from(writer.take()).toString('hex')
}

/** What a process leaves that finds nothing. */
async function fresh(work: (kernel: NodeKernel) => Promise<unknown>): Promise<string[]> {
  const kernel = new NodeKernel()
  await work(kernel)
  return contents(kernel)
}

const idOf = (record: Uint8Array) => keyIdOf(viewOf(record).getUint32(State.spi, LITTLE_ENDIAN))

test('a node that was started anew with another address of its own takes over what it had under the one before', async () => {
  const kernel = new NodeKernel()
  await new Process(kernel, 3).upsert([2, 5])
  const next = new Process(kernel, 3, false, '192.0.2.9')
  expect((await next.upsert([2, 5])).failures).toEqual([])
  const wanted = await fresh((other) => new Process(other, 3, false, '192.0.2.9').upsert([2, 5]))
  expect((await next.mesh.repair({})).done.failures).toEqual([])
  expect(contents(kernel)).toEqual(wanted)
})

describe.each([false, 'cilium'] as const)('while no process ran (marks: %s)', (marks) => {
  async function left() {
    const kernel = new NodeKernel()
    await new Process(kernel, 3, marks).upsert([2, 5])
    return kernel
  }

  test('a node got another address: what leads to the one before makes room', async () => {
    const kernel = await left()
    const next = new Process(kernel, 3, marks)
    const moved = { addresses: ['192.0.2.77'] }
    expect((await next.upsert([2], 1, moved)).failures).toEqual([])
    expect((await next.upsert([5])).failures).toEqual([])
    await next.mesh.repair({})
    const wanted = await fresh(async (other) => {
      const process = new Process(other, 3, marks)
      await process.upsert([2], 1, moved)
      await process.upsert([5])
    })
    expect(contents(kernel)).toEqual(wanted)
  })

  test('a range went from one node to another', async () => {
    const kernel = await left()
    const next = new Process(kernel, 3, marks)
    expect((await next.upsert([5], 1, { subnets: ['10.2.0.0/24'] })).failures).toEqual([])
    expect((await next.upsert([2], 1, { subnets: ['10.22.0.0/24'] })).failures).toEqual([])
    await next.mesh.repair({})
    const wanted = await fresh(async (other) => {
      const process = new Process(other, 3, marks)
      await process.upsert([5], 1, { subnets: ['10.2.0.0/24'] })
      await process.upsert([2], 1, { subnets: ['10.22.0.0/24'] })
    })
    expect(contents(kernel)).toEqual(wanted)
  })
})

describe('a node that is to have the address of another', () => {
  /** Two nodes, the first of which is then said to have the address of the other. */
  async function inConflict() {
    const kernel = new NodeKernel()
    const process = new Process(kernel, 3)
    await process.upsert([2, 5])
    const before = contents(kernel)
    const { failures } = await process.upsert([2], 1, { addresses: ['192.0.2.5'] })
    expect(failures).toMatchObject([{ subject: 'node2', code: 'ERR_XFRMESH_NODE_CONFLICT' }])
    return { kernel, process, before }
  }

  test('stays what it was, and gets nothing of the other at a repair, a dry one, or an upsert of the other after a failure', async () => {
    const { kernel, process, before } = await inConflict()
    const { done, plan } = await process.mesh.repair({})
    expect(done.failures).toMatchObject([{ subject: 'node2' }])
    expect(plan.filter(({ phase }) => phase !== 'guard sets')).toEqual([])
    expect((await process.mesh.survey()).filter(({ phase }) => phase !== 'guard sets')).toEqual([])
    kernel.before = () => {
      throw late()
    }
    await expect(process.upsert([5])).rejects.toThrow()
    kernel.before = () => undefined
    expect((await process.upsert([5])).failures).toMatchObject([{ subject: 'node2' }])
    expect(contents(kernel)).toEqual(before)
    expect((await process.upsert([2])).failures).toEqual([])
    expect(contents(kernel)).toEqual(before)
  })

  test('rotates as what it was, with the others, and is named in each call', async () => {
    const { kernel, process } = await inConflict()
    expect((await process.mesh.prepare(keysOf(4), {})).failures).toMatchObject([{ subject: 'node2' }])
    expect((await process.mesh.commit({})).failures).toMatchObject([{ subject: 'node2' }])
    expect((await process.mesh.reclaim(0, {})) as { failures: unknown }).toMatchObject({
      failures: [{ subject: 'node2' }],
    })
    expect(kernel.states).toEqual(['in 4', 'out 4'])
    expect((await process.upsert([2])).failures).toEqual([])
    expect(contents(kernel)).toEqual(
      await fresh(async (other) => {
        const process = new Process(other, 4)
        await process.upsert([2, 5])
      }),
    )
  })

  test('is removed as what it was', async () => {
    const { kernel, process } = await inConflict()
    expect((await process.remove([2])).failures).toEqual([])
    expect(contents(kernel)).toEqual(await fresh((other) => new Process(other, 3).upsert([5])))
  })

  test('has it once the other has given it up, also in the same call', async () => {
    const { kernel, process } = await inConflict()
    const [two, five] = [
      process.want([2], 1, { addresses: ['192.0.2.5'] }),
      process.want([5], 1, { addresses: ['192.0.2.2'] }),
    ]
    expect((await process.mesh.follow([...two, ...five], {})).failures).toEqual([])
    expect(contents(kernel)).toEqual(
      await fresh(async (other) => {
        const process = new Process(other, 3)
        await process.upsert([2], 1, { addresses: ['192.0.2.5'] })
        await process.upsert([5], 1, { addresses: ['192.0.2.2'] })
      }),
    )
  })

  test('who is new and has a range of another keeps what an earlier process left of it', async () => {
    const kernel = new NodeKernel()
    await new Process(kernel, 3).upsert([2, 5])
    const before = contents(kernel)
    const next = new Process(kernel, 3)
    await next.upsert([2])
    const { failures } = await next.upsert([5], 1, { subnets: ['10.5.0.0/24', '10.2.0.128/25'] })
    expect(failures).toMatchObject([{ subject: 'node5', code: 'ERR_XFRMESH_NODE_CONFLICT' }])
    await next.mesh.repair({})
    expect(contents(kernel)).toEqual(before)
  })
})

test('a key that does not decrypt for each node is not to be committed, until that node is gone', async () => {
  const kernel = new NodeKernel()
  const process = new Process(kernel, 3)
  await process.upsert([2, 5])
  kernel.takes = (record) => isPolicyRecord(record, 0) || idOf(record) !== 4 || record[State.source + 3] !== 5
  expect((await process.mesh.prepare(keysOf(4), {})).failures).toMatchObject([{ operation: 'add inbound SA' }])
  await expect(process.mesh.commit({})).rejects.toThrow(InvalidState)
  await process.remove([5])
  expect((await process.mesh.prepare(keysOf(4), {})).failures).toEqual([])
  expect((await process.mesh.commit({})).failures).toEqual([])
})

test('after what encrypts was put back, with the old key before the new one, who has the old file is refused to reclaim', async () => {
  const kernel = new NodeKernel()
  const one = new Process(kernel, 3, 'cilium')
  await one.upsert([2, 5])
  await one.rotate(keysOf(4))
  kernel.held = kernel.held.filter(({ record }) => isPolicyRecord(record, 0))
  await one.mesh.repair({})
  const before = contents(kernel)
  const next = new Process(kernel, 3, 'cilium')
  await next.upsert([2, 5])
  await expect(next.mesh.reclaim(0, {})).rejects.toThrow(/SAs lead out under key 4/)
  expect(contents(kernel)).toEqual(before)
})
