import { Unsupported } from '../base/errors.js'
import { Ending, NETLINK_XFRM, type NativeDump, type NativeOutcome } from '../native.js'
import { Channel, type ChannelOptions } from './channel.js'
import { checkEnding, errnoText } from './netlink-errors.js'
import { type EncapPlace, UdpEncap } from './udp-encap.js'
import { EventChannel } from './xfrm-monitor.js'
import type { EventKind } from './xfrm-types.js'

/** The SAD and SPD of a namespace in records (records.ts): what Xfrm and the Overlay both stand on. */

/** What records name by index. */
export interface SideTables {
  readonly keys: readonly Uint8Array[]
  readonly algorithms: readonly string[]
}

export interface Query extends SideTables {
  readonly policies: boolean
  /** A record naming the one object; default: all. */
  readonly one?: Uint8Array
  /** Only states of this reqid and policies with a template of it; 0: all. */
  readonly reqid: number
  /** With counters, times and replay state, which change by themselves. */
  readonly details: boolean
}

export interface XfrmChannelOptions extends ChannelOptions {
  /** Expedite RCU grace periods on this host while many objects are added. */
  boost?: boolean | undefined
}

export class XfrmChannel {
  readonly #channel: Channel
  readonly #boost: boolean
  /** Calls that want the host boosted just now. */
  #boosting = 0

  private constructor(channel: Channel, boost: boolean) {
    this.#channel = channel
    this.#boost = boost
  }

  /** @throws what {@link Channel.open} does; Unsupported for a boost that this process may not have */
  static async open(options: XfrmChannelOptions): Promise<XfrmChannel> {
    const { boost = false } = options
    const opened = new XfrmChannel(await Channel.open(NETLINK_XFRM, options), boost)
    // Who may not put back what a killed process left is not the one to complain of it.
    await opened.#expedite(Expedite.mend)
    if (!boost) return opened
    const errno = (await opened.#expedite(Expedite.on)) || (await opened.#expedite(Expedite.off))
    if (errno === 0) return opened
    await opened.close()
    const [code, text] = errnoText(errno)
    throw new Unsupported(
      'rcu_expedited',
      `boost: /sys/kernel/rcu_expedited can't be set here, or not be noted in /run (${code}: ${text}): it takes root on the host, and a kernel with that switch; leave boost out otherwise`,
    )
  }

  /**
   * Does `work` with the host's RCU grace periods expedited, if this was opened so and the work adds many objects: tables
   * that grow wait for those. What is found is put back when the last of all processes that want it so is done.
   */
  async boosted<T>(additions: number, work: () => Promise<T>): Promise<T> {
    if (!this.#boost || additions < BOOST_FROM) return work()
    // Not awaited: the next call's work would overtake this one's.
    if (this.#boosting++ === 0) this.#expedite(Expedite.on).catch(() => undefined)
    try {
      return await work()
    } finally {
      // Where this is closed meanwhile, the socket's thread puts it back as it ends; what `work` came to is what is told.
      if (--this.#boosting === 0) await this.#expedite(Expedite.off).catch(() => undefined)
    }
  }

  /** Jobs are done in the order made, so that it needs no waiting before the next. Returns 0 or an errno. */
  async #expedite(what: number): Promise<number> {
    return (await this.#channel.runOnHost('boost', (socket, job) => socket.expedite(job, what))).errno
  }

  /** @see Channel.namespaceInode */
  get namespaceInode(): number {
    return this.#channel.namespaceInode
  }

  /** Most operations in one send. */
  get chunk(): number {
    return this.#channel.chunk
  }

  /**
   * Hands a buffer of records to the kernel, in order. The buffer is the addon's until this settles. How it ended is the
   * caller's to look at: the outcome says how many operations the kernel was given, and which of those it refused.
   */
  commit(records: Uint8Array, tables: SideTables, signal?: AbortSignal): Promise<NativeOutcome> {
    return this.#channel.run(
      'commit',
      (socket, job) => socket.commit(job, records, tables.keys, tables.algorithms, this.#channel.timeoutMs),
      signal,
    )
  }

  /** Reads states or policies. A key or name found in the tables keeps its index there, others get new ones. */
  async read(query: Query, signal?: AbortSignal): Promise<NativeDump> {
    const what = query.policies ? 'reading policies' : 'reading states'
    const { policies, one, reqid, details, keys, algorithms } = query
    const dump = await this.#channel.run(
      what,
      (socket, job) => socket.read(job, policies, one, reqid, details, keys, algorithms, this.#channel.timeoutMs),
      signal,
    )
    // A list that came to no end has keys in it as well, and nobody will look at them.
    if (dump.ending !== Ending.complete) for (const key of dump.keys) key.fill(0)
    checkEnding(what, dump)
    return dump
  }

  /** Sends one message that is no batch, such as XFRM_MSG_GETSADINFO, and returns the messages that answer it. */
  async request(what: string, type: number, flags: number, payload: Uint8Array): Promise<Uint8Array> {
    const reply = await this.#channel.run(what, (socket, job) =>
      socket.request(job, type, flags, payload, this.#channel.timeoutMs),
    )
    checkEnding(what, reply)
    return reply.messages
  }

  /** @see Channel.lock */
  lock(name: string): Promise<{ pid: number; uid: number } | undefined> {
    return this.#channel.lock(name)
  }

  /** A file of /proc/thread-self/net as this namespace has it; undefined where there is none. */
  readNetFile(name: string): Promise<string | undefined> {
    return this.readFile(`/proc/thread-self/net/${name}`)
  }

  /** The text of a file as this namespace shows it; undefined where there is none. */
  readFile(path: string): Promise<string | undefined> {
    return this.#channel.readFile(path)
  }

  /** Writes to a file that is there, as this namespace shows it; 0 or an errno. */
  writeFile(path: string, text: string): Promise<number> {
    return this.#channel.writeFile(path, text)
  }

  /** The UDP socket of ESP in UDP, in this namespace, for as long as this is open. @throws as {@link UdpEncap.open} */
  encap(place: EncapPlace): Promise<UdpEncap> {
    return UdpEncap.open(this.#channel, place)
  }

  /** A socket beside this one that listens to events. */
  monitor(kinds: readonly EventKind[]): Promise<EventChannel> {
    return EventChannel.open(this.#channel, kinds)
  }

  close(): Promise<void> {
    return this.#channel.close()
  }
}

/** Additions from which on tables grow enough for a boost to be felt. */
const BOOST_FROM = 2000

/** What the addon's `expedite` takes. */
const Expedite = { off: 0, on: 1, mend: 2 } as const

export { Ending } from '../native.js'
export type { NativeOutcome } from '../native.js'

/** One refused operation of a commit: its index in the batch, and why. */
export interface Refusal {
  readonly index: number
  readonly errno: number
  readonly code: string
  readonly message: string
}

/** The refusals of an outcome, in order of index. */
export function* refusals(outcome: NativeOutcome): Generator<Refusal, undefined> {
  const { failures, messages } = outcome
  for (let i = 0; i < failures.length; i += 3) {
    const errno = failures[i + 1]!
    const [code, sentence] = errnoText(errno)
    yield { index: failures[i]!, errno, code, message: messages[failures[i + 2]!] ?? sentence }
  }
}
