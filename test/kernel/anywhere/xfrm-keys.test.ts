import { expect, test, vi } from 'vitest'
import { stateId } from '../../../lib/kernel/xfrm-batch.js'
import { XfrmChannel } from '../../../lib/kernel/xfrm-channel.js'
import { withNetns } from '../netns.js'

const ESRCH = 3

test('keys that come with a list that failed are overwritten, and those given for it are not', () =>
  withNetns(async (netns) => {
    const channel = await XfrmChannel.open({ netns })
    const fill = vi.spyOn(Uint8Array.prototype, 'fill')
    try {
      const key = Uint8Array.from({ length: 19 }, (_, i) => i + 1)
      const one = stateId({ destination: '10.0.0.2', spi: 1, protocol: 'esp' })
      const read = channel.read({ policies: false, one, reqid: 0, details: true, keys: [key], algorithms: [] })
      await expect(read).rejects.toMatchObject({ errno: ESRCH })
      const filled = fill.mock.contexts.filter((bytes) => (bytes as Uint8Array).length === key.length)
      expect(filled).toEqual([new Uint8Array(key.length)])
      expect([...key]).toEqual(Array.from({ length: 19 }, (_, i) => i + 1))
    } finally {
      fill.mockRestore()
      await channel.close()
    }
  }))
