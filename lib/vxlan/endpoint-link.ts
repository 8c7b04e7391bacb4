import type { Family } from '../base/address.js'
import { InvalidArgument, XfrmeshError } from '../base/errors.js'
import type { ChannelOptions } from '../kernel/channel.js'
import { NeighbourChannel } from '../kernel/neighbours.js'

/** The link whose endpoints these are, found by its name, and the socket that speaks of it. */
export interface OpenLink {
  readonly channel: NeighbourChannel
  readonly index: number
  /** Of its outer addresses, if it says. */
  readonly family: Family | undefined
  readonly vni: number
  /** UDP port at which VTEPs receive. */
  readonly port: number
  /** Where its UDP socket is in another namespace than the link: that one's id in the link's. */
  readonly linkNamespace: number | undefined
}

/** Why a link that was found is not one for these endpoints; undefined if it is. */
export type Refusal = (link: OpenLink) => Promise<InvalidArgument | undefined>

/**
 * Opened when it is first asked for. One caller at a time. It outlives its namespace's name, which others take away while
 * entries are there, for these have to be removed all the same; where entries are to be made, the name has to be there.
 */
export class EndpointLink {
  readonly #name: string
  readonly #options: ChannelOptions
  #channel: NeighbourChannel | undefined
  #link: OpenLink | undefined
  /** Of the link that was found last, and is not known to be gone. */
  #index: number | undefined
  /** Indexes of links that are locked. */
  readonly #locked = new Set<number>()
  readonly #openChannel: (options: ChannelOptions) => Promise<NeighbourChannel>
  #refusal: Refusal | undefined

  /** @param openChannel what stands for the kernel, in tests */
  constructor(name: string, options: ChannelOptions, openChannel = openedChannel) {
    this.#name = name
    this.#options = options
    this.#openChannel = openChannel
  }

  /** From now on only links are found that are not refused. */
  restrict(refusal: Refusal | undefined): void {
    this.#refusal = refusal
    this.forget()
  }

  /** What the last look found. */
  get known(): OpenLink | undefined {
    return this.#link
  }

  /** The link, to make entries, looked up if it is not known. @throws what {@link look} does */
  async open(): Promise<OpenLink> {
    if (this.#link === undefined) return this.look(true)
    this.#checkName()
    return this.#link
  }

  /** The link, to remove entries; undefined if there is no such link, or another one bears its name. */
  async find(): Promise<OpenLink | undefined> {
    const found = this.#link ?? (await this.#look())
    return found instanceof InvalidArgument ? undefined : found
  }

  /**
   * Looks the link up again: another may bear its name by now.
   *
   * @param isForMore whether entries are to be made
   * @throws InvalidArgument for a namespace or link that is not there, or a link of another kind, or one that is refused
   * @throws Unsupported without CAP_NET_ADMIN; XfrmeshError ERR_XFRMESH_LOCKED if others have its endpoints, and
   *   ERR_XFRMESH_NAMESPACE_GONE for more in one that lost its name; to a holder ERR_XFRMESH_LINK_RENAMED
   */
  async look(isForMore: boolean): Promise<OpenLink> {
    const found = await this.#look()
    if (isForMore) this.#checkName()
    if (found instanceof InvalidArgument) throw found
    return found
  }

  async #look(): Promise<OpenLink | InvalidArgument> {
    this.#link = undefined
    const channel = (this.#channel ??= await this.#openChannel(this.#options))
    const view = await channel.link({ name: this.#name })
    await this.#checkRenamed(channel, view?.index)
    if (view === undefined) return this.#refuse('it is not there')
    const { index, kind, family, vni, port, linkNamespace } = view
    if (kind !== 'vxlan') return this.#refuse(kind === undefined ? 'it is a device' : `it is a ${kind}`)
    if (view.isExternal) {
      return this.#refuse('it is external: it has no network of its own, and its FDB is by networks')
    }
    const link = { channel, index, family, vni, port, linkNamespace }
    const refusal = await this.#refusal?.(link)
    if (refusal !== undefined) return refusal
    if (!this.#locked.has(index)) {
      const holder = await channel.lock(`xfrmesh/endpoints/${index}`)
      if (holder !== undefined) throw this.#lockedError(holder)
      this.#locked.add(index)
    }
    this.#index = index
    return (this.#link = link)
  }

  /** The link is gone, or no matter any more. */
  forget(): void {
    this.#link = undefined
    this.#index = undefined
  }

  /** Nobody has entries here any more: a namespace that lost its name is let go of, and the one of that name opened next. */
  async letGo(): Promise<void> {
    try {
      this.#checkName()
    } catch {
      const channel = this.#channel
      this.#channel = undefined
      this.#locked.clear()
      this.forget()
      await channel?.close()
    }
  }

  async close(): Promise<void> {
    await this.#channel?.close()
  }

  /** @throws XfrmeshError ERR_XFRMESH_NAMESPACE_GONE */
  #checkName(): void {
    this.#channel?.checkName(`endpoints of ${this.#name}`)
  }

  /**
   * A link that only lost its name is not gone: its entries still send. One that was moved to another namespace can't be told
   * from one that was deleted.
   *
   * @param index of the link that bears the name now
   */
  async #checkRenamed(channel: NeighbourChannel, index: number | undefined): Promise<void> {
    if (this.#refusal === undefined || this.#index === undefined || this.#index === index) return
    const before = await channel.link({ index: this.#index })
    if (before?.kind !== 'vxlan') return
    throw new XfrmeshError(
      'ERR_XFRMESH_LINK_RENAMED',
      `the VXLAN link that was ${this.#name}, and has its endpoints' entries, is ${before.name} now: name it ${this.#name} again, or delete it`,
    )
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

async function openedChannel(options: ChannelOptions): Promise<NeighbourChannel> {
  const channel = await NeighbourChannel.open({ ...options, outlivesName: true })
  try {
    await channel.checkCapability()
    return channel
  } catch (error) {
    await channel.close()
    throw error
  }
}
