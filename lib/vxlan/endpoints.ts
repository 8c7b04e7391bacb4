import { KEY_WORDS, parseKey } from '../base/address-key.js'
import { array, boolean, integer, namespace, options as checkOptions } from '../base/check.js'
import { InvalidArgument, InvalidState, PartialFailure, type Failure, type Report } from '../base/errors.js'
import { EndpointLink, type OpenLink } from './endpoint-link.js'
import { Entries } from './entries.js'
import type { Step } from './phases.js'
import { addressAt, macAt } from './texts.js'

export type { Step } from './phases.js'

/** A container somewhere in the network. */
export interface Endpoint {
  /** Its address in the network, of either family. */
  readonly ip: string
  /** Its Ethernet address there, as in `02:42:0a:00:00:02`. */
  readonly mac: string
  /** The node that it is at: the outer address that frames to it are sent to. */
  readonly vtep: string
}

export interface EndpointsOptions {
  /** A VXLAN link by its name, 1 to 15 bytes. */
  readonly link: string
  /**
   * The network namespace that the link lives in, by path (`/run/netns/a`) or open descriptor; default: the process's own.
   * A descriptor has to stay open until the first call is done.
   */
  readonly netns?: string | number
  /** How long one exchange with the kernel may take, in milliseconds, 1 to 2^31 - 1; default 10,000. */
  readonly timeoutMs?: number
}

/** What `reconcile()` changed, or would change: how many entries, and each of them, in order. */
export interface EndpointsReconciliation {
  added: number
  updated: number
  removed: number
  plan: Step[]
}

/** Whose the endpoints are, if not the caller's. */
export interface Holder {
  /** Why a link that was found is not one for these endpoints; undefined if it is. */
  refusal(endpoints: Endpoints, link: OpenLink): Promise<InvalidArgument | undefined>
  /** Whether frames may be sent through the link to the VTEP at that word. */
  isReady(endpoints: Endpoints, vteps: Uint32Array, at: number): boolean
}

/**
 * The endpoints of a network on one link: for each a neighbour entry (from its address to its MAC) and an FDB entry (from
 * its MAC to its VTEP), thousands in one call. Both are permanent, the FDB's is `self`.
 *
 * An address has one endpoint: to add it again with another MAC or VTEP moves it. Endpoints that share a MAC at one VTEP
 * share its FDB entry, and the last of them takes it away. The kernel leads a MAC to one VTEP. Where endpoints have it at
 * several, it is the one that came last, and when that goes, the one before.
 *
 * Each call makes before it breaks: FDB entries come first, then neighbours, then what goes, neighbours first. An entry that
 * changes is changed in place.
 *
 * Nothing is opened until the first call that needs the kernel; from then on one process at a time has a link's endpoints,
 * by a lock that dies with it. `close()` lets go of both. Entries stay: a new process adds its endpoints again, which takes
 * over what is there, and `reconcile()` removes what nobody wants any more.
 *
 * On an encrypted network changes are made by an Overlay's `addEndpoints()` and `removeEndpoints()`, which has SAs to the
 * VTEPs in step. As long as an overlay has endpoints here, this is its own: calls that change anything refuse.
 *
 * Calls run in the order made. What the kernel refuses does not stop the rest: the call rejects with PartialFailure, whose
 * report names each entry, and what was asked for is what `reconcile()` makes then. A link that is set down loses its
 * neighbours, one that is deleted loses all: set it up, or make it, again, and `reconcile()`. In a namespace that loses its
 * name while these are open, endpoints are removed as before; what would make entries there is refused with
 * ERR_XFRMESH_NAMESPACE_GONE.
 */
export class Endpoints implements AsyncDisposable {
  /** The link's name. */
  readonly link: string
  readonly #link: EndpointLink
  #entries: Entries
  #holder: Holder | undefined
  #queue: Promise<unknown> = Promise.resolve()
  #closed: Promise<void> | undefined

  /**
   * Touches nothing yet.
   *
   * @param over what stands for the kernel's link, in tests
   * @throws InvalidArgument
   */
  constructor(options: EndpointsOptions, over?: EndpointLink) {
    const given = checkOptions<EndpointsOptions>(options, 'options', ['link', 'netns', 'timeoutMs'])
    this.link = linkName(given.link, 'options.link')
    const netns = namespace(given.netns, 'options.netns')
    const timeoutMs = integer(given.timeoutMs ?? 10_000, 'options.timeoutMs', 1, 0x7fffffff)
    this.#link = over ?? new EndpointLink(this.link, { netns, timeoutMs })
    this.#entries = new Entries(this.#link)
  }

  /** Endpoints wanted. */
  get size(): number {
    return this.#entries.table.size
  }

  /** The endpoint wanted at an inner address, in any form of it. */
  get(ip: string): Endpoint | undefined {
    const { table } = this.#entries
    const key = new Uint32Array(KEY_WORDS)
    if (parseKey(ip, new Uint8Array(key.buffer), 0) === 0) return undefined
    const row = table.find(key)
    if (row < 0) return undefined
    const pair = table.pairs[row]!
    return { ip: addressAt(key, 0), mac: macAt(table.fdb.macs, pair), vtep: addressAt(table.fdb.vteps, pair) }
  }

  /**
   * Adds endpoints, or moves those whose address is there with another MAC or VTEP. Those that are there as they are given
   * take no system call, and are `unchanged`; but those whose entries are not known to be right are tried again.
   *
   * @param endpoints read in the call's turn: leave them as they are until then
   * @throws InvalidArgument for any of them that is wrong, and a link that is not there or no VXLAN link: nothing was changed
   * @throws Unsupported without CAP_NET_ADMIN; XfrmeshError ERR_XFRMESH_LOCKED if another process has the link's endpoints
   * @throws PartialFailure; XfrmeshError ERR_XFRMESH_TIMEOUT and the like: what the kernel has is not known then
   */
  add(endpoints: readonly Endpoint[]): Promise<Report> {
    return this.#change(endpoints, async (entries, given, began) => {
      const list = await entries.check(given)
      const changes = await entries.put(list)
      return report(await entries.follow(changes), given.length, changes.set.length, began)
    })
  }

  /**
   * Removes endpoints. One that is not there, or is with another MAC or at another VTEP by now, is `unchanged`: news of where
   * it was does no harm to where it is.
   *
   * Where another tool led the MAC elsewhere since, its FDB entry stays; the address's neighbour entry goes whatever MAC it
   * has by now, for the kernel deletes by the address alone. A link that was made anew since keeps all that it has.
   *
   * @throws as {@link add}
   */
  remove(endpoints: readonly Endpoint[]): Promise<Report> {
    return this.#change(endpoints, async (entries, given, began) => {
      const list = await entries.checkGone(given)
      const changes = await entries.take(list)
      return report(await entries.follow(changes), given.length, changes.gone.length, began)
    })
  }

  /**
   * These endpoints and no others: reads what the link has and changes only what differs, what an earlier process left too,
   * as {@link reconcile} does. In the report `requested`, `applied` and `unchanged` count those given.
   *
   * @throws as {@link add}
   */
  replace(endpoints: readonly Endpoint[]): Promise<Report> {
    return this.#change(endpoints, async (entries, given, began) => {
      const list = await entries.check(given)
      await entries.replace(list)
      const look = await entries.look()
      const before = await entries.right()
      const done = await entries.repair(look)
      return report({ ...done, applied: (await entries.right()) - before }, given.length, list.size - before, began)
    })
  }

  /**
   * Makes the link's entries those of the endpoints wanted, whatever happened to them: reads them all, and changes only what
   * differs.
   *
   * Ours are all permanent entries of the link: neighbours, and `self` entries of the FDB for the MAC of one host. What of
   * these no endpoint wants is removed, whoever put it there. Left alone are entries that the kernel learned, those of a
   * control plane (`extern_learn`), `static` ones of the FDB, those of the link's bridge (`master`), those to which frames
   * are flooded (the all-zero MAC, and groups'), and all of other links. What is there in place of an entry that an endpoint
   * takes is replaced, of whichever kind it is.
   *
   * @param options `dryRun`: only say what would be done; default false
   * @throws InvalidArgument; PartialFailure; XfrmeshError as {@link add}; InvalidState for those that an overlay has: what
   *   leads to peers is mended after them, by its own `reconcile()`
   */
  reconcile(options: { dryRun?: boolean } = {}): Promise<EndpointsReconciliation> {
    return this.#call(async (began) => {
      this.#checkFree('mend them by its reconcile()')
      const { dryRun } = checkOptions<{ dryRun?: boolean }>(options, 'options', ['dryRun'])
      boolean(dryRun ?? false, 'options.dryRun')
      const entries = this.#entries
      const look = await entries.look()
      const plan = await entries.steps(look)
      const count = (verb: string) => plan.filter(({ operation }) => operation.startsWith(verb)).length
      if (dryRun === true) {
        return { added: count('add'), updated: count('update'), removed: count('delete'), plan }
      }
      const done = await entries.repair(look)
      const { added, updated, removed } = done
      report({ ...done, applied: added + updated + removed }, plan.length, plan.length, began)
      return { added, updated, removed, plan }
    })
  }

  /** Whether it takes calls no more. @internal */
  get isClosed(): boolean {
    return this.#closed !== undefined
  }

  /**
   * Does work of somebody else's on the entries in its turn. From then on, until it lets go by {@link release}, changes are
   * its alone to make: it holds something for each endpoint, and says which links and VTEPs are ready.
   * @internal
   */
  held<T>(holder: Holder, work: (entries: Entries) => Promise<T>): Promise<T> {
    if (this.#closed !== undefined && this.#holder !== holder) return Promise.reject(closedError())
    return this.#turn(() => {
      const before = this.#holder
      if (before !== undefined ? before !== holder : this.size > 0) {
        const whose = before === undefined ? 'endpoints that were added directly' : 'those of another overlay'
        throw new InvalidState(`endpoints: ${this.link} has ${whose}: an overlay could not count them`)
      }
      if (before === undefined) this.#hold(holder)
      return work(this.#entries)
    })
  }

  /** Wants nothing any more of what a holder wanted, and is everybody's again. All entries stay. @internal */
  async release(holder: Holder): Promise<void> {
    if (this.#holder !== holder) return
    if (this.size > 0) this.#entries = new Entries(this.#link)
    this.#hold(undefined)
    await (this.#closed === undefined ? this.#link.letGo() : this.#link.close())
  }

  /**
   * Ends it, after the calls made. All entries stay. What an overlay has endpoints of goes on for that one, and ends when it
   * is closed or has none left.
   */
  close(): Promise<void> {
    this.#closed ??= this.#queue.then(() => (this.#holder === undefined ? this.#link.close() : undefined))
    return this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #hold(holder: Holder | undefined): void {
    this.#holder = holder
    this.#entries.isReady = (vteps, at) => holder?.isReady(this, vteps, at) ?? true
    this.#link.restrict(holder && ((link) => holder.refusal(this, link)))
  }

  #checkFree(advice: string): void {
    if (this.#holder === undefined) return
    throw new InvalidState(`endpoints: an overlay counts those of ${this.link}: ${advice}`)
  }

  #change(
    endpoints: unknown,
    work: (entries: Entries, given: readonly unknown[], began: number) => Promise<Report>,
  ): Promise<Report> {
    let given: readonly unknown[]
    try {
      given = array(endpoints, 'endpoints').slice()
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)))
    }
    return this.#call((began) => {
      this.#checkFree('change them by its addEndpoints() and removeEndpoints()')
      return work(this.#entries, given, began)
    })
  }

  #call<T>(work: (began: number) => Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(closedError())
    const began = performance.now()
    return this.#turn(() => work(began))
  }

  #turn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work)
    this.#queue = result.catch(() => undefined)
    return result
  }
}

function closedError(): InvalidState {
  return new InvalidState('endpoints: closed', 'ERR_XFRMESH_CLOSED')
}

/** dev_valid_name() of the kernel's net/core/dev.c. */
function linkName(value: unknown, argument: string): string {
  const name = typeof value === 'string' && !/[\s/:\0]/.test(value) && value !== '.' && value !== '..' ? value : ''
  const bytes = Buffer.byteLength(name)
  if (bytes >= 1 && bytes <= 15) return name
  throw new InvalidArgument(
    argument,
    "a link's name, 1 to 15 bytes with no space, slash or colon, as in 'vx4096'",
    value,
  )
}

/** The report of a call that had something to do for `changed` endpoints. @throws PartialFailure if not all was done */
function report(
  { applied, operations, failures }: { applied: number; operations: number; failures: Failure[] },
  requested: number,
  changed: number,
  began: number,
): Report {
  const elapsedMs = performance.now() - began
  const made = { requested, applied, unchanged: requested - changed, failures, operations, elapsedMs }
  if (failures.length > 0) throw new PartialFailure(made)
  return made
}
