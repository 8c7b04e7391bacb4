import { setTimeout } from 'node:timers/promises'
import { boolean, integer, options, U32 } from '../base/check.js'
import { Aborted, InvalidArgument, NetlinkError, Unsupported, XfrmeshError } from '../base/errors.js'
import { Ending, NETLINK_NETFILTER, type NativeSocket, type NativeTransacted } from '../native.js'
import { Channel } from './channel.js'
import { checkEnding, errnoText } from './netlink-errors.js'
import { busy, NftReader } from './nft-reader.js'
import { Subjects } from './nft-subjects.js'
import { NftTransaction } from './nft-transaction.js'
import { giveBack } from './record-buffers.js'

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
  /**
   * With `echo`, once done: the handle of what each change made, by its number; 0 where that is nothing new, or has no
   * handle. Left out if the kernel said more than the receive buffer holds, which root has for some 40,000 objects, rules
   * in a row counting as two: then list.
   */
  handles?: Float64Array
  /** If committed for a generation, and done: the one that the ruleset is of since, to commit the next for. */
  generation?: number
}

export interface CommitOptions {
  /** Only if the ruleset is still of that generation. */
  generation?: number
  /**
   * Whether to have the handles of what is made. It costs about as much as listing that, but for rules in a row, of which
   * the kernel is asked for the first and the last. Default: false.
   */
  echo?: boolean
}

export interface ChangeOptions {
  /** How often to try: 1 to 1,000. Default: 16. */
  tries?: number
  /** Looked at before each try, and ends the wait between two. */
  signal?: AbortSignal
  /** As for `commit`. */
  echo?: boolean
}

/**
 * Limits, not memory: a transaction is one send, and what it echoes is all there before the first of it is read. Root gets
 * twice what it asks for: room for some 100,000 rules, and for the echo of 40,000 objects.
 */
const SEND_BUFFER = 32 << 20
const RECEIVE_BUFFER = 16 << 20

const CHANGE_TRIES = 16
const MOST_TRIES = 1000
/** The longest wait between two tries, in milliseconds. */
const LONGEST_WAIT = 100

const EINVAL = 22
const EMSGSIZE = 90
const ERESTART = 85

/**
 * nftables in one network namespace. Calls run in the order made, on a thread of their own; one instance may be shared.
 * Needs CAP_NET_ADMIN over the namespace, for reading too.
 */
export class Nft extends NftReader {
  readonly #channel: Channel

  private constructor(channel: Channel) {
    super(channel)
    this.#channel = channel
  }

  /**
   * @throws InvalidArgument for a namespace that is not there
   * @throws Unsupported without CAP_NET_ADMIN, and on a kernel without nf_tables
   */
  static async open(nftOptions: NftOptions = {}): Promise<Nft> {
    const { netns, timeoutMs } = options<NftOptions>(nftOptions, 'options', ['netns', 'timeoutMs'])
    if (timeoutMs !== undefined) integer(timeoutMs, 'options.timeoutMs', 1, 0x7fffffff)
    const buffers = { sendBuffer: SEND_BUFFER, receiveBuffer: RECEIVE_BUFFER }
    return Nft.over(await Channel.open(NETLINK_NETFILTER, { netns, timeoutMs, ...buffers }))
  }

  /** Takes a channel over, and closes it if it is of no use. @internal */
  static async over(channel: Channel): Promise<Nft> {
    const nft = new Nft(channel)
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
   * @throws Unsupported if it is larger than one send can be
   * @throws XfrmeshError ERR_XFRMESH_RULESET_CHANGED if the generation is another by now: any table's change counts
   * @throws XfrmeshError ERR_XFRMESH_ANSWER_LOST, ERR_XFRMESH_TIMEOUT: whether it was done must be read back
   */
  async commit(transaction: NftTransaction, commitOptions: CommitOptions = {}): Promise<NftResult> {
    const what = 'nftables transaction'
    const { generation = 0, echo = false } = options<CommitOptions>(commitOptions, 'options', ['generation', 'echo'])
    integer(generation, 'options.generation', 0, U32)
    boolean(echo, 'options.echo')
    if (!((transaction as unknown) instanceof NftTransaction)) {
      throw new InvalidArgument('transaction', 'an NftTransaction', transaction)
    }
    const records = transaction.take()
    const began = performance.now()
    if (transaction.size === 0) return { failures: [], elapsedMs: 0 }
    const { timeoutMs } = this.#channel
    const outcome = await this.#channel.run(what, (socket, job) =>
      socket.transact(job, records, generation, echo, timeoutMs, transaction.held),
    )
    if (outcome.ending === Ending.failed && outcome.errno === EMSGSIZE) throw this.#tooLarge(what)
    if (outcome.ending === Ending.failed && outcome.errno === ERESTART) {
      throw new XfrmeshError(
        'ERR_XFRMESH_RULESET_CHANGED',
        `${what}: the ruleset is no longer of generation ${generation}`,
      )
    }
    checkEnding(what, { ...outcome, message: outcome.messages[0] })
    const failures = failuresOf(outcome, records)
    giveBack(records)
    return {
      failures,
      elapsedMs: performance.now() - began,
      ...(outcome.handles && { handles: outcome.handles }),
      ...(generation !== 0 && outcome.failures.length === 0 && { generation: after(generation) }),
    }
  }

  /**
   * Changes a ruleset by what is in it, though others change it too: calls `build`, which reads what it needs, and commits
   * the transaction that it returns if the ruleset is still of the generation that it was of before. If not, it does so
   * again, after a while that grows. `undefined`, or an empty transaction, says that there is nothing to do.
   *
   * What `build` throws is thrown on, unless the ruleset changed meanwhile: then it may have seen two halves of two states,
   * and is called again. Refused changes are in the result, as those of `commit`.
   * @throws XfrmeshError ERR_XFRMESH_BUSY if somebody else was faster each time
   * @throws Aborted
   */
  async change(
    build: () => NftTransaction | undefined | Promise<NftTransaction | undefined>,
    changeOptions: ChangeOptions = {},
  ): Promise<NftResult> {
    const given = options<ChangeOptions>(changeOptions, 'options', ['tries', 'signal', 'echo'])
    const { tries = CHANGE_TRIES, signal, echo = false } = given
    integer(tries, 'options.tries', 1, MOST_TRIES)
    const began = performance.now()
    for (let i = 1; ; i++) {
      if (signal?.aborted) throw new Aborted('nftables change: aborted', undefined, { cause: signal.reason })
      const result = await this.#tryChange(build, echo, i === tries)
      if (result !== undefined) return { ...result, elapsedMs: performance.now() - began }
      if (i === tries) throw busy(`the nftables ruleset changed during each of ${tries} tries to change it`)
      await backOff(i, signal)
    }
  }

  /** undefined if the ruleset changed under way. */
  async #tryChange(
    build: () => NftTransaction | undefined | Promise<NftTransaction | undefined>,
    echo: boolean,
    last: boolean,
  ): Promise<NftResult | undefined> {
    const generation = await this.generation()
    let transaction: NftTransaction | undefined
    try {
      transaction = await build()
    } catch (error) {
      if (last || (await this.generation()) === generation) throw error
      return undefined
    }
    if (transaction === undefined || transaction.size === 0) {
      return (await this.generation()) === generation ? { failures: [], elapsedMs: 0, generation } : undefined
    }
    try {
      return await this.commit(transaction, { generation, echo })
    } catch (error) {
      if (error instanceof XfrmeshError && error.code === 'ERR_XFRMESH_RULESET_CHANGED') return undefined
      throw error
    }
  }

  /** Runs a job that the addon does for masquerading on the socket's thread. @internal */
  async run<T extends { ending: number; errno: number }>(
    what: string,
    work: (socket: NativeSocket, job: number) => Promise<T>,
  ): Promise<T> {
    const outcome = await this.#channel.run(what, work)
    checkEnding(what, outcome)
    return outcome
  }

  /** Resolves when the socket and its thread are gone. */
  close(): Promise<void> {
    return this.#channel.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #tooLarge(what: string): Unsupported {
    return new Unsupported(
      'net.core.wmem_max',
      `${what}: it is larger than the ${this.#channel.sendLimit} bytes that this process may send at once: raise net.core.wmem_max, grant CAP_NET_ADMIN in the host's user namespace, or change less at a time`,
    )
  }
}

/** Each commit counts the generation up by one; 0 is none. */
function after(generation: number): number {
  return generation === U32 ? 1 : generation + 1
}

/** Waits for a random while, which grows with the number of tries: who collided must not do so again in step. */
async function backOff(tries: number, signal: AbortSignal | undefined): Promise<void> {
  const wait = Math.random() * Math.min(2 ** tries, LONGEST_WAIT)
  try {
    await setTimeout(wait, undefined, { signal })
  } catch (error) {
    if (!signal?.aborted) throw error
  }
}

function failuresOf({ failures, messages, elements }: NativeTransacted, records: Uint8Array): NftFailure[] {
  const subjects = new Subjects(records)
  return Array.from(elements, (element, i) => {
    const [index, errno, sentence] = failures.subarray(i * 3, i * 3 + 3) as unknown as [number, number, number]
    const [code, text] = errnoText(errno)
    return { index, errno, code, message: messages[sentence] ?? text, subject: subjects.of(index, element) }
  })
}
