import { type Failure, NetlinkError } from '../base/errors.js'
import { Pace } from '../base/pace.js'
import { viewOf } from '../kernel/attributes.js'
import { errnoText } from '../kernel/netlink-errors.js'
import { attributeAt, isPolicyRecord, startsOf } from '../kernel/record-identity.js'
import { LITTLE_ENDIAN, Policy, RecordWriter, State } from '../kernel/records.js'
import { DIRECTION_OUT, XFRMA } from '../kernel/xfrm-names.js'
import { TemplateLayout } from '../kernel/xfrm-parts.js'
import { Claims } from './claims.js'
import { KeyDeriver } from './derive.js'
import {
  carryOut,
  describe,
  endsOf,
  type Execution,
  type ExecutionOptions,
  nothingDone,
  type Owners,
  type XfrmPort,
} from './executor.js'
import { type GuardedSets, type GuardState, type NodeGuard, setsFor } from './guard.js'
import type { NodeKeyring } from './keyring.js'
import { Look } from './look.js'
import { ObjectWriter } from './objects.js'
import { type PhaseName, type Plan, Planner } from './plan.js'
import { sameIntervals } from './ranges.js'
import { FAMILIES, type Remote, type Settings } from './settings.js'
import { keyIdOf } from './tunnels.js'

/** Owners of objects that are no node's: policies shared by all, and what a look found that nobody asks for. */
const SHARED = 0
const STALE = 1
const FIRST_NODE = 2

/** A node that is wanted, or not all gone. */
export interface Entry {
  readonly owner: number
  node: Remote
  /** How often it was seen to have booted. */
  boots: number
  wanted: boolean
  /** Whether what only one node may have is this one's. */
  claimed: boolean
  /** What the kernel has of it, as far as is known. */
  installed: Uint8Array
  /** Why it does not have all that it should; undefined if it has. */
  lack: string | undefined
}

/** One step of a plan, as a dry run shows it: plain JSON. */
export interface Step {
  phase: PhaseName | 'guard sets'
  operation: string
  /** The node, and the addresses of the SA or of what the policy selects. */
  subject: string
}

/** What a call came to, and the owners for whom there was anything to do. */
export interface Followed extends Execution {
  readonly changed: ReadonlySet<number>
}

/** How a plan is made. */
interface Making {
  /** Let go of keys that are old. */
  readonly reclaim?: boolean
  /** Also remove what a look found that nobody asks for. */
  readonly clean?: boolean
  /** Want nothing any more. */
  readonly flush?: boolean
}

/**
 * The one mechanism: knows what should be and what is, and makes the one the other. One caller at a time.
 *
 * What is, is what was last committed; or, at first and after anything whose end is not known, what a look at the kernel
 * shows. What that finds and no node accounts for is left alone until a reconciliation: it may be what an earlier process
 * made for nodes that are about to be named again.
 */
export class NodeMesh {
  readonly keyring: NodeKeyring
  readonly #settings: Settings
  readonly #xfrm: XfrmPort
  readonly #guard: NodeGuard | undefined
  readonly #deriver: KeyDeriver
  readonly #writer: ObjectWriter
  readonly #claims: Claims
  readonly #entries = new Map<string, Entry>()
  #owners = FIRST_NODE
  #known = false
  #looked = false
  #shared: Uint8Array = new Uint8Array(0)
  #left: Look | undefined
  /** Ranges and addresses that were guarded and are no node's now. */
  #kept: GuardedSets | undefined

  constructor(settings: Settings, keyring: NodeKeyring, xfrm: XfrmPort, guard: NodeGuard | undefined) {
    this.#settings = settings
    this.keyring = keyring
    this.#xfrm = xfrm
    this.#guard = guard
    this.#deriver = new KeyDeriver(settings, keyring)
    this.#writer = new ObjectWriter(settings, keyring)
    this.#claims = new Claims(settings)
  }

  get entries(): IterableIterator<Entry> {
    return this.#entries.values()
  }

  get size(): number {
    return [...this.entries].filter(({ wanted }) => wanted).length
  }

  /** A node is wanted, or wanted otherwise. */
  want(node: Remote): Entry {
    let entry = this.#entries.get(node.name)
    if (entry === undefined) {
      const installed = new Uint8Array(0)
      entry = { owner: this.#owners++, node, boots: 1, wanted: true, claimed: false, installed, lack: undefined }
      this.#entries.set(node.name, entry)
    } else {
      this.#unclaim(entry)
      if (Buffer.compare(entry.node.bootId, node.bootId) !== 0) entry.boots++
      entry.node = node
      entry.wanted = true
    }
    return entry
  }

  /** A node is wanted no more. @returns undefined if it is not known */
  drop(name: string): Entry | undefined {
    const entry = this.#entries.get(name)
    if (entry === undefined) return undefined
    this.#unclaim(entry)
    entry.wanted = false
    return entry
  }

  /** Makes the kernel follow a change of these nodes, and of all others of which something was lacking. */
  async follow(changed: Iterable<Entry>, options: ExecutionOptions, making: Making = {}): Promise<Followed> {
    const fresh = [...changed]
    const scope = new Set([...fresh, ...[...this.entries].filter(({ lack, wanted }) => lack !== undefined || !wanted)])
    if (!this.#known) await this.look()
    else for (const { node, boots } of fresh) this.#adopt(this.#entries.get(node.name)!, boots)
    const impossible = this.#claimAll(scope)
    return this.#make(scope, impossible, options, making)
  }

  /** The same for all nodes: other keys, or a repair. */
  all(options: ExecutionOptions, making: Making = {}): Promise<Followed> {
    return this.follow([...this.entries], options, making)
  }

  /** Reads all of the kernel that is ours: from here on that is what is. */
  async look(): Promise<void> {
    this.#known = false
    this.#left?.wipe()
    const look = await Look.read(this.#xfrm, this.#settings, this.keyring, this.#deriver, this.#drops())
    this.#left = look
    if (!this.#looked) {
      // Under another key than ours an earlier process encrypts: that goes on until ours is committed.
      const ids = look.outboundIds()
      const [id] = ids
      if (id !== undefined && !ids.has(this.keyring.current)) this.keyring.found(id)
      if (this.#guard !== undefined) this.#kept = (await this.#guard.read()).sets
    }
    this.#shared = look.shared
    for (const entry of this.entries) entry.installed = look.take(entry.node, entry.boots)
    this.#known = this.#looked = true
  }

  /** The guard as the kernel has it; undefined where marks choose. */
  guard(): Promise<GuardState> | undefined {
    return this.#guard?.read()
  }

  /** What a repair would do, in order. Nothing may have happened since the last look. */
  async steps(): Promise<Step[]> {
    const scope = new Set(this.entries)
    this.#claimAll(scope)
    const steps = await this.#guardSteps()
    const plan = await this.#plan(scope, { clean: true })
    const owners = this.#ownersOf()
    for (const { name, records, owners: of } of plan.phases) {
      for (const [i, at] of startsOf(records).entries()) {
        const subject = `${owners.name(of[i]!)}: ${endsOf(records, at)}`
        steps.push({ phase: name, operation: describe(records, at, this.#deriver), subject })
      }
    }
    return steps
  }

  /** Gives up guarding what is no node's. */
  async release(): Promise<void> {
    this.#kept = undefined
    await this.#guard?.apply(this.#guarded())
  }

  /** Takes the guard away. */
  async unguard(): Promise<void> {
    await this.#guard?.remove()
  }

  /** When the present key began to encrypt, in seconds since 1970: its oldest outbound SA tells. undefined: it has none. */
  async encryptingSince(): Promise<number | undefined> {
    return Look.oldestOutbound(this.#xfrm, this.#settings, this.#deriver, this.keyring.current)
  }

  wipe(): void {
    this.#left?.wipe()
    this.keyring.wipe()
  }

  #unclaim(entry: Entry): void {
    if (entry.claimed) this.#claims.release(entry.node)
    entry.claimed = false
  }

  /** Makes what an earlier process left of a node's its own. */
  #adopt(entry: Entry, boots: number): void {
    if (this.#left === undefined) return
    const found = this.#left.take(entry.node, boots)
    if (found.length > 0) entry.installed = new Uint8Array(Buffer.concat([entry.installed, found]))
    if (this.#left.isEmpty) this.#forgetLook()
  }

  #forgetLook(): void {
    this.#left?.wipe()
    this.#left = undefined
  }

  /** Claims for those that have not claimed yet. @returns why some can't have what they want */
  #claimAll(scope: ReadonlySet<Entry>): Failure[] {
    const failures: Failure[] = []
    const fail = (entry: Entry, code: string, lack: string) => {
      entry.lack = lack
      failures.push({ subject: entry.node.name, operation: 'upsert node', errno: 0, code, message: lack })
    }
    for (const entry of scope) {
      if (!entry.wanted) continue
      entry.lack = undefined
      const conflict = entry.claimed ? undefined : this.#claims.claim(entry.node)
      entry.claimed = conflict === undefined
      const keyless = this.#writer.withoutKey(entry.node)
      if (conflict !== undefined) fail(entry, 'ERR_XFRMESH_NODE_CONFLICT', conflict)
      else if (keyless !== undefined) {
        const lack = `there is no key for what ${keyless.address} sends under key id ${keyless.id}`
        fail(entry, 'ERR_XFRMESH_NO_KEY', lack)
      }
    }
    return failures
  }

  async #make(
    scope: ReadonlySet<Entry>,
    impossible: readonly Failure[],
    options: ExecutionOptions,
    making: Making,
  ): Promise<Followed> {
    const unguarded = making.flush === true ? [] : await this.#cover()
    if (unguarded.length > 0) {
      for (const entry of scope) entry.lack = unguarded[0]!.message
      return { ...nothingDone(), failures: unguarded, changed: new Set() }
    }
    const plan = await this.#plan(scope, making)
    const changed = new Set(plan.phases.flatMap(({ owners }) => owners))
    let done: Execution
    try {
      done = await carryOut(this.#xfrm, plan, this.#ownersOf(), options)
    } catch (error) {
      this.#known = false
      for (const entry of scope) entry.lack ??= 'a call failed, and what the kernel has is not known'
      throw error
    }
    this.#settle(scope, plan, done)
    if (making.clean === true && this.#known) this.#forgetLook()
    return { ...done, failures: [...impossible, ...done.failures], changed }
  }

  /** Guards the ranges of all nodes that are wanted, and all that ever were, before anything else is done. */
  async #cover(): Promise<Failure[]> {
    if (this.#guard === undefined) return []
    try {
      const sets = this.#guarded()
      await this.#guard.apply(sets)
      this.#kept = sets
      return []
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error
      const { errno, message } = error
      return [{ subject: 'guard', operation: 'update guard', errno, code: errnoText(errno)[0], message }]
    }
  }

  #guarded(): GuardedSets {
    const nodes = [...this.entries].filter(({ wanted }) => wanted).map(({ node }) => node)
    return setsFor(this.#settings, nodes, this.#kept)
  }

  async #guardSteps(): Promise<Step[]> {
    const state = await this.guard()
    if (state === undefined) return []
    if (!state.intact)
      return [{ phase: 'guard sets', operation: 'update guard', subject: state.differences.join('; ') }]
    const wanted = this.#guarded()
    const same = (['local', 'remote', 'overlay'] as const).every((part) =>
      FAMILIES.every((family) => sameIntervals(state.sets[part].get(family) ?? [], wanted[part].get(family) ?? [])),
    )
    return same ? [] : [{ phase: 'guard sets', operation: 'update guard', subject: 'its sets hold other ranges' }]
  }

  async #plan(scope: ReadonlySet<Entry>, { reclaim, clean, flush }: Making): Promise<Plan> {
    const planner = new Planner({
      isInbound: (records, at) => this.#deriver.isInbound(records, at),
      keeps: (records, at) => this.#keeps(records, at, reclaim === true),
    })
    const pace = new Pace(8)
    planner.add(SHARED, this.#shared, flush === true ? NOTHING : this.#sharedRecords(), false)
    for (const entry of scope) {
      // What it can't have as it wants it stays as it is.
      if (entry.wanted && entry.lack !== undefined) continue
      planner.add(entry.owner, entry.installed, entry.wanted ? this.#records(entry) : NOTHING, entry.wanted)
      if (pace.isDue) await pace.breathe()
    }
    if (clean === true && this.#left !== undefined) planner.add(STALE, this.#left.rest(), NOTHING, false)
    return planner.finish()
  }

  #sharedRecords(): Uint8Array {
    const writer = new RecordWriter()
    this.#writer.drops(writer)
    this.#writer.shared(writer)
    return writer.take()
  }

  #drops(): Uint8Array {
    const writer = new RecordWriter()
    this.#writer.drops(writer)
    return writer.take()
  }

  #records(entry: Entry): Uint8Array {
    const writer = new RecordWriter(2048)
    this.#writer.node(writer, entry.node, entry.boots, this.#outboundIds(entry))
    return writer.take()
  }

  /** Ids of the keys to encrypt with for a node, the present one first. */
  #outboundIds({ installed }: Entry): number[] {
    const { current, next, old } = this.keyring
    const has = this.keyring.has(current) || this.#encryptsUnder(installed, current)
    const first = has ? current : next!
    // A datapath may still mark packets for a key that was current until now.
    return this.#settings.marks === false ? [first] : [first, ...old]
  }

  #encryptsUnder(records: Uint8Array, id: number): boolean {
    const view = viewOf(records)
    return startsOf(records).some(
      (at) =>
        !isPolicyRecord(records, at) &&
        !this.#deriver.isInbound(records, at) &&
        keyIdOf(view.getUint32(at + State.spi, LITTLE_ENDIAN)) === id,
    )
  }

  /** Whether an object stays that is of a key which is not here: an earlier process had it. */
  #keeps(records: Uint8Array, at: number, reclaim: boolean): boolean {
    const marked = this.#settings.marks !== false
    let id: number
    let mayStay = marked
    if (isPolicyRecord(records, at)) {
      const template = attributeAt(records, at, XFRMA.TMPL)
      if (!marked || records[at + Policy.direction] !== DIRECTION_OUT || template < 0) return false
      id = keyIdOf(viewOf(records).getUint32(template + TemplateLayout.spi))
    } else {
      id = keyIdOf(viewOf(records).getUint32(at + State.spi, LITTLE_ENDIAN))
      mayStay ||= this.#deriver.isInbound(records, at)
    }
    if (this.keyring.has(id)) return false
    return id === this.keyring.current || (mayStay && !reclaim)
  }

  #settle(scope: ReadonlySet<Entry>, plan: Plan, done: Execution): void {
    const { failed, aborted } = done
    if (aborted || failed.size > 0) this.#known = false
    const isDone = (owner: number) => !aborted && !failed.has(owner)
    const shared = plan.after.get(SHARED)
    if (shared !== undefined && isDone(SHARED)) this.#shared = shared
    for (const entry of scope) {
      if (!isDone(entry.owner)) {
        entry.lack ??= FAILED
        continue
      }
      const after = plan.after.get(entry.owner)
      if (after !== undefined) entry.installed = after
      if (!entry.wanted) this.#entries.delete(entry.node.name)
    }
  }

  #ownersOf(): Owners {
    const byOwner = new Map([...this.entries].map((entry) => [entry.owner, entry.node]))
    return {
      deriver: this.#deriver,
      algorithms: this.keyring.algorithms,
      node: (owner) => byOwner.get(owner)!,
      name: (owner) => byOwner.get(owner)?.name ?? (owner === STALE ? 'of no node' : 'all nodes'),
    }
  }
}

const NOTHING = new Uint8Array(0)
const FAILED = 'the kernel refused something; reconcile() tries again'
