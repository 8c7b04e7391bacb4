import { type Failure, InvalidState } from '../base/errors.js'
import { Pace } from '../base/pace.js'
import { recordAt, startsOf } from '../kernel/record-identity.js'
import { Belonging } from './belonging.js'
import { Cover } from './cover.js'
import { KeyDeriver } from './derive.js'
import {
  carryOut,
  describe,
  endsOf,
  type Execution,
  type ExecutionOptions,
  nothingDone,
  type Owners,
} from './executor.js'
import type { GuardState, NodeGuard } from './guard.js'
import { idInUse, NodeKeyring } from './keyring.js'
import { Look, type Lookout } from './look.js'
import { Overlaps } from './overlap.js'
import { Owner } from './owners.js'
import { type Plan, Planner, type Step } from './plan.js'
import { inPlacesOf, type XfrmPort } from './port.js'
import { type Entry, failureOf, Roster } from './roster.js'
import { Sequences } from './sequences.js'
import type { Settings } from './settings.js'
import { Succession } from './succession.js'
import { Tenure } from './tenure.js'
import { isStateUnder, Wish } from './wish.js'

/** What a call came to, and the owners for whom there was anything to do. */
export interface Followed extends Execution {
  readonly changed: ReadonlySet<number>
}

/** How a plan is made. */
interface Making {
  /** Let go of keys that are old, but for these, by their ids. */
  readonly reclaim?: ReadonlySet<number>
  /** Also remove what a look found that nobody asks for. */
  readonly clean?: boolean
  /** Want nothing any more. */
  readonly flush?: boolean
  /** That the key which encrypts is not at hand is no failure: another is on its way. */
  readonly replacesKey?: boolean
  /** Told what is about to be done, in order. */
  readonly tell?: (steps: readonly Step[]) => void
  /** That what is was known before: how far sequence numbers have come was not looked at just now. */
  readonly wasKnown?: boolean
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
  readonly roster: Roster
  readonly #settings: Settings
  readonly #xfrm: XfrmPort
  readonly #marked: boolean
  readonly #cover: Cover
  readonly #belonging: Belonging
  readonly #deriver: KeyDeriver
  readonly #wish: Wish
  readonly #sequences = new Sequences()
  readonly #tenure = new Tenure()
  #known = false
  #looked = false
  #isGuardAdopted = false
  #shared = NOTHING
  #left: Look | undefined
  #overlaps: Overlaps
  /** Of the key that encrypted at the last look: when its oldest outbound SA was added, in seconds since 1970. */
  #since: number | undefined

  constructor(settings: Settings, keyring: NodeKeyring, xfrm: XfrmPort, guard: NodeGuard | undefined) {
    this.keyring = keyring
    this.roster = new Roster(settings)
    this.#settings = settings
    this.#xfrm = xfrm
    this.#marked = settings.marks !== false
    this.#cover = new Cover(settings, guard)
    this.#belonging = new Belonging(settings)
    this.#deriver = new KeyDeriver(settings, keyring, this.#belonging)
    this.#wish = new Wish(settings, keyring, this.#belonging)
    this.#overlaps = new Overlaps(xfrm, keyring, NOTHING)
  }

  /**
   * Makes the kernel follow a change of these nodes, and of all others of which something was lacking. Whatever it throws,
   * something is lacking of all these then.
   */
  async follow(changed: Iterable<Entry>, options: ExecutionOptions, making: Making = {}): Promise<Followed> {
    const fresh = [...changed]
    const scope = new Set([...fresh, ...this.roster.unsettled])
    this.roster.claim(scope)
    try {
      const first = making.flush === true ? nothingDone() : await this.#protect(options, making)
      if (first.aborted || first.failures.length > 0) {
        for (const entry of scope) entry.lack = first.failures[0]?.message ?? FAILED
        return { ...first, changed: new Set() }
      }
      const wasKnown = this.#known
      if (wasKnown) for (const entry of fresh) this.#adopt(entry)
      else await this.look()
      return sum(first, await this.#make(scope, this.#lacking(scope, making), options, { ...making, wasKnown }))
    } catch (error) {
      this.#doubt(scope)
      throw error
    }
  }

  /** The same for all nodes: other keys, or a repair. */
  all(options: ExecutionOptions, making: Making = {}): Promise<Followed> {
    return this.follow(this.roster.entries, options, making)
  }

  /**
   * Installs what decrypts under a key, which can be committed once that is in place for each node. What else is refused
   * does not hold it up, nor does a node that can't be what it should: what it was is prepared too.
   * @throws InvalidArgument for an id that other keys have, here or in the kernel
   */
  async prepare(keys: unknown, options: ExecutionOptions): Promise<Followed> {
    // What the kernel has says under which key this node encrypts.
    if (!this.#known) await this.#lookGuarded(options)
    await this.#refuseOthers(keys)
    const before = this.keyring.next
    this.keyring.prepare(keys)
    if (before !== undefined && this.keyring.old.includes(before)) this.#tenure.abandoned()
    const done = await this.all(options, { replacesKey: true })
    const isKeyless = this.roster.entries.some(({ claimed, blocked }) => claimed && blocked)
    if (done.decrypts && !isKeyless) this.keyring.prepared()
    return done
  }

  /** Turns to the key that was prepared. */
  async commit(options: ExecutionOptions): Promise<Followed> {
    const before = this.keyring.current
    this.keyring.commit()
    // Where the kernel alone said which key encrypts, now it is known.
    const turns = this.keyring.current !== before || !this.#tenure.isOwn
    try {
      return await this.all(options)
    } finally {
      // Whatever became of it: some nodes may have the key, and a call made again is not the one that turned.
      if (turns) this.#tenure.began()
    }
  }

  /**
   * Lets go of all keys that encrypt no more, once the present one has encrypted for `after` milliseconds.
   * @returns how many are left of these, if any are
   * @throws InvalidState where it can't be told which key that is
   */
  async reclaim(after: number, options: ExecutionOptions): Promise<Followed | number> {
    // A look reads all SAs, and derives their keys anew.
    if (!this.#known || !this.#tenure.isOwn) await this.#lookGuarded(options)
    const reclaim = this.#tenure.isOwn ? NO_KEYS : await this.#preparedBefore()
    const left = this.#tenure.left(after, this.#since)
    if (left > 0) return left
    this.keyring.forgetOld()
    this.#sequences.forget((id) => id !== this.keyring.current && !this.keyring.has(id))
    return this.all(options, { reclaim })
  }

  /** Keys that an earlier process prepared after the present one began to encrypt: others may encrypt under them. */
  async #preparedBefore(): Promise<ReadonlySet<number>> {
    const { current, next } = this.keyring
    const succession = await Succession.read(this.#xfrm, this.#belonging)
    const later = succession.encryptingAfter(current).find((id) => id !== next)
    if (later !== undefined) {
      throw new InvalidState(
        `reclaim: SAs lead out under key ${later} that were added after those of key ${current}, which is taken for the one that encrypts: which of them goes can't be told: prepare() and commit() the one that is to stay`,
      )
    }
    return new Set(succession.decryptingAfter(current))
  }

  async #lookGuarded(options: ExecutionOptions): Promise<void> {
    try {
      await this.#protect(options, {})
      await this.look()
    } catch (error) {
      this.#doubt(this.roster.entries)
      throw error
    }
  }

  /** What is of these is not known any more. */
  #doubt(entries: Iterable<Entry>): void {
    this.#known = false
    for (const entry of entries) entry.lack ??= 'a call failed, and what the kernel has is not known'
  }

  /** Reads all of the kernel that is ours: from here on that is what is. */
  async look(): Promise<void> {
    this.#known = false
    this.#left?.wipe()
    const look = await this.#read(this.keyring)
    this.#left = look
    this.#overlaps = new Overlaps(this.#xfrm, this.keyring, look.generals)
    const since = look.encryptingSince
    if (!this.#looked) {
      // Under another key than ours an earlier process encrypts: that goes on until ours is committed.
      const [id] = [...since].sort(([, one], [, other]) => other - one).map(([each]) => each)
      if (id !== undefined && !since.has(this.keyring.current)) this.keyring.found(id)
      this.#tenure.seen()
    }
    this.#since = since.get(this.keyring.current)
    this.#shared = look.shared
    const pace = new Pace(8)
    for (const entry of byClaim(this.roster.entries)) {
      entry.installed = look.take(entry.node, entry.boots)
      if (pace.isDue) await pace.breathe()
    }
    if (look.isEmpty) this.#forgetLook()
    this.#known = this.#looked = true
  }

  /** The guard as the kernel has it; undefined where marks choose. */
  guard(): Promise<GuardState> | undefined {
    return this.#cover.read()
  }

  /** What a repair would do, in order. */
  async survey(): Promise<Step[]> {
    await this.#adoptGuard()
    const steps = await this.#cover.steps(this.roster.nodes)
    await this.look()
    const scope = new Set(this.roster.entries)
    const lacks = [...scope].map(({ lack }) => lack)
    this.#lacking(scope, {})
    try {
      return [...steps, ...this.#stepsOf(await this.#plan(scope, { clean: true }))]
    } finally {
      // Nothing is mended, what was lacking still is, and what was found in the way is out of the look.
      this.#known = false
      for (const [i, entry] of [...scope].entries()) entry.lack ??= lacks[i]
    }
  }

  /** Looks at all anew, makes it as it should be, and removes what nobody asks for. @returns also what was to be done */
  async repair(options: ExecutionOptions): Promise<{ done: Followed; plan: Step[] }> {
    const plan: Step[] = []
    this.#known = false
    const done = await this.all(options, { clean: true, tell: (steps) => steps.forEach((step) => plan.push(step)) })
    return { done, plan }
  }

  #stepsOf({ phases }: Plan): Step[] {
    const owners = this.#ownersOf()
    return phases.flatMap(({ name, records, owners: of }) =>
      startsOf(records).map((at, i) => {
        const subject = `${owners.name(of[i]!)}: ${endsOf(records, at)}`
        return { phase: name, operation: describe(records, at, this.#belonging), subject }
      }),
    )
  }

  /** Gives up guarding what is no node's. */
  release(): Promise<void> {
    return this.#cover.release(this.roster.nodes)
  }

  /** Takes the guard away. */
  unguard(): Promise<void> {
    return this.#cover.remove()
  }

  wipe(): void {
    this.#left?.wipe()
    this.keyring.wipe()
  }

  /**
   * Refuses keys under whose id the kernel has others, which an earlier process was given. What it was given under the id
   * is not here: each node's SAs show it, as far as they are of the boots that are known.
   */
  async #refuseOthers(keys: unknown): Promise<void> {
    const keyring = new NodeKeyring(keys, 'keys')
    const id = keyring.current
    let look: Look | undefined
    try {
      if (this.keyring.has(id) || !this.#has(id)) return
      look = await this.#read(keyring)
      const wish = new Wish(this.#settings, keyring, this.#belonging)
      const verdicts = new Set<boolean | undefined>()
      for (const { wanted, node, boots } of byClaim(this.roster.entries)) {
        if (wanted && wish.lack(node) === undefined)
          verdicts.add(wish.confirms(node, boots, look.take(node, boots), id))
      }
      // Now the kernel's keys have a name.
      if (verdicts.has(true)) this.#known = false
      else if (verdicts.has(false)) throw idInUse(id, 'by other keys', BOOTED)
      else throw idInUse(id, UNNAMED)
    } finally {
      look?.wipe()
      keyring.wipe()
    }
  }

  /** Whether the kernel has an SA under a key. */
  #has(id: number): boolean {
    const found = [...this.roster.entries.map(({ installed }) => installed), this.#left?.rest() ?? NOTHING]
    return found.some((records) => startsOf(records).some((at) => isStateUnder(records, at, id)))
  }

  #read(keyring: NodeKeyring): Promise<Look> {
    return Look.read(this.#lookout(keyring), this.#wish.drops())
  }

  #lookout(keyring: NodeKeyring): Lookout {
    const [xfrm, belonging, sequences, marked] = [this.#xfrm, this.#belonging, this.#sequences, this.#marked]
    const deriver = new KeyDeriver(this.#settings, keyring, belonging)
    return { xfrm, keyring, belonging, deriver, sequences, marked }
  }

  /** Keeps guarding what an earlier process did. */
  async #adoptGuard(): Promise<void> {
    if (this.#isGuardAdopted) return
    await this.#cover.adopt()
    this.#isGuardAdopted = true
  }

  /** Makes what an earlier process left of a node's its own. */
  #adopt(entry: Entry): void {
    if (this.#left === undefined) return
    const found = this.#left.take(entry.node, entry.boots)
    if (found.length > 0) entry.installed = joined(entry.installed, found)
    if (this.#left.isEmpty) this.#forgetLook()
  }

  #forgetLook(): void {
    this.#left?.wipe()
    this.#left = undefined
  }

  /** Says of each what it will lack. */
  #lacking(scope: ReadonlySet<Entry>, { replacesKey }: Making): Failure[] {
    const failures: Failure[] = []
    for (const entry of scope) {
      if (!entry.wanted) continue
      const { node, boots, installed, claimed, conflict } = entry
      const keyless = claimed ? this.#wish.lack(node) : undefined
      const dead = claimed && keyless === undefined ? this.#wish.deadness(node, boots, installed) : undefined
      entry.blocked = !claimed || keyless !== undefined
      entry.lack = conflict ?? keyless ?? dead
      if (entry.lack !== undefined && (entry.lack !== dead || replacesKey !== true)) failures.push(failureOf(entry))
    }
    return failures
  }

  /**
   * Sees to it that what is not encrypted is dropped, before anything else is done or even looked at: by the guard, or, where
   * marks choose, by the policies that drop.
   */
  async #protect(options: ExecutionOptions, { tell }: Making): Promise<Execution> {
    await this.#adoptGuard()
    tell?.(await this.#cover.steps(this.roster.nodes))
    const failures = await this.#cover.spread(this.roster.nodes)
    if (failures.length > 0) return { ...nothingDone(), failures }
    // What is known of is looked after with all else.
    if (!this.#marked || this.#known) return nothingDone()
    const plan = await this.#dropping()
    tell?.(this.#stepsOf(plan))
    return carryOut(this.#xfrm, plan, this.#ownersOf(), { signal: options.signal })
  }

  /** What it takes until the policies that drop are as they should be. */
  async #dropping(): Promise<Plan> {
    const drops = this.#wish.drops()
    const planner = this.#planner({})
    planner.add(Owner.shared, await inPlacesOf(drops, this.#xfrm), drops, false)
    return planner.finish()
  }

  #planner({ reclaim }: Making): Planner {
    return new Planner({
      isInbound: (records, at) => this.#belonging.isInbound(records, at),
      keeps: (records, at) => this.#wish.keeps(records, at, reclaim),
    })
  }

  async #make(
    scope: ReadonlySet<Entry>,
    impossible: readonly Failure[],
    options: ExecutionOptions,
    making: Making,
  ): Promise<Followed> {
    const plan = await this.#plan(scope, making)
    making.tell?.(this.#stepsOf(plan))
    const changed = new Set(plan.phases.flatMap(({ owners }) => owners))
    if (making.wasKnown === true && making.reclaim === undefined && making.flush !== true)
      await Look.learn(this.#lookout(this.keyring), retiring(plan))
    const done = await carryOut(this.#xfrm, plan, this.#ownersOf(), options)
    this.#settle(scope, plan, done)
    if (making.clean === true && this.#known) this.#forgetLook()
    return { ...done, failures: [...impossible, ...done.failures], changed }
  }

  async #plan(scope: ReadonlySet<Entry>, making: Making): Promise<Plan> {
    const { clean, flush } = making
    const planner = this.#planner(making)
    const pace = new Pace(8)
    planner.add(Owner.shared, this.#shared, flush === true ? NOTHING : this.#wish.shared(), false)
    for (const entry of scope) {
      const { owner, node, boots, installed, wanted, blocked } = entry
      if (wanted && blocked) continue
      const should = wanted ? this.#wish.of(node, boots) : NOTHING
      const inTheWay = this.#left?.takePlaces(should) ?? NOTHING
      planner.add(owner, inTheWay.length === 0 ? installed : joined(installed, inTheWay), should, wanted)
      if (pace.isDue) await pace.breathe()
    }
    if (clean === true && this.#left !== undefined) planner.add(Owner.stale, this.#left.rest(), NOTHING, false)
    return planner.finish()
  }

  #settle(scope: ReadonlySet<Entry>, plan: Plan, done: Execution): void {
    const { failed, aborted } = done
    if (aborted || failed.size > 0) this.#known = false
    const isDone = (owner: number) => !aborted && !failed.has(owner)
    const shared = plan.after.get(Owner.shared)
    if (shared !== undefined && isDone(Owner.shared)) this.#shared = shared
    for (const entry of scope) {
      if (!isDone(entry.owner)) {
        entry.lack ??= FAILED
        continue
      }
      const after = plan.after.get(entry.owner)
      if (after !== undefined) entry.installed = after
      if (!entry.wanted) this.roster.forget(entry)
    }
  }

  #ownersOf(): Owners {
    const byOwner = new Map(this.roster.entries.map(({ owner, node }) => [owner, node]))
    return {
      belonging: this.#belonging,
      deriver: this.#deriver,
      sequences: this.#sequences,
      overlaps: this.#overlaps,
      algorithms: this.keyring.algorithms,
      node: (owner) => byOwner.get(owner),
      name: (owner) => byOwner.get(owner)?.name ?? names.get(owner)!,
    }
  }
}

function joined(one: Uint8Array, other: Uint8Array): Uint8Array {
  return new Uint8Array(Buffer.concat([one, other]))
}

/** Those first whose claim holds: what is in two nodes' places is theirs. */
function byClaim(entries: readonly Entry[]): Entry[] {
  return [...entries.filter(({ claimed }) => claimed), ...entries.filter(({ claimed }) => !claimed)]
}

/** The SAs that go, and may come back. */
function retiring({ phases }: Plan): Uint8Array[] {
  return phases.flatMap(({ name, records }) =>
    name === 'retire encryption' || name === 'retire decryption'
      ? startsOf(records).map((at) => recordAt(records, at))
      : [],
  )
}

function sum(first: Execution, then: Followed): Followed {
  const { operations, added, updated, removed } = then
  return {
    ...then,
    operations: first.operations + operations,
    added: first.added + added,
    updated: first.updated + updated,
    removed: first.removed + removed,
  }
}

const NOTHING: Uint8Array = new Uint8Array(0)
const NO_KEYS: ReadonlySet<number> = new Set()
const BOOTED = ', or remove() and upsert() the nodes that booted since: their SAs are of the boot before'
const UNNAMED =
  'by nodes that are not named, so that whose it is can not be told: upsert() them, or reconcile() if they are gone, or else'
const FAILED = 'the kernel refused something; reconcile() tries again'

const names: ReadonlyMap<number, string> = new Map([
  [Owner.shared, 'all nodes'],
  [Owner.stale, 'of no node'],
  [Owner.others, 'not ours'],
])
