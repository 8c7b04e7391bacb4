import { closeSync, fstatSync } from 'node:fs'
import { openNamespace } from '../kernel/namespace.js'
import type { OpenLink } from '../vxlan/endpoint-link.js'

/** The network namespace of an Overlay, by a descriptor of its own. */
export class Home {
  readonly #descriptor: number
  readonly #inode: number

  /**
   * @param netns by path or descriptor; undefined: the process's own
   * @param inode of the namespace that the overlay's sockets are in
   * @throws XfrmeshError ERR_XFRMESH_NAMESPACE_GONE
   */
  constructor(netns: string | number | undefined, inode: number) {
    this.#descriptor = openNamespace(
      typeof netns === 'number' ? `/proc/self/fd/${netns}` : (netns ?? '/proc/self/ns/net'),
    )
    this.#inode = inode
  }

  /** Whether the UDP socket of a link is here, as far as can be told: else it must be taken to be elsewhere. */
  async hasSocketOf({ channel, linkNamespace }: OpenLink): Promise<boolean> {
    // Another may have borne the path's name when it was opened; and a kernel before 4.9 tells no inode.
    if (fstatSync(this.#descriptor).ino !== this.#inode) return false
    if (linkNamespace === undefined) return channel.namespaceInode === this.#inode
    return (await channel.namespaceId(this.#descriptor)) === linkNamespace
  }

  close(): void {
    closeSync(this.#descriptor)
  }
}
