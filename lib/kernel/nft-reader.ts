import { setTimeout as sleep } from 'node:timers/promises'
import { boolean, options } from '../base/check.js'
import { NetlinkError, XfrmeshError } from '../base/errors.js'
import type { Channel } from './channel.js'
import { checkEnding } from './netlink-errors.js'
import { AttributeWriter } from './netlink-attributes.js'
import { comesTwice, readElements, readKeys, type NftElement } from './nft-element-list.js'
import { writeKey } from './nft-elements.js'
import {
  readChains,
  readCounters,
  readGeneration,
  readSets,
  readTables,
  requestPayload,
  type Chain,
  type NftCounter,
  type NftSet,
  type Table,
} from './nft-lists.js'
import {
  ChainAttribute,
  checkedName,
  ElementsAttribute,
  LIST_ELEMENT,
  Message,
  OBJECT_COUNTER,
  ObjectAttribute,
  RuleAttribute,
  SetAttribute,
  TableAttribute,
  type ChainName,
  type NftFamily,
  type SetName,
  type TableName,
} from './nft-names.js'
import { readRules, type ListedRule, type Rule, type RuleDetails } from './nft-rule-list.js'

const NFNL_SUBSYS_NFTABLES = 10
const NLM_F_DUMP = 0x300
const ENOENT = 2
const SNAPSHOT_TRIES = 16
/** How often a set that grows is read, and the longest wait before it is read again: a table of 100,000 takes a second. */
const ELEMENTS_TRIES = 64
const LONGEST_WAIT_MS = 100

/** What can be read of a namespace's ruleset. Each list is of one state: one that changed under way is read again. */
export class NftReader {
  readonly #channel: Channel

  /** @internal */
  constructor(channel: Channel) {
    this.#channel = channel
  }

  /** The number of the ruleset's present state, 1 to 2^32 - 1: any change of any table in this namespace makes it another. */
  async generation(): Promise<number> {
    return readGeneration(await this.#request('generation of the ruleset', Message.getGeneration, undefined, 0))
  }

  /**
   * Runs `read` until no change of the ruleset came in between, so that what several calls saw is of one state, and says
   * of which generation.
   * @throws XfrmeshError ERR_XFRMESH_BUSY if it keeps changing
   */
  async snapshot<T>(read: () => Promise<T>): Promise<{ value: T; generation: number }> {
    let before = await this.generation()
    for (let i = 0; i < SNAPSHOT_TRIES; i++) {
      const value = await read()
      const generation = await this.generation()
      if (generation === before) return { value, generation }
      before = generation
    }
    throw busy(`the nftables ruleset changed during each of ${SNAPSHOT_TRIES} readings`)
  }

  /** All tables, or those of one family. */
  async tables(of: { family?: NftFamily } = {}): Promise<Table[]> {
    const { family } = options<{ family?: NftFamily }>(of, 'of', ['family'])
    return readTables(await this.#request('tables', Message.getTable, family, NLM_F_DUMP))
  }

  /** undefined if there is no such table. */
  async table({ family, table }: TableName): Promise<Table | undefined> {
    const attributes = new AttributeWriter().text(TableAttribute.name, checkedName(table, 'table'))
    const messages = await unlessAbsent(this.#request(`table ${table}`, Message.getTable, family, 0, attributes))
    return readTables(messages)[0]
  }

  /** The table's chains; none if there is no such table. */
  async chains({ family, table }: TableName): Promise<Chain[]> {
    const attributes = new AttributeWriter().text(ChainAttribute.table, checkedName(table, 'table'))
    const messages = await this.#dump(`chains of ${table}`, Message.getChain, family, attributes)
    // Not every kernel heeds the table here.
    return readChains(messages).filter((chain) => chain.table === table)
  }

  /**
   * The rules of a table, chain by chain, or of one chain, in the order in which they are run; none if there is no such
   * table or chain. Expressions only if asked for.
   */
  rules(where: TableName | ChainName, details: RuleDetails & { expressions: true }): Promise<Rule[]>
  rules(where: TableName | ChainName, details?: RuleDetails): Promise<ListedRule[]>
  async rules(where: TableName | ChainName, details: RuleDetails = {}): Promise<ListedRule[]> {
    const wanted = options<RuleDetails>(details, 'details', ['expressions', 'comments', 'counters'])
    for (const [name, value] of Object.entries(wanted)) boolean(value, `details.${name}`)
    const { family, table } = where
    const attributes = new AttributeWriter().text(RuleAttribute.table, checkedName(table, 'table'))
    const chain = 'chain' in where ? checkedName(where.chain, 'chain') : undefined
    if (chain !== undefined) attributes.text(RuleAttribute.chain, chain)
    const messages = await this.#dump(`rules of ${chain ?? table}`, Message.getRule, family, attributes)
    return readRules(messages, { family, table, ...(chain !== undefined && { chain }) }, wanted)
  }

  /** The table's sets, its maps among them; none if there is no such table. */
  async sets({ family, table }: TableName): Promise<NftSet[]> {
    const attributes = new AttributeWriter().text(SetAttribute.table, checkedName(table, 'table'))
    return readSets(await this.#dump(`sets of ${table}`, Message.getSet, family, attributes))
  }

  /**
   * The keys of a set's elements, each as long as the set says, in the kernel's own order; none if there is no such set. A set
   * whose table still grows, as it does for a while after many were added, is read until it was whole, here and below.
   * @throws XfrmeshError ERR_XFRMESH_BUSY if it does not come to rest
   */
  async keys(set: SetName): Promise<Uint8Array[]> {
    return readKeys(await this.#dumpElements(set))
  }

  /** A set's elements with all that they have beside their keys, in the kernel's own order; none if there is no such set. */
  async elements(set: SetName): Promise<NftElement[]> {
    return readElements(await this.#dumpElements(set))
  }

  /** The element of that key; undefined if there is none. In a set of intervals: what the kernel takes for it. */
  async element({ family, table, set }: SetName, key: Uint8Array): Promise<NftElement | undefined> {
    const attributes = elementsOf(table, set).nest(ElementsAttribute.elements, (list) =>
      list.nest(LIST_ELEMENT, (element) => writeKey(element, key, 'key')),
    )
    const messages = this.#request(`element of ${set}`, Message.getElements, family, 0, attributes)
    return readElements(await unlessAbsent(messages))[0]
  }

  /** The table's counters that have names; none if there is no such table. */
  async counters({ family, table }: TableName): Promise<NftCounter[]> {
    const attributes = new AttributeWriter()
      .text(ObjectAttribute.table, checkedName(table, 'table'))
      .u32(ObjectAttribute.type, OBJECT_COUNTER)
    return readCounters(await this.#dump(`counters of ${table}`, Message.getObject, family, attributes))
  }

  /** What is listed of an object; nothing if it is not there. */
  #dump(what: string, type: number, family: NftFamily, attributes: AttributeWriter): Promise<Uint8Array> {
    return unlessAbsent(this.#request(what, type, family, NLM_F_DUMP, attributes))
  }

  /** All elements of a set, as the kernel tells them. */
  async #dumpElements({ family, table, set }: SetName): Promise<Uint8Array> {
    const what = `elements of ${set}`
    for (let tries = 1; tries <= ELEMENTS_TRIES; tries++) {
      const messages = await this.#dump(what, Message.getElements, family, elementsOf(table, set))
      if (!comesTwice(messages)) return messages
      await sleep(Math.min(2 ** tries, LONGEST_WAIT_MS))
    }
    throw busy(`${what}: its table grew during each of ${ELEMENTS_TRIES} readings`)
  }

  async #request(
    what: string,
    type: number,
    family: NftFamily | undefined,
    flags: number,
    attributes = new AttributeWriter(),
  ): Promise<Uint8Array> {
    const payload = requestPayload(family, attributes)
    const { timeoutMs } = this.#channel
    const reply = await this.#channel.run(what, (socket, job) =>
      socket.request(job, (NFNL_SUBSYS_NFTABLES << 8) | type, flags, payload, timeoutMs),
    )
    checkEnding(what, reply)
    return reply.messages
  }
}

export function busy(what: string): XfrmeshError {
  return new XfrmeshError('ERR_XFRMESH_BUSY', `${what}: try again later`)
}

function elementsOf(table: string, set: string): AttributeWriter {
  return new AttributeWriter()
    .text(ElementsAttribute.table, checkedName(table, 'table'))
    .text(ElementsAttribute.set, checkedName(set, 'set'))
}

/** No messages, where there is no such object. */
async function unlessAbsent(reply: Promise<Uint8Array>): Promise<Uint8Array> {
  try {
    return await reply
  } catch (error) {
    if (error instanceof NetlinkError && error.errno === ENOENT) return new Uint8Array()
    throw error
  }
}
