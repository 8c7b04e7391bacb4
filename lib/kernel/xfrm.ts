import { setImmediate } from 'node:timers/promises'
import { boolean, integer, options, U32 } from '../base/check.js'
import { Aborted, InvalidArgument, NetlinkError, Unsupported, XfrmeshError, type Failure } from '../base/errors.js'
import { Ending, type NativeDump, type NativeOutcome } from '../native.js'
import { eachAttribute, viewOf } from './attributes.js'
import { closedError, netlinkError } from './netlink-errors.js'
import { giveBack } from './record-buffers.js'
import { LITTLE_ENDIAN, Operation, RecordReader, State as StateRecord } from './records.js'
import { policyId, stateId, take, XfrmBatch } from './xfrm-batch.js'
import { refusals, XfrmChannel, type Refusal } from './xfrm-channel.js'
import { DumpReader } from './xfrm-decode.js'
import { eventKinds, XfrmMonitor } from './xfrm-monitor.js'
import type { EventKind, Policy, PolicyId, State, StateId } from './xfrm-types.js'

export { Key } from '../base/key.js'
export { XfrmBatch } from './xfrm-batch.js'
export type { XfrmMonitor } from './xfrm-monitor.js'
export type * from './xfrm-types.js'

export interface XfrmOptions {
  /** A network namespace by path (`/run/netns/a`) or open descriptor; default: the process's own. */
  netns?: string | number
  /**
   * How long one call may take once those before it are done, in milliseconds, 1 to 2^31 - 1; default 10,000. Looked at
   * between sends, so that nothing is left in flight; a list that has begun is read to its end.
   */
  timeoutMs?: number
  /**
   * Expedite RCU grace periods on this host (/sys/kernel/rcu_expedited) while a batch that adds two thousand objects or
   * more is at work (or updates policies, which adds what is not there), and put back what was found, also after a crash,
   * at the next start: a first load takes about half the time. It interrupts all processors of the host, containers'
   * neighbours too, and takes root on it. Processes that share /run count together. Default: false.
   */
  boost?: boolean
}

/** An operation that the kernel refused. */
export interface CommitFailure {
  /** Of the operation in its batch. */
  index: number
  errno: number
  /** errno's name: `EEXIST`. */
  code: string
  /** The kernel's own sentence where it gave one, else what errno stands for. */
  message: string
}

export interface CommitResult {
  /** Operations that the kernel carried out. */
  applied: number
  /** Those it refused, in order of index. */
  failures: CommitFailure[]
  elapsedMs: number
}

/** Sizes of the two databases (XFRM_MSG_GETSADINFO, XFRM_MSG_GETSPDINFO). */
export interface XfrmInfo {
  states: {
    count: number
    /** Of the hash table. */
    buckets: number
    maxBuckets: number
  }
  policies: {
    in: number
    out: number
    fwd: number
    /** Those that sockets set for themselves. */
    socketIn: number
    socketOut: number
    socketFwd: number
    buckets: number
    maxBuckets: number
  }
}

/** Objects that a list yields in a row before timers and sockets have their turn. */
const SLICE = 256

/** linux/xfrm.h: enum of messages, and attributes of these two. */
const XFRM_MSG_GETSADINFO = 0x23
const XFRM_MSG_GETSPDINFO = 0x25
/** Before the attributes: struct nlmsghdr, and 32 bits of flags in the request and the answer. */
const ANSWER_HEAD_BYTES = 20
const SadInfo = { count: 1, hash: 2 } as const
const SpdInfo = { counts: 1, hash: 2 } as const

const ENOENT = 2
const ESRCH = 3

/**
 * The SAD and SPD of a network namespace. Calls run in the order made, on a thread of their own; one instance may be
 * shared. Needs CAP_NET_ADMIN over the namespace, for reading too.
 */
export class Xfrm {
  readonly #channel: XfrmChannel
  readonly #monitors = new Set<XfrmMonitor>()
  #closed: Promise<void> | undefined

  private constructor(channel: XfrmChannel) {
    this.#channel = channel
  }

  /**
   * @throws InvalidArgument for a namespace that is not there
   * @throws Unsupported without CAP_NET_ADMIN, on a kernel without XFRM, and for a boost that can't be had
   */
  static async open(xfrmOptions: XfrmOptions = {}): Promise<Xfrm> {
    const { netns, timeoutMs, boost } = options<XfrmOptions>(xfrmOptions, 'options', ['netns', 'timeoutMs', 'boost'])
    if (timeoutMs !== undefined) integer(timeoutMs, 'options.timeoutMs', 1, 0x7fffffff)
    if (boost !== undefined) boolean(boost, 'options.boost')
    const channel = await XfrmChannel.open({ netns, timeoutMs, boost })
    try {
      // The kernel answers to nobody without the capability: learn it now, not at the first commit.
      await channel.request('opening', XFRM_MSG_GETSADINFO, 0, new Uint8Array(4))
      return new Xfrm(channel)
    } catch (error) {
      await channel.close()
      throw error
    }
  }

  /**
   * Hands a batch to the kernel, operation by operation in order; a refused one does not stop those after it. The batch
   * is spent, whatever comes of it.
   * @throws InvalidState if this is closed, or the batch was committed before
   * @throws Aborted with what was applied in its report; nothing past that was sent
   * @throws XfrmeshError ERR_XFRMESH_TIMEOUT, ERR_XFRMESH_CLOSED, ERR_XFRMESH_NAMESPACE_GONE: the message says how far it came
   * @throws NetlinkError if the socket failed
   */
  async commit(batch: XfrmBatch, commitOptions: { signal?: AbortSignal } = {}): Promise<CommitResult> {
    const { signal } = options<{ signal?: AbortSignal }>(commitOptions, 'options', ['signal'])
    if (!(batch instanceof XfrmBatch)) throw new InvalidArgument('batch', 'an XfrmBatch', batch)
    if (signal !== undefined && !(signal instanceof AbortSignal)) {
      throw new InvalidArgument('options.signal', 'an AbortSignal', signal)
    }
    const began = performance.now()
    const { size } = batch
    const { records, tables, additions } = take(batch)
    try {
      const send = () => this.#channel.commit(records, tables, signal)
      const outcome = signal?.aborted === true ? neverSent : await this.#channel.boosted(additions, send)
      const failures = [...refusals(outcome)]
      const result = { applied: outcome.sent - failures.length, failures, elapsedMs: performance.now() - began }
      if (outcome.ending !== Ending.complete) throw stopped(outcome, result, size, records, signal)
      giveBack(records)
      return result
    } finally {
      tables.wipe()
    }
  }

  /** The SAs, newest first; with `reqid`, only those that bear it. Larval ones (SPI 0) are among them. */
  states(filter: { reqid?: number } = {}): AsyncIterableIterator<State> {
    return this.#list(false, reqidOf(filter), (reader) => reader.state())
  }

  /** The SPs, newest first; with `reqid`, only those with a template that bears it. */
  policies(filter: { reqid?: number } = {}): AsyncIterableIterator<Policy> {
    return this.#list(true, reqidOf(filter), (reader) => reader.policy())
  }

  /** undefined if there is none. A mark finds states whose mark, masked, equals it: the kernel's way. */
  getState(id: StateId): Promise<State | undefined> {
    return this.#one(false, stateId(id), (reader) => reader.state())
  }

  /** undefined if there is none. */
  getPolicy(id: PolicyId): Promise<Policy | undefined> {
    return this.#one(true, policyId(id), (reader) => reader.policy())
  }

  /**
   * The namespace's counters of packets that XFRM dropped, by the kernel's names: `{ XfrmInError: 0, … }`
   * (Documentation/networking/xfrm_proc.rst).
   * @throws Unsupported on a kernel without CONFIG_XFRM_STATISTICS
   */
  async statistics(): Promise<Record<string, number>> {
    const text = await this.#channel.readNetFile('xfrm_stat')
    if (text === undefined) {
      throw new Unsupported(
        'CONFIG_XFRM_STATISTICS',
        'this kernel counts no XFRM errors: /proc/net/xfrm_stat needs CONFIG_XFRM_STATISTICS',
      )
    }
    const counters: Record<string, number> = {}
    for (const [, name, count] of text.matchAll(/^(\w+)\s+(\d+)$/gm)) counters[name!] = Number(count)
    return counters
  }

  async info(): Promise<XfrmInfo> {
    const sad = await this.#ask('reading the size of the SAD', XFRM_MSG_GETSADINFO)
    const spd = await this.#ask('reading the size of the SPD', XFRM_MSG_GETSPDINFO)
    const word = (words: Map<number, Uint32Array>, type: number, index = 0) => words.get(type)?.[index] ?? 0
    return {
      states: {
        count: word(sad, SadInfo.count),
        buckets: word(sad, SadInfo.hash),
        maxBuckets: word(sad, SadInfo.hash, 1),
      },
      policies: {
        in: word(spd, SpdInfo.counts),
        out: word(spd, SpdInfo.counts, 1),
        fwd: word(spd, SpdInfo.counts, 2),
        socketIn: word(spd, SpdInfo.counts, 3),
        socketOut: word(spd, SpdInfo.counts, 4),
        socketFwd: word(spd, SpdInfo.counts, 5),
        // The kernel says the table's mask.
        buckets: word(spd, SpdInfo.hash) + 1,
        maxBuckets: word(spd, SpdInfo.hash, 1),
      },
    }
  }

  /**
   * What happens to the SAD and SPD from here on, whoever does it: `for await (const event of xfrm.monitor(['sa']))`.
   * There may be several. `expire` tells of states and policies whose limits are reached, `mapping` of peers behind a NAT
   * that moved, `acquire` of packets that want an SA; while somebody listens to that, such a packet leaves a larval SA.
   *
   * @throws InvalidArgument; InvalidState once this is closed. What else is in its way, its `ready` and its `next()` say
   */
  monitor(kinds: readonly EventKind[]): XfrmMonitor {
    const wanted = eventKinds(kinds)
    if (this.#closed !== undefined) throw closedError('monitor')
    const monitor = new XfrmMonitor(this.#channel.monitor(wanted), (ended) => this.#monitors.delete(ended))
    this.#monitors.add(monitor)
    return monitor
  }

  /** Ends what is at work at its next send; its call rejects, as do all later ones. Its monitors end. */
  close(): Promise<void> {
    const all = () => [this.#channel, ...this.#monitors].map((each) => each.close())
    return (this.#closed ??= Promise.all(all()).then(() => undefined))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async *#list<T>(policies: boolean, reqid: number, read: (reader: DumpReader) => T): AsyncGenerator<T> {
    const reader = new DumpReader(await this.#read(policies, undefined, reqid))
    try {
      for (let i = 1; reader.next(); i++) {
        yield read(reader)
        // The whole list was read before its first object: nothing else here waits for anything.
        if (i % SLICE === 0) await setImmediate()
      }
    } finally {
      reader.wipe()
    }
  }

  async #one<T>(policies: boolean, record: Uint8Array, read: (reader: DumpReader) => T): Promise<T | undefined> {
    const reader = await this.#find(policies, record)
    try {
      return reader?.next() === true ? read(reader) : undefined
    } finally {
      reader?.wipe()
    }
  }

  async #find(policies: boolean, record: Uint8Array): Promise<DumpReader | undefined> {
    try {
      return new DumpReader(await this.#read(policies, record, 0))
    } catch (error) {
      if (error instanceof NetlinkError && (error.errno === ESRCH || error.errno === ENOENT)) return undefined
      throw error
    }
  }

  #read(policies: boolean, one: Uint8Array | undefined, reqid: number): Promise<NativeDump> {
    const query = { policies, reqid, details: true, keys: [], algorithms: [] }
    return this.#channel.read(one === undefined ? query : { ...query, one })
  }

  /** The attributes of an answer as words, by type. */
  async #ask(what: string, type: number): Promise<Map<number, Uint32Array>> {
    const message = await this.#channel.request(what, type, 0, new Uint8Array(4))
    const found = new Map<number, Uint32Array>()
    for (const [attribute, payload] of eachAttribute(message.subarray(ANSWER_HEAD_BYTES))) {
      const view = viewOf(payload)
      const words = Array.from({ length: payload.length >> 2 }, (_, i) => view.getUint32(i * 4, LITTLE_ENDIAN))
      found.set(attribute, Uint32Array.from(words))
    }
    return found
  }
}

function reqidOf(filter: unknown): number {
  const { reqid } = options<{ reqid?: number }>(filter, 'filter', ['reqid'])
  return reqid === undefined ? 0 : integer(reqid, 'filter.reqid', 1, U32)
}

/** The outcome of a commit that was aborted before it began. */
const neverSent: NativeOutcome = {
  ending: Ending.cancelled,
  errno: 0,
  sent: 0,
  unknown: 0,
  failures: new Uint32Array(0),
  messages: [],
  sends: 0,
  readBack: 0,
}

/** Why a commit stopped short, and how far it had come. */
function stopped(
  outcome: NativeOutcome,
  { applied, failures, elapsedMs }: CommitResult,
  requested: number,
  records: Uint8Array,
  signal: AbortSignal | undefined,
): Error {
  const { sent, unknown } = outcome
  const doubt = unknown > 0 ? `what became of the ${unknown} from operation ${sent} on is not known, ` : ''
  const extent = `${applied} of ${requested} operations were applied, ${failures.length} refused; ${doubt}nothing past these was sent`
  switch (outcome.ending) {
    case Ending.cancelled: {
      const report = {
        requested,
        applied,
        unchanged: 0,
        failures: describe(failures, records),
        operations: outcome.sent,
        elapsedMs,
      }
      return new Aborted(`commit: aborted: ${extent}`, report, { cause: signal?.reason })
    }
    case Ending.closed:
      return closedError(`commit: ${extent}`)
    case Ending.late:
      return new XfrmeshError('ERR_XFRMESH_TIMEOUT', `commit: out of time: ${extent}`)
    default:
      return netlinkError(`commit: ${extent}`, outcome.errno)
  }
}

const operationNames: Record<number, string> = {
  [Operation.addState]: 'add state',
  [Operation.updateState]: 'update state',
  [Operation.deleteState]: 'delete state',
  [Operation.addPolicy]: 'add policy',
  [Operation.updatePolicy]: 'update policy',
  [Operation.deletePolicy]: 'delete policy',
}

/** Failures as a report has them: with what was being done. */
function describe(failures: readonly Refusal[], records: Uint8Array): Failure[] {
  const reader = new RecordReader(records)
  let at = -1
  return failures.map(({ index, errno, code, message }) => {
    for (; at < index; at++) reader.next()
    return {
      subject: `operation ${index}`,
      operation: operationNames[reader.u8(StateRecord.operation)]!,
      errno,
      code,
      message,
    }
  })
}
