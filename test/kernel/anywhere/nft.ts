import { Nft } from '../../../lib/kernel/nft.js'
import { withNetns } from '../netns.js'

/** An `Nft` in a namespace of its own. */
export async function withNft(work: (nft: Nft, netns: string) => Promise<void>): Promise<void> {
  await withNetns(async (netns) => {
    const nft = await Nft.open({ netns })
    try {
      await work(nft, netns)
    } finally {
      await nft.close()
    }
  })
}
