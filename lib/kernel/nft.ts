import { boolean, integer, options, U32 } from '../base/check.js'
import { InvalidArgument, NetlinkError, Unsupported, XfrmeshError } from '../base/errors.js'
import { Ending, NETLINK_NETFILTER, type NativeOutcome } from '../native.js'
import { Channel } from './channel.js'
import { checkEnding, errnoText } from './netlink-errors.js'
import { AttributeWriter } from './nft-attributes.js'
import { writeKey } from './nft-elements.js'
import { readElements, readKeys, type NftElement } from './nft-element-list.js'
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
import { Subjects } from './nft-subjects.js'
import { NftTransaction } from './nft-transaction.js'

export {
  bitwise,
  cmp,
  counter,
  counterReference,
  goto,
  hostU32,
  immediate,
  jump,
  lookup,
  map,
  masquerade,
  meta,
  payload,
  rt,
  setMeta,
  u16,
  u8,
  verdict,
  vmap,
  xfrm,
  type Expression,
  type MetaKey,
  type Operator,
  type PayloadBase,
  type PlainVerdict,
  type RtKey,
  type Verdict,
  type XfrmKey,
} from './nft-expressions.js'
export { Hole } from './nft-holes.js'
export type { NftElement } from './nft-element-list.js'
export type { Chain, NftCounter, NftSet, Table } from './nft-lists.js'
export type {
  ChainName,
  ChainType,
  CounterName,
  Hook,
  NftFamily,
  Policy,
  RuleName,
  SetFlag,
  SetName,
  TableName,
} from './nft-names.js'
export type * from './nft-options.js'
export type { Counted, ListedRule, Rule, RuleDetails } from './nft-rule-list.js'
export { RuleTemplate } from './nft-template.js'
export { NftTransaction } from './nft-transaction.js'
export type { DataType } from './nft-types.js'
export type { TransportField } from './nft-userdata.js'

export interface NftOptions {
  /** A network namespace by path (`/run/netns/a`) or open descriptor; default: the process's own. */
  netns?: string | number
  /** How long one call may take once those before it are done, in milliseconds, 1 to 2^31 - 1; default 10,000. */
  timeoutMs?: number
}

/** A change that the kernel refused. */
export interface NftFailure {
  /** Its number in the transaction, from 0. */
  index: number
  errno: number
  /** errno's name: `EEXIST`. */
  code: string
  /** The kernel's own sentence where it gave one, else what errno stands for. */
  message: string
  /** What was to be changed, as in `rule 2 for chain input of table inet filter`: the second that was to be added to it. */
  subject: string
}

export interface NftResult {
  /** Empty if all was done. Otherwise nothing was. */
  failures: NftFailure[]
  elapsedMs: number
}

const NFNL_SUBSYS_NFTABLES = 10
const NLM_F_DUMP = 0x300
const ENOENT = 2
const EINVAL = 22
const EMSGSIZE = 90
const ERESTART = 85
const SNAPSHOT_TRIES = 16

/**
 * nftables in one network namespace. Calls run in the order made, on a thread of their own; one instance may be shared.
 * Needs CAP_NET_ADMIN over the namespace, for reading too.
 */
export class Nft {
  readonly #channel: Channel

  private constructor(channel: Channel) {
    this.#channel = channel
  }

  /**
   * @throws InvalidArgument for a namespace that is not there
   * @throws Unsupported without CAP_NET_ADMIN, and on a kernel without nf_tables
   */
  static async open(nftOptions: NftOptions = {}): Promise<Nft> {
    const { netns, timeoutMs } = options<NftOptions>(nftOptions, 'options', ['netns', 'timeoutMs'])
    if (timeoutMs !== undefined) integer(timeoutMs, 'options.timeoutMs', 1, 0x7fffffff)
    const nft = new Nft(await Channel.open(NETLINK_NETFILTER, { netns, timeoutMs }))
    try {
      await nft.generation()
      return nft
    } catch (error) {
      await nft.close()
      // A subsystem that netfilter's netlink does not know, and found no module for.
      if (!(error instanceof NetlinkError) || error.errno !== EINVAL) throw error
      throw new Unsupported(
        'CONFIG_NF_TABLES',
        'this kernel has no nftables: it needs CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET (module nf_tables)',
        { cause: error },
      )
    }
  }

  /**
   * Makes all changes of the transaction, or none: one send, one answer. The transaction is spent, whatever comes of it.
   * With `generation`, only if the ruleset is still of that generation.
   * @throws Unsupported if it is larger than one send can be
   * @throws XfrmeshError ERR_XFRMESH_RULESET_CHANGED if the generation is another by now: any table's change counts
   * @throws XfrmeshError ERR_XFRMESH_ANSWER_LOST, ERR_XFRMESH_TIMEOUT: whether it was done must be read back
   */
  async commit(transaction: NftTransaction, commitOptions: { generation?: number } = {}): Promise<NftResult> {
    const what = 'nftables transaction'
    const { generation = 0 } = options<{ generation?: number }>(commitOptions, 'options', ['generation'])
    integer(generation, 'options.generation', 0, U32)
    if (!((transaction as unknown) instanceof NftTransaction)) {
      throw new InvalidArgument('transaction', 'an NftTransaction', transaction)
    }
    const records = transaction.take()
    const began = performance.now()
    if (transaction.size === 0) return { failures: [], elapsedMs: 0 }
    const { timeoutMs } = this.#channel
    const outcome = await this.#channel.run(what, (socket, job) => socket.transact(job, records, generation, timeoutMs))
    if (outcome.ending === Ending.failed && outcome.errno === EMSGSIZE) throw this.#tooLarge(what)
    if (outcome.ending === Ending.failed && outcome.errno === ERESTART) {
      throw new XfrmeshError(
        'ERR_XFRMESH_RULESET_CHANGED',
        `${what}: the ruleset is no longer of generation ${generation}`,
      )
    }
    checkEnding(what, { ...outcome, message: outcome.messages[0] })
    return { failures: failuresOf(outcome, records), elapsedMs: performance.now() - began }
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
    throw new XfrmeshError('ERR_XFRMESH_BUSY', `the nftables ruleset changed during each of ${SNAPSHOT_TRIES} readings`)
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

  /** The keys of a set's elements, each as long as the set says, in the kernel's own order; none if there is no such set. */
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

  /** Resolves when the socket and its thread are gone. */
  close(): Promise<void> {
    return this.#channel.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** What is listed of an object; nothing if it is not there. */
  #dump(what: string, type: number, family: NftFamily, attributes: AttributeWriter): Promise<Uint8Array> {
    return unlessAbsent(this.#request(what, type, family, NLM_F_DUMP, attributes))
  }

  #dumpElements({ family, table, set }: SetName): Promise<Uint8Array> {
    return this.#dump(`elements of ${set}`, Message.getElements, family, elementsOf(table, set))
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

  #tooLarge(what: string): Unsupported {
    return new Unsupported(
      'net.core.wmem_max',
      `${what}: it is larger than the ${this.#channel.sendLimit} bytes that this process may send at once: raise net.core.wmem_max, grant CAP_NET_ADMIN in the host's user namespace, or change less at a time`,
    )
  }
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

function failuresOf(outcome: NativeOutcome, records: Uint8Array): NftFailure[] {
  const found: NftFailure[] = []
  const subjects = new Subjects(records)
  for (let i = 0; i < outcome.failures.length; i += 3) {
    const [index, errno, sentence] = outcome.failures.subarray(i, i + 3) as unknown as [number, number, number]
    const [code, text] = errnoText(errno)
    found.push({ index, errno, code, message: outcome.messages[sentence] ?? text, subject: subjects.of(index) })
  }
  return found
}
