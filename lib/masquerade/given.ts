import { array } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import type { Nft } from '../kernel/nft.js'
import { newSlices } from '../kernel/mappings.js'
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
 * The attachments that a call is about, read at once. Here it is looked at that they are strings; the addon checks what
 * they say, and has them hashed and parsed by the time the last is read. What it refuses is checked again here, which tells
 * what is wrong with it, or that nothing is.
 */
export class Given {
  /** As the addon has them, once all are sent. */
  readonly slices = newSlices()
  readonly #nft: Pick<Nft, 'run'>
  readonly #argument: string
  readonly #sent: Slice[] = []
  #slice = emptySlice()

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
    if (this.#slice.size > 0) this.#send()
  }

  /** @throws InvalidArgument */
  add(network: unknown, interfaceName: unknown, containerId: unknown, addresses: unknown): void {
    const slice = this.#slice
    const { texts } = slice
    const from = texts.length
    let count = -1
    if (texts.add(network) && texts.add(interfaceName) && texts.add(containerId)) count = addAddresses(texts, addresses)
    if (count < 0) {
      checkNames(network, interfaceName, containerId)
      const checked = checkAttachment([network, interfaceName, containerId, ...array(addresses, '.addresses')])
      texts.replace(from, checked)
      count = checked.length - 3
    }
    slice.counts[slice.size++] = count
    if (slice.size === SLICE) this.#send()
  }

  /** Checks all that was read. @throws InvalidArgument */
  check(): void {
    for (const slice of [...this.#sent, this.#slice]) this.#check(slice)
  }

  /** Gives back the memory that the texts are in: the addon needs them no more. */
  release(): void {
    for (const { texts } of this.#sent.splice(0)) texts.release()
  }

  /** Checks slices that the addon refused, and has it take those that are good all the same. @throws InvalidArgument */
  async mend(refused: Iterable<number>): Promise<void> {
    for (const index of refused) {
      this.#check(this.#sent[index]!)
      await this.#take(index, true)
    }
  }

  #send(): void {
    const slice = this.#slice
    this.#slice = emptySlice(slice)
    // What was not taken is found when it is needed.
    this.#take(this.#sent.push(slice) - 1, false).catch(() => undefined)
  }

  async #take(index: number, namesChecked: boolean): Promise<void> {
    const { texts, counts, size } = this.#sent[index]!
    await this.#nft.run('masquerade: attachments', (socket, job) =>
      socket.takeSlice(job, this.slices, index, texts.bytes, counts.subarray(0, size), namesChecked),
    )
  }

  #check({ first, texts, counts, size }: Slice): void {
    const all = texts.read()
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
function emptySlice(before?: Slice): Slice {
  return {
    first: before === undefined ? 0 : before.first + before.size,
    texts: new Texts(before?.texts),
    counts: new Uint32Array(SLICE),
    size: 0,
  }
}

/** How many addresses were added; -1 if that is no list of plain strings. */
function addAddresses(texts: Texts, addresses: unknown): number {
  if (!Array.isArray(addresses)) return -1
  let i = 0
  for (; i < addresses.length; i++) if (!texts.add(addresses[i])) return -1
  return i
}

function checkNames(network: unknown, interfaceName: unknown, containerId: unknown): void {
  checkedText(network, '.network')
  checkedInterface(interfaceName, '.interfaceName')
  checkedText(containerId, '.containerId')
}

/** Checks names and addresses, as in {@link Slice}. @throws InvalidArgument */
function checkAttachment(texts: readonly unknown[]): readonly string[] {
  const [network, interfaceName, containerId, ...addresses] = texts
  checkNames(network, interfaceName, containerId)
  const subnets = new Subnets()
  const before = new Set<string>()
  for (const [i, address] of addresses.entries()) {
    const { text, subnet } = checkedMapping(address, `.addresses[${i}]`, subnets)
    if (before.has(text)) {
      throw new InvalidArgument(`.addresses[${i}]`, 'another address than those before it', `${text}/${subnet.prefix}`)
    }
    before.add(text)
  }
  return texts as readonly string[]
}
