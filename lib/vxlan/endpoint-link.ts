import type { Family } from '../base/address.js'
import { InvalidArgument, XfrmeshError } from '../base/errors.js'
import type { ChannelOptions } from '../kernel/channel.js'
import { NeighbourChannel, type LinkView } from '../kernel/neighbours.js'

/** The link whose endpoints these are, found by its name, and the socket that speaks of it. */
export interface OpenLink {
  readonly channel: NeighbourChannel
  readonly index: number
  /** Of its outer addresses, if it says. */
  readonly family: Family | undefined
  readonly vni: number
  /** UDP port at which VTEPs receive. */
  readonly port: number
}

/** Opened when it is first asked for. One caller at a time. */
export class EndpointLink {
  readonly #name: string
  readonly #options: ChannelOptions
  #channel: NeighbourChannel | undefined
  #link: OpenLink | undefined
  /** Indexes of links that are locked. */
  readonly #locked = new Set<number>()

  constructor(name: string, options: ChannelOptions) {
    this.#name = name
    this.#options = options
  }

  /** What the last look found. */
  get known(): OpenLink | undefined {
    return this.#link
  }

  /** The link, looked up if it is not known. @throws what {@link look} does */
  async open(): Promise<OpenLink> {
    return this.#link ?? (await this.look())
  }

  /** The same, but undefined if there is no such link. */
  async find(): Promise<OpenLink | undefined> {
    return this.#link ?? (await this.#look())
  }

  /**
   * Looks the link up again: another may bear its name by now.
   *
   * @throws InvalidArgument for a namespace or link that is not there, or a link of another kind
   * @throws Unsupported without CAP_NET_ADMIN; XfrmeshError ERR_XFRMESH_LOCKED if others have its endpoints
   */
  async look(): Promise<OpenLink> {
    const found = await this.#look()
    if (found === undefined) throw this.#refuse('it is not there')
    return found
  }

  async #look(): Promise<OpenLink | undefined> {
    this.#link = undefined
    const channel = (this.#channel ??= await this.#openChannel())
    const found = await channel.link(this.#name)
    if (found === undefined) return undefined
    this.#check(found)
    if (!this.#locked.has(found.index)) {
      const holder = await channel.lock(`xfrmesh/endpoints/${found.index}`)
      if (holder !== undefined) throw this.#lockedError(holder)
      this.#locked.add(found.index)
    }
    const { index, family, vni, port } = found
    return (this.#link = { channel, index, family, vni, port })
  }

  /** The link is gone, or not known to be what it was. */
  forget(): void {
    this.#link = undefined
  }

  async close(): Promise<void> {
    await this.#channel?.close()
  }

  async #openChannel(): Promise<NeighbourChannel> {
    const channel = await NeighbourChannel.open(this.#options)
    try {
      await channel.checkCapability()
      return channel
    } catch (error) {
      await channel.close()
      throw error
    }
  }

  #check({ kind, isExternal }: LinkView): void {
    if (kind !== 'vxlan') throw this.#refuse(kind === undefined ? 'it is a device' : `it is a ${kind}`)
    if (isExternal) throw this.#refuse('it is external: it has no network of its own, and its FDB is by networks')
  }

  #refuse(why: string): InvalidArgument {
    return new InvalidArgument('options.link', `the name of a VXLAN link in that namespace; ${this.#name}: ${why}`)
  }

  #lockedError({ pid, uid }: { pid: number; uid: number }): XfrmeshError {
    const who = pid === 0 ? 'another process' : `process ${pid} (user ${uid})`
    return new XfrmeshError(
      'ERR_XFRMESH_LOCKED',
      `${who} has the endpoints of ${this.#name} in this network namespace: close them there first`,
    )
  }
}
