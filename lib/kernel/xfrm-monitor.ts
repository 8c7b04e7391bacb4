import { array, oneOf } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { Pace } from '../base/pace.js'
import { Ending, NETLINK_XFRM, type NativeRecords } from '../native.js'
import type { Channel } from './channel.js'
import { checkEnding } from './netlink-errors.js'
import { EventReader } from './xfrm-events.js'
import type { EventKind, XfrmEvent } from './xfrm-types.js'

/** XFRMNLGRP_* (linux/xfrm.h): what the kernel multicasts an event to. */
const groups: Readonly<Record<EventKind, number>> = { acquire: 1, expire: 2, sa: 3, policy: 4, mapping: 8 }

/** Checks the kinds of a monitor. @throws InvalidArgument */
export function eventKinds(value: unknown): EventKind[] {
  const names = Object.keys(groups) as EventKind[]
  const kinds = array(value, 'kinds').map((kind, i) => oneOf(kind as string, `kinds[${i}]`, names))
  if (kinds.length === 0) throw new InvalidArgument('kinds', `at least one of ${names.join(', ')}`)
  return [...new Set(kinds)]
}

/** A socket that listens to events of one namespace's SAD and SPD. */
export class EventChannel {
  readonly #channel: Channel
  #closed = false

  private constructor(channel: Channel) {
    this.#channel = channel
  }

  /** Listens once this resolves. @param beside in whose namespace */
  static async open(beside: Channel, kinds: readonly EventKind[]): Promise<EventChannel> {
    const channel = await beside.sibling('monitor', NETLINK_XFRM)
    try {
      const joined = await channel.run('monitor', (socket, job) =>
        socket.join(
          job,
          kinds.map((kind) => groups[kind]),
        ),
      )
      checkEnding('monitor', joined)
      return new EventChannel(channel)
    } catch (error) {
      await channel.close()
      throw error
    }
  }

  /**
   * The next events, one at least; undefined once this is closed. Raw keys are among them: wipe them.
   * @param keepsAlive whether the process is to live for as long as this waits
   */
  async hear(keepsAlive: boolean): Promise<NativeRecords | undefined> {
    if (this.#closed) return undefined
    const events = await this.#channel.run('monitor', (socket, job) => socket.hear(job, keepsAlive))
    if (events.ending === Ending.closed) return undefined
    checkEnding('monitor', events)
    return events
  }

  close(): Promise<void> {
    this.#closed = true
    return this.#channel.close()
  }
}

/**
 * The events of a namespace's SAD and SPD, one by one, of everybody's objects. It listens from when it is made (`ready`
 * says so), and keeps the process alive while something waits for the next. What nobody takes waits in the socket's
 * buffer; once that is full, events are lost, and one of type 'lost' stands for them.
 *
 * Leaving the loop closes it, as does `close()`; when its Xfrm is closed it ends too.
 */
export class XfrmMonitor implements AsyncIterableIterator<XfrmEvent>, AsyncDisposable {
  /** Resolves once it listens: events from then on are told. Rejects if it can't. */
  readonly ready: Promise<void>
  readonly #opening: Promise<EventChannel>
  readonly #events: AsyncGenerator<XfrmEvent, undefined>
  readonly #ended: () => void
  #closed: Promise<void> | undefined

  /** @internal */
  constructor(opening: Promise<EventChannel>, ended: (monitor: XfrmMonitor) => void) {
    this.#opening = opening
    this.#ended = () => {
      ended(this)
    }
    this.ready = opening.then(() => undefined)
    // Whoever does not wait for it hears of it from the first next().
    this.ready.catch(this.#ended)
    this.#events = this.#each()
  }

  next(): Promise<IteratorResult<XfrmEvent, undefined>> {
    return this.#events.next()
  }

  async return(): Promise<IteratorResult<XfrmEvent, undefined>> {
    await this.close()
    return { done: true, value: undefined }
  }

  /** Whoever waits for the next event is told that there is none. */
  close(): Promise<void> {
    return (this.#closed ??= this.#opening
      .then(
        (channel) => channel.close(),
        () => undefined,
      )
      .finally(this.#ended))
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async *#each(): AsyncGenerator<XfrmEvent, undefined> {
    const channel = await this.#opening
    try {
      for (;;) {
        const records = await channel.hear(true)
        if (records === undefined) return
        for (const event of await eventsOf(records)) {
          // Closed by somebody else than the loop: what came before is no news any more.
          if (this.#closed !== undefined) return
          yield event
        }
      }
    } finally {
      await this.close()
    }
  }
}

/** All of them at once, so that no raw key waits for whoever takes them. */
async function eventsOf(records: NativeRecords): Promise<XfrmEvent[]> {
  const reader = new EventReader(records)
  try {
    const events: XfrmEvent[] = []
    const pace = new Pace()
    while (reader.next()) {
      events.push(reader.event())
      if (pace.isDue) await pace.breathe()
    }
    return events
  } finally {
    reader.wipe()
  }
}
