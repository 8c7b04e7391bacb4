import { describe, expect, test } from 'vitest'
import { InvalidArgument } from '../../lib/base/errors.js'
import { Xfrm } from '../../lib/kernel/xfrm.js'
import { Nft } from '../../lib/kernel/nft.js'
import { XfrmChannel } from '../../lib/kernel/xfrm-channel.js'

/** What a caller without types may pass where it meant a namespace. None of it may come to mean the process's own. */
const none = [null, {}, [], '', 2 ** 32 + 0.5, -1, true]

describe.each([
  ['Nft', (netns: never) => Nft.open({ netns })],
  ['Xfrm', (netns: never) => Xfrm.open({ netns })],
  ['XfrmChannel', (netns: never) => XfrmChannel.open({ netns })],
])('%s.open', (_, open) => {
  test.each(none)('refuses %j for a namespace', async (netns) => {
    const refused = open(netns as never)
    await expect(refused).rejects.toThrow(InvalidArgument)
    await expect(refused).rejects.toThrow(/^netns must be a network namespace's path/)
  })
})
