import { integer, namespace, object, oneOf, options } from '../base/check.js'
import { InvalidState } from '../base/errors.js'
import { Nft } from '../kernel/nft.js'
import { Given } from './given.js'
import { checkedText, type AttachmentName } from './owner.js'
import { plan, type Change, type Layout } from './plan.js'
import type { ListedAttachment } from './read.js'
import { Table } from './table.js'

export type { AttachmentName } from './owner.js'
export type { Layout } from './plan.js'
export type { ListedAttachment } from './read.js'

export interface MasqueradeOptions {
  /** A network namespace by path (`/run/netns/a`) or open descriptor; default: the process's own. */
  readonly netns?: string | number
  /**
   * How mappings are kept that are added from here on.
   *
   * - `rules`, the default: a rule each, byte for byte what the CNI plugins write. A packet meets them one by one.
   * - `set`: an element each of a verdict map, which costs a packet the same however many there are.
   *
   * Both may stand in the table at once, and the plugins' own rules too: whatever holds a mapping, it is found, listed,
   * replaced and removed here. What is there when another layout is opened stays as it is until it is added again.
   */
  readonly layout?: Layout
  /** How long one exchange with the kernel may take, in milliseconds, 1 to 2^31 - 1; default 10,000. */
  readonly timeoutMs?: number
}

/** Addresses of one interface of one container, each with the prefix of its subnet. */
export interface Attachment extends AttachmentName {
  /** As in `192.168.1.2/24`: what leaves from there is masqueraded, unless it stays in that subnet. Each only once. */
  readonly addresses: readonly string[]
}

/** An attachment that may stay. */
export interface ValidAttachment {
  readonly interfaceName: string
  readonly containerId: string
}

export interface MasqueradeChange {
  /** Mappings made, and taken away. What was replaced counts as both. */
  readonly added: number
  readonly removed: number
  readonly elapsedMs: number
}

const attachmentFields = ['network', 'interfaceName', 'containerId', 'addresses'] as const

/** Where addresses do not matter. */
const none: readonly unknown[] = []

/**
 * Masquerading for containers, any number in one transaction: in family inet, table `cni_plugins_masquerade`, shared with
 * the CNI plugins and with other processes. What leaves from a mapped address to outside its subnet, and not to a
 * multicast group, gets the address of the device it leaves by.
 *
 * Each call makes all of its changes, or none. It plans them from what the table holds, and commits them only if nobody
 * changed anything meanwhile: else it reads what it must again, and plans anew. Calls on one instance run in the order
 * made.
 *
 * It remembers what it read and made for as long as nobody else wrote to the table. It can tell since each addition, the plugins'
 * too, makes the rules of `postrouting` anew, and each removal alone leaves a chain used less. An element or a rule that
 * a person put in the place of another with `nft` may stay unseen until the next change by anybody else.
 */
export class Masquerade implements AsyncDisposable {
  readonly layout: Layout
  readonly #nft: Nft
  readonly #table: Table
  #queue: Promise<unknown> = Promise.resolve()
  #closed: Promise<void> | undefined

  private constructor(nft: Nft, layout: Layout) {
    this.layout = layout
    this.#nft = nft
    this.#table = new Table(nft)
  }

  /**
   * Changes nothing: the table is made with the first mapping.
   * @throws InvalidArgument; Unsupported without CAP_NET_ADMIN, and on a kernel without nf_tables; NetlinkError
   */
  static async open(masqueradeOptions: MasqueradeOptions = {}): Promise<Masquerade> {
    const given = options<MasqueradeOptions>(masqueradeOptions, 'options', ['netns', 'layout', 'timeoutMs'])
    const layout = oneOf(given.layout ?? 'rules', 'options.layout', ['rules', 'set'])
    const netns = namespace(given.netns, 'options.netns')
    const timeoutMs = integer(given.timeoutMs ?? 10_000, 'options.timeoutMs', 1, 0x7fffffff)
    const masquerade = new Masquerade(await Nft.open({ timeoutMs, ...(netns !== undefined && { netns }) }), layout)
    try {
      await masquerade.#table.open()
      return masquerade
    } catch (error) {
      await masquerade.close()
      throw error
    }
  }

  /**
   * Masquerades what leaves from these addresses. What an attachment had before it has no more: adding again replaces. An
   * address that another attachment has too is mapped for both: to remove one leaves the other's.
   *
   * @throws InvalidArgument: nothing was changed, here and below
   * @throws InvalidState ERR_XFRMESH_OTHER_SHAPE if there is such a table, but not as the plugins and we make it
   * @throws XfrmeshError ERR_XFRMESH_BUSY if others kept changing the ruleset in between; NetlinkError; Unsupported
   */
  add(attachments: readonly Attachment[]): Promise<MasqueradeChange> {
    return this.#change({ what: 'add' }, 'attachments', attachments, (value, given) => {
      const attachment = object<Attachment>(value, '', attachmentFields)
      given.add(attachment.network, attachment.interfaceName, attachment.containerId, attachment.addresses)
    })
  }

  /**
   * Takes away all that these attachments have, in either layout; which addresses they are said to have does not matter.
   * None is no failure.
   */
  remove(attachments: readonly (AttachmentName & Partial<Attachment>)[]): Promise<MasqueradeChange> {
    return this.#change({ what: 'remove' }, 'attachments', attachments, (value, given) => {
      const { network, interfaceName, containerId } = object<Attachment>(value, '', attachmentFields)
      given.add(network, interfaceName, containerId, none)
    })
  }

  /** Takes away what all other attachments of the network have: CNI's garbage collection. None is no failure. */
  collect(network: string, valid: readonly ValidAttachment[]): Promise<MasqueradeChange> {
    return this.#change({ what: 'collect', network }, 'valid', valid, (value, given) => {
      const { interfaceName, containerId } = object<ValidAttachment>(value, '', ['interfaceName', 'containerId'])
      given.add(network, interfaceName, containerId, none)
    })
  }

  /**
   * What the kernel has, the plugins' rules too: what has a comment of theirs or ours. The names are those in the comment:
   * left out where it was cut, or lost quotes. No attachments if there is no such table.
   */
  list(): Promise<ListedAttachment[]> {
    return this.#call(
      () => undefined,
      () => this.#table.list(),
    )
  }

  /** Ends it, after the calls made. All mappings stay. */
  close(): Promise<void> {
    this.#closed ??= this.#queue.then(() => this.#nft.close())
    return this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #change(
    change: Change,
    argument: string,
    attachments: unknown,
    take: (attachment: unknown, given: Given) => void,
  ): Promise<MasqueradeChange> {
    return this.#call(
      () => {
        if (change.what === 'collect') checkedText(change.network, 'network')
        const given = new Given(this.#nft, argument)
        given.each(attachments, (attachment) => take(attachment, given))
        return given
      },
      async (given) => {
        const began = performance.now()
        try {
          const { added, removed } = await this.#table.change((ledger) =>
            plan(this.#nft, ledger, given, change, this.layout),
          )
          given.release()
          return { added, removed, elapsedMs: performance.now() - began }
        } catch (error) {
          // Before it was looked at what was given, something else was in the way: what is wrong with that comes first.
          given.check()
          throw error
        }
      },
    )
  }

  /** Takes the arguments at once, and does the work in its turn. */
  #call<A, T>(take: () => A, work: (given: A) => Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(new InvalidState('this Masquerade is closed', 'ERR_XFRMESH_CLOSED'))
    let given: A
    try {
      given = take()
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)))
    }
    const result = this.#queue.then(() => work(given))
    this.#queue = result.catch(() => undefined)
    return result
  }
}
