import type { Nft } from '../../lib/kernel/nft.js'
import { COMMENT_SLOT_BYTES } from '../../lib/kernel/nft.js'
import { Owners } from '../../lib/masquerade/owners.js'
import { native, NETLINK_NETFILTER } from '../../lib/native.js'

/** Who attachments are, by the addon alone: on the thread of a socket that is never opened. */
export async function ownersOf(
  ...names: (readonly [network: string, interfaceName: string, containerId: string])[]
): Promise<{ owner: string; comment: Buffer }[]> {
  const socket = new native.Socket({
    protocol: NETLINK_NETFILTER,
    netns: undefined,
    receiveBuffer: 0,
    sendBuffer: 0,
    chunk: 0,
  })
  try {
    let job = 0
    const owners = new Owners({ owners: (packed: Uint8Array) => socket.owners(++job, packed) } as unknown as Nft)
    for (const name of names) owners.add(...name)
    await owners.done()
    const all: { owner: string; comment: Buffer }[] = []
    owners.each(({ owners: words, owner, comments, comment }) =>
      all.push({
        owner: Buffer.from(words.slice(owner, owner + 4).buffer).toString('hex'),
        comment: Buffer.from(comments.subarray(comment * COMMENT_SLOT_BYTES, (comment + 1) * COMMENT_SLOT_BYTES)),
      }),
    )
    return all
  } finally {
    await socket.close()
  }
}
