import type { Nft } from '../kernel/nft.js'
import { OWNER_WORDS } from './owner.js'
import type { Attachment } from './plan.js'

/** Attachments that are given to the addon at once, which works on them while the next are looked at. */
const SLICE = 1024

/** Who attachments by the thousand are: their hashes and comments, made in C++ as the names come. */
export class Owners {
  readonly #nft: Nft
  #names: string[] = []
  readonly #sent: Promise<{ owners: Uint8Array; comments: Uint8Array }>[] = []
  #slices: { words: Uint32Array; comments: Uint8Array }[] = []

  constructor(nft: Nft) {
    this.#nft = nft
  }

  /** Names as they were checked: no interface's has a colon, and none a NUL. */
  add(network: string, interfaceName: string, containerId: string): void {
    this.#names.push(network, `${interfaceName}:${containerId}`)
    if (this.#names.length === 2 * SLICE) this.#send()
  }

  /** To be awaited before any of the below. */
  async done(): Promise<void> {
    if (this.#names.length > 0) this.#send()
    const slices = await Promise.all(this.#sent)
    this.#slices = slices.map(({ owners, comments }) => ({ words: new Uint32Array(owners.buffer), comments }))
  }

  /** In the order given. What `take` gets holds until it returns. */
  each(take: (attachment: Attachment) => void): void {
    for (const { words: owners, comments } of this.#slices) {
      const attachment = { owners, owner: 0, comments, comment: 0 }
      for (; attachment.owner < owners.length; attachment.owner += OWNER_WORDS, attachment.comment++) take(attachment)
    }
  }

  #send(): void {
    const slice = this.#nft.owners(Buffer.from(`${this.#names.join('\0')}\0`))
    // If a later argument is refused nobody waits for it.
    slice.catch(() => undefined)
    this.#sent.push(slice)
    this.#names = []
  }
}
