import { array } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import type { Nft } from '../kernel/nft.js'
import { newSlices } from '../kernel/mappings.js'
import { checkedInterface, checkedText } from './owner.js'
import { checkedMapping, Subnets } from './subnet.js'

/** Attachments that are given to the addon at once, which works on them while the next are read. */
const SLICE = 1024

interface Slice {
  /** How many are before it. */
  readonly first: number
  /** Of each its network, its interface, its container and its addresses. */
  readonly texts: string[]
  /** How many addresses each has. */
  readonly counts: number[]
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
  #slice: Slice = { first: 0, texts: [], counts: [] }

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
    if (this.#slice.counts.length > 0) this.#send()
  }

  /** @throws InvalidArgument */
  add(network: unknown, interfaceName: unknown, containerId: unknown, addresses: unknown): void {
    const { texts, counts } = this.#slice
    const first = texts.length
    if (typeof network !== 'string' || typeof interfaceName !== 'string' || typeof containerId !== 'string') {
      checkNames(network, interfaceName, containerId)
      return
    }
    texts.push(network, interfaceName, containerId)
    if (!Array.isArray(addresses)) {
      checkNames(network, interfaceName, containerId)
      array(addresses, '.addresses')
      return
    }
    for (let i = 0; i < addresses.length; i++) {
      const address: unknown = addresses[i]
      if (typeof address !== 'string') {
        checkAttachment([...texts.slice(first), address])
        return
      }
      texts.push(address)
    }
    if (counts.push(texts.length - first - 3) === SLICE) this.#send()
  }

  /** Checks all that was read. @throws InvalidArgument */
  check(): void {
    for (const slice of [...this.#sent, this.#slice]) this.#check(slice)
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
    this.#slice = { first: slice.first + slice.counts.length, texts: [], counts: [] }
    // What was not taken is found when it is needed.
    this.#take(this.#sent.push(slice) - 1, false).catch(() => undefined)
  }

  async #take(index: number, namesChecked: boolean): Promise<void> {
    const { texts, counts } = this.#sent[index]!
    // Each ends in NUL. To append one to what is joined would copy it all.
    const bytes = Buffer.from([...texts, ''].join('\0'))
    await this.#nft.run('masquerade: attachments', (socket, job) =>
      socket.takeSlice(job, this.slices, index, bytes, Uint32Array.from(counts), namesChecked),
    )
  }

  #check({ first, texts, counts }: Slice): void {
    let at = 0
    for (const [i, count] of counts.entries()) {
      try {
        checkAttachment(texts.slice(at, (at += 3 + count)))
      } catch (error) {
        throw error instanceof InvalidArgument ? error.within(`${this.#argument}[${first + i}]`) : error
      }
    }
  }
}

function checkNames(network: unknown, interfaceName: unknown, containerId: unknown): void {
  checkedText(network, '.network')
  checkedInterface(interfaceName, '.interfaceName')
  checkedText(containerId, '.containerId')
}

/** Names and addresses, as in {@link Slice}. @throws InvalidArgument */
function checkAttachment([network, interfaceName, containerId, ...addresses]: readonly unknown[]): void {
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
}
