import { array } from '../base/check.js'
import { InvalidArgument, XfrmeshError } from '../base/errors.js'
import type { Nft } from '../kernel/nft.js'
import { newSlices } from '../kernel/mappings.js'
import { giveBack, takeBuffer } from '../kernel/record-buffers.js'
import { checkedInterface, checkedText } from './owner.js'
import { checkedMapping, Subnets } from './subnet.js'
import { Texts } from './texts.js'

/** Attachments that are given to the addon at once, which works on them while the next are read. */
const SLICE = 1024

interface Slice {
  /** How many are before it. */
  readonly first: number
  /** Of each its network, its interface, its container and its addresses. */
  readonly texts: Texts
  /** How many addresses each has. */
  readonly counts: Uint32Array
  /** How many there are. */
  size: number
}

/**
 * The attachments that a call is about, read at once. Here it is looked at that they are texts; the addon checks what they
 * say, and has them hashed and parsed by the time the last is read. What it refuses is checked again here, which tells what
 * is wrong with it, or that nothing is.
 */
export class Given {
  /** As the addon has them, once all are sent. */
  readonly slices = newSlices()
  readonly #nft: Pick<Nft, 'run'>
  readonly #argument: string
  readonly #sent: Slice[] = []
  /** The one that is read, if there is one. */
  #slice: Slice | undefined

  /** @param argument what the caller knows them as */
  constructor(nft: Pick<Nft, 'run'>, argument: string) {
    this.#nft = nft
    this.#argument = argument
  }

  /** How many slices there are. */
  get size(): number {
    return this.#sent.length
  }

  /**
   * Takes all of an array, its holes too.
   * @param take calls {@link add}
   * @throws InvalidArgument naming the first that is refused by its place in it
   */
  each(values: unknown, take: (value: unknown) => void): void {
    const all = array(values, this.#argument)
    let i = 0
    try {
      for (; i < all.length; i++) take(all[i])
    } catch (error) {
      this.check()
      throw error instanceof InvalidArgument ? error.within(`${this.#argument}[${i}]`) : error
    }
    this.#send()
  }

  /** @throws InvalidArgument */
  add(network: unknown, interfaceName: unknown, containerId: unknown, addresses: unknown): void {
    const slice = (this.#slice ??= nextSlice(this.#sent.at(-1)))
    const { texts } = slice
    const from = texts.length
    addText(texts, network, from)
    addText(texts, interfaceName, from)
    addText(texts, containerId, from)
    if (!Array.isArray(addresses)) {
      checkAttachment(texts.read(from))
      array(addresses, '.addresses')
      return
    }
    let count = 0
    for (; count < addresses.length; count++) addText(texts, addresses[count], from)
    slice.counts[slice.size++] = count
    if (slice.size === SLICE) this.#send()
  }

  /** Checks all that was read. @throws InvalidArgument */
  check(): void {
    for (const slice of this.#sent) this.#check(slice)
    if (this.#slice !== undefined) this.#check(this.#slice)
  }

  /** Gives back the memory that the texts are in, once a change was planned: before, the addon may be at work on them. */
  release(): void {
    for (const { texts, counts } of this.#sent.splice(0)) {
      texts.release()
      giveBack(new Uint8Array(counts.buffer))
    }
  }

  /** Checks slices that the addon refused, and has it take those that are good all the same. @throws InvalidArgument */
  async mend(refused: Iterable<number>): Promise<void> {
    for (const index of refused) {
      this.#check(this.#sent[index]!)
      await this.#take(index, true)
    }
  }

  #send(): void {
    if (this.#slice === undefined) return
    const index = this.#sent.push(this.#slice) - 1
    this.#slice = undefined
    // What was not taken is found when it is needed.
    this.#take(index, false).catch(() => undefined)
  }

  async #take(index: number, namesChecked: boolean): Promise<void> {
    const { texts, counts, size } = this.#sent[index]!
    await this.#nft.run('masquerade: attachments', (socket, job) =>
      socket.takeSlice(job, this.slices, index, texts.bytes, counts.subarray(0, size), namesChecked),
    )
  }

  #check({ first, texts, counts, size }: Slice): void {
    const all = texts.read(0)
    let at = 0
    for (let i = 0; i < size; i++) {
      try {
        checkAttachment(all.slice(at, (at += 3 + counts[i]!)))
      } catch (error) {
        throw error instanceof InvalidArgument ? error.within(`${this.#argument}[${first + i}]`) : error
      }
    }
  }
}

/** One for what comes after those of another. */
function nextSlice(before: Slice | undefined): Slice {
  return {
    first: before === undefined ? 0 : before.first + before.size,
    texts: new Texts(before?.texts),
    counts: new Uint32Array(takeBuffer(SLICE * Uint32Array.BYTES_PER_ELEMENT).buffer),
    size: 0,
  }
}

/** Adds one to those of the attachment that begins with a byte. @throws InvalidArgument */
function addText(texts: Texts, text: unknown, from: number): void {
  if (texts.add(text)) return
  checkAttachment([...texts.read(from), text])
  throw checksDisagree()
}

/** One refuses what the other finds nothing wrong with. */
export function checksDisagree(): XfrmeshError {
  return new XfrmeshError('ERR_XFRMESH_INTERNAL', 'masquerade: two checks disagree')
}

/** Names and addresses, as in {@link Slice}. @throws InvalidArgument */
function checkAttachment([network, interfaceName, containerId, ...addresses]: readonly unknown[]): void {
  checkedText(network, '.network')
  checkedInterface(interfaceName, '.interfaceName')
  checkedText(containerId, '.containerId')
  const subnets = new Subnets()
  const before = new Set<string>()
  for (const [i, address] of addresses.entries()) {
    const { text, subnet } = checkedMapping(address, `.addresses[${i}]`, subnets)
    if (before.has(text)) {
      throw new InvalidArgument(`.addresses[${i}]`, 'another address than those before it', `${text}/${subnet.prefix}`)
    }
    before.add(text)
  }
}
