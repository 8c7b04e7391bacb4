/** A NodeEncryption that is closed while something waits. */
import { expect, test } from 'vitest'
import { NodeEncryption } from '../../../lib/node/index.js'
import { withNetns } from '../netns.js'
import { bootIdOf, keysOf } from '../node-cluster.js'

test('a reclaim() that waits ends with close()', () =>
  withNetns(async (netns) => {
    const local = { addresses: ['192.0.2.1'], subnets: ['10.1.0.0/24'], bootId: bootIdOf(1) }
    const node = await NodeEncryption.open({ netns, local, keys: keysOf(3) })
    await node.prepare(keysOf(4))
    await node.commit()
    const codeOf = (error: { code: string }) => error.code
    const reclaimed = node.reclaim({ after: 300_000 }).then(() => 'reclaimed', codeOf)
    // It has had its turn, and waits.
    await node.status()
    const closed = node.close().then(() => 'it waits still')
    expect(await Promise.race([reclaimed, closed])).toBe('ERR_XFRMESH_CLOSED')
    await closed
  }))
