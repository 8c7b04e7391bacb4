import { formatAddress } from '../base/address.js'
import { array, integer, namespace, object, oneOf, options } from '../base/check.js'
import { InvalidArgument, InvalidState } from '../base/errors.js'
import { Nft } from '../kernel/nft.js'
import type { Ledger } from './ledger.js'
import { checkedInterface, checkedText, networkWords, type AttachmentName } from './owner.js'
import { Owners } from './owners.js'
import { Draft, type Addresses, type Layout } from './plan.js'
import type { ListedAttachment } from './read.js'
import { addressBytes, ADDRESS_WORDS, Subnets, takeAddress, type Subnet } from './subnet.js'
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

/** What a call is about, checked. */
interface Given {
  readonly owners: Owners
}

/** Attachments and their mappings, in columns. */
interface Wanted extends Given, Addresses {
  words: Uint32Array
  readonly subnets: Subnet[]
  /** Where the mappings of each attachment end. */
  readonly ends: number[]
}

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
   * @throws InvalidArgument; Unsupported without CAP_NET_ADMIN, and on a kernel without nf_tables
   */
  static async open(masqueradeOptions: MasqueradeOptions = {}): Promise<Masquerade> {
    const given = options<MasqueradeOptions>(masqueradeOptions, 'options', ['netns', 'layout', 'timeoutMs'])
    const layout = oneOf(given.layout ?? 'rules', 'options.layout', ['rules', 'set'])
    const netns = namespace(given.netns, 'options.netns')
    const timeoutMs = integer(given.timeoutMs ?? 10_000, 'options.timeoutMs', 1, 0x7fffffff)
    return new Masquerade(await Nft.open({ timeoutMs, ...(netns !== undefined && { netns }) }), layout)
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
    return this.#change(
      (owners) => {
        const wanted: Wanted = { owners, words: new Uint32Array(ADDRESS_WORDS), subnets: [], ends: [] }
        const subnets = new Subnets()
        each(attachments, 'attachments', (attachment) => take(attachment, wanted, subnets))
        return wanted
      },
      (ledger, { owners, ends, ...addresses }) => {
        const draft = new Draft(ledger, this.layout, addresses.subnets.length)
        let i = 0
        owners.each((attachment) => draft.add(attachment, addresses, ends[i - 1] ?? 0, ends[i++]!))
        return draft
      },
    )
  }

  /**
   * Takes away all that these attachments have, in either layout; which addresses they are said to have does not matter.
   * None is no failure.
   */
  remove(attachments: readonly (AttachmentName & Partial<Attachment>)[]): Promise<MasqueradeChange> {
    return this.#change(
      (owners) => {
        each(attachments, 'attachments', (attachment) => {
          takeName(object<Attachment>(attachment, '', attachmentFields), owners)
        })
        return { owners }
      },
      (ledger, { owners }) => {
        const draft = new Draft(ledger, this.layout)
        owners.each(({ owners: words, owner }) => draft.remove(words, owner))
        return draft
      },
    )
  }

  /** Takes away what all other attachments of the network have: CNI's garbage collection. None is no failure. */
  collect(network: string, valid: readonly ValidAttachment[]): Promise<MasqueradeChange> {
    return this.#change(
      (owners) => {
        checkedText(network, 'network')
        each(valid, 'valid', (attachment) => takeValid(attachment, network, owners))
        return { owners }
      },
      (ledger, { owners }) => {
        const draft = new Draft(ledger, this.layout)
        draft.collect(networkWords(network), owners)
        return draft
      },
    )
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

  #change<G extends Given>(
    take: (owners: Owners) => G,
    plan: (ledger: Ledger, given: G) => Draft,
  ): Promise<MasqueradeChange> {
    return this.#call(
      () => take(new Owners(this.#nft)),
      async (given) => {
        const began = performance.now()
        await given.owners.done()
        const { added, removed } = await this.#table.change((ledger) => plan(ledger, given).plan())
        return { added, removed, elapsedMs: performance.now() - began }
      },
    )
  }

  /** Takes and checks the arguments at once, and does the work in its turn. */
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

/** Takes all of an array, its holes too. What is refused is named by its place in it. */
function each(values: unknown, argument: string, take: (value: unknown, i: number) => void): void {
  const all = array(values, argument)
  let i = 0
  try {
    for (; i < all.length; i++) take(all[i], i)
  } catch (error) {
    throw error instanceof InvalidArgument ? error.within(`${argument}[${i}]`) : error
  }
}

function take(value: unknown, wanted: Wanted, subnets: Subnets): void {
  const given = object<Attachment>(value, '', attachmentFields)
  takeName(given, wanted.owners)
  const first = wanted.subnets.length
  each(given.addresses, '.addresses', (address) => {
    const at = wanted.subnets.length * ADDRESS_WORDS
    if (at === wanted.words.length) wanted.words = grown(wanted.words)
    const subnet = takeAddress(address, '', subnets, wanted.words, at)
    if (wanted.subnets.length > first) checkDistinct(wanted, first, subnet)
    wanted.subnets.push(subnet)
  })
  wanted.ends.push(wanted.subnets.length)
}

function grown(words: Uint32Array): Uint32Array {
  const more = new Uint32Array(words.length * 2)
  more.set(words)
  return more
}

/** Whether the address after the last is another than the attachment's before it. */
function checkDistinct({ words, subnets }: Wanted, first: number, { family, prefix }: Subnet): void {
  const at = subnets.length * ADDRESS_WORDS
  for (let other = first * ADDRESS_WORDS; other < at; other += ADDRESS_WORDS) {
    let same = 0
    while (same < ADDRESS_WORDS && words[other + same] === words[at + same]) same++
    if (same < ADDRESS_WORDS) continue
    const text = formatAddress(addressBytes(words, at, family), 0, family)
    throw new InvalidArgument('', 'another address than those before it', `${text}/${prefix}`)
  }
}

function takeName(given: Partial<AttachmentName>, owners: Owners): void {
  const { network, interfaceName, containerId } = given
  owners.add(
    checkedText(network, '.network'),
    checkedInterface(interfaceName, '.interfaceName'),
    checkedText(containerId, '.containerId'),
  )
}

function takeValid(value: unknown, network: string, owners: Owners): void {
  const { interfaceName, containerId } = object<ValidAttachment>(value, '', ['interfaceName', 'containerId'])
  owners.add(network, checkedInterface(interfaceName, '.interfaceName'), checkedText(containerId, '.containerId'))
}
