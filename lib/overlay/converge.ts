import { NetlinkError, XfrmeshError } from '../base/errors.js'
import { Pace } from '../base/pace.js'
import { startsOf } from '../kernel/record-identity.js'
import { carryOut, type Execution, type ExecutionOptions, nothingDone } from './executor.js'
import type { FirewallState } from './firewall.js'
import { sharedPolicies } from './form.js'
import { Keyring } from './keyring.js'
import { Leftovers } from './leftovers.js'
import { type Learned, learn } from './mappings.js'
import { isBroken, NETWORK, Networks } from './networks.js'
import type { Settings } from './options.js'
import { PeerTable } from './peers.js'
import { describe, type Step } from './describe.js'
import { NO_PEER } from './ops.js'
import { type Plan, Planner, type PlanFailure, type Scope } from './plan.js'
import type { Damage, Is, Should } from './state.js'
import type { Ports } from './ports.js'
import { SpiIndex } from './spi-index.js'
import { Survey } from './survey.js'
import { VniSet } from './vni-set.js'
import { algorithms, OpWriter } from './writer.js'

/** Peers planned for, or objects looked at, between two looks at the clock. */
const STEPS = 64

/** Slots of the peers whose wish changed, none for networks alone; 'keys': all, for other keys. */
export type Change = readonly number[] | 'keys'

/** What a look at the kernel came to: what is to be done, and with what. */
export interface Look {
  readonly should: Should
  readonly damage: Damage
  readonly firewall: FirewallState | undefined
  readonly plan: Plan
}

/** Records of the SAs and policies of ours that the kernel has. */
interface Found {
  readonly states: Uint8Array
  readonly policies: Uint8Array
}

/**
 * The one mechanism: knows what should be and what is, and makes the one the other. One caller at a time.
 *
 * What is, is what was last committed; or, at first, and after anything whose end is not known, what a look at the kernel
 * shows. What that finds of ours and of nobody known is left alone until a reconciliation: it may be what an earlier
 * process made for peers and networks that are about to be added again.
 */
export class Convergence {
  readonly networks: Networks
  /** The keys wanted. Those that went stay in it, retired, until no SA is left that bears them. */
  keyring: Keyring
  readonly #settings: Settings
  readonly #ports: Ports
  readonly #is: Omit<Is, 'networks'> & { networks: VniSet }
  #known = false
  /** What the last look found that was nobody's. */
  #leftovers: Leftovers | undefined
  /** The keys that the records of the last look name by index: with others, they say nothing. */
  #surveyed: Keyring | undefined

  constructor(settings: Settings, ports: Ports) {
    const { form } = settings
    this.#settings = settings
    // Made here, so that the first change need not wait for it.
    OpWriter.of(form)
    this.#ports = ports
    this.networks = new Networks(ports.firewall)
    this.keyring = Keyring.empty(form.suite)
    this.#is = {
      peers: new PeerTable(form.local.family),
      claims: new SpiIndex(),
      sharedPolicies: 0,
      networks: VniSet.none,
    }
  }

  get peers(): PeerTable {
    return this.#is.peers
  }

  /** Whether the policies that are not a peer's own are known to be there. */
  get isUnderPolicies(): boolean {
    const all = sharedPolicies(this.#settings.form)
    return this.#known && (this.#is.sharedPolicies & all) === all
  }

  /** Whether nothing of a network can leave in the clear, as far as is known. */
  isEncrypted(vni: number): boolean {
    const { form } = this.#settings
    if (!form.exclusive) return this.networks.isGuarded(vni)
    const all = sharedPolicies(form)
    return (this.#is.sharedPolicies & all) === all
  }

  /** What is not as it should be, as far as that is known without a look, a sentence each. */
  lacks(): string[] {
    const { peers } = this.#is
    const lacking: string[] = []
    const isWanted = peers.wanted > 0 || this.networks.wanted.size > 0
    if (!this.#known && (isWanted || peers.size > 0))
      lacking.push('a call failed, and what the kernel has is not known')
    else if (isWanted && !this.isUnderPolicies) lacking.push('policies are missing')
    if (peers.size > peers.wanted) lacking.push(`${peers.size - peers.wanted} removed peers are not all gone`)
    if (this.networks.releasing > 0) lacking.push(`${this.networks.releasing} removed networks are still guarded`)
    return lacking
  }

  /** Makes the kernel follow a change of the wish. Failures are those that concern it. */
  async follow(change: Change, options: ExecutionOptions): Promise<Execution> {
    const { peers } = this.#is
    // Without peers keys concern nobody, and what an earlier process left must not be touched for their sake.
    if (change === 'keys' && peers.size === 0) {
      this.keyring = this.keyring.forget(this.keyring.retired)
      return nothingDone()
    }
    const look = !this.#known || this.#needsLook(change)
    const slots = look || change === 'keys' ? undefined : change
    let found: Found | undefined
    // SAs and policies are looked at beside what takes longest: the change of the guard or, without one, its reading.
    if (look && this.networks.change().add.size > 0) await this.networks.read()
    else if (look) [, found] = await both(this.networks.read(), this.#read())
    const networks = this.networks.change()
    const should = this.#should(this.networks.kept())
    // Guards come first. What follows is planned meanwhile.
    const guarded = this.networks.guard(networks.add)
    // Until it is awaited, a rejection is not unhandled.
    guarded.catch(() => undefined)
    try {
      if (look) found ??= await this.#read()
      const damage = found ? await this.#lookForPeers(found, should) : await this.#adopt(should, change)
      const plan = await this.#plan(should, damage, { networks, ...(slots && { peers: slots }) })
      const done = await this.#carryOut({ plan, should, damage, guarded }, { slots, looked: look }, options)
      done.failures = concerning(change, done.failures)
      return done
    } catch (error) {
      this.#known = false
      // Its outcome changes what is known, and nothing may do so in a later call. What it threw comes first.
      const refusals = concerning(change, await guarded)
      if (refusals.length === 0 || !(error instanceof XfrmeshError)) throw error
      return { ...nothingDone(), failures: [...refusals, failureOf(error)] }
    }
  }

  /** Takes in what the kernel told of its SAs in UDP. What peers should be is other then, to be followed. */
  learn(records: Uint8Array): Learned {
    return learn(records, this.#is, this.#settings.form)
  }

  /** Looks at all of the kernel that is ours, and plans how it becomes what should be and nothing else. */
  async look(): Promise<Look> {
    const [firewall, found] = await both(this.networks.read(), this.#read())
    const should = this.#should(this.networks.wanted)
    const damage = await this.#survey(found, should)
    const plan = await this.#plan(should, damage)
    return { should, damage, firewall, plan }
  }

  /** The steps that a repair would take, in order. */
  async steps({ plan, should, damage, firewall }: Look): Promise<Step[]> {
    const steps = this.networks.repairs(firewall)
    const pace = new Pace()
    for (const step of describe(plan, this.#is, should, damage)) {
      steps.push(step)
      if (pace.isDue) await pace.breathe()
    }
    return steps
  }

  /** Does what a look found is to be done. Nothing may have happened since. */
  async repair(look: Look, options: ExecutionOptions): Promise<Execution> {
    const isLeft = this.networks.isLeft(look.firewall)
    const broken = isBroken(look.firewall) ? await this.networks.mend(look.firewall) : []
    const done = await this.#carryOut(look, { looked: true, whole: true }, options)
    done.failures.unshift(...broken)
    if (isBroken(look.firewall) && broken.length === 0) done.updated++
    this.#leftovers = undefined
    if (!isLeft || done.aborted || done.failures.length > 0) return done
    const left = await this.#release(VniSet.none)
    for (const failure of left) done.failures.push(failure)
    if (left.length === 0) done.removed++
    return done
  }

  /** Wants nothing any more. */
  clear(): void {
    this.#is.peers.dropAll()
    this.networks.clear()
  }

  /** Whether peers may have something left by an earlier process that the last look saw under other keys than ours. */
  #needsLook(change: Change): boolean {
    const mayHave = change !== 'keys' && change.length > 0 && this.#leftovers?.isEmpty === false
    return mayHave && this.#surveyed !== this.keyring
  }

  #should(networks: VniSet): Should {
    return { form: this.#settings.form, keyring: this.keyring, networks }
  }

  /** Makes `is` what the kernel has of ours, and returns what else was found. */
  async #survey({ states, policies }: Found, should: Should): Promise<Damage> {
    this.#known = false
    const survey = new Survey(states, policies, this.#is, should)
    await inTurns(() => survey.step(STEPS))
    this.#surveyed = should.keyring
    this.#known = true
    return survey.finish()
  }

  /** Reads the SAs and policies of ours that the kernel has. */
  async #read(): Promise<Found> {
    const { form } = this.#settings
    const query = { keys: this.keyring.sideTable(), algorithms: algorithms(form), reqid: form.mark, details: false }
    const read = async (policies: boolean) => {
      const dump = await this.#ports.xfrm.read({ ...query, policies })
      for (const key of dump.keys) key.fill(0)
      return dump.records
    }
    const [states, policies] = await both(read(false), read(true))
    return { states, policies }
  }

  /** A look that keeps what is nobody's for later, but for what is stale of the peers wanted. */
  async #lookForPeers(found: Found, should: Should): Promise<Damage> {
    const damage = await this.#survey(found, should)
    const { stale } = damage
    if (stale === undefined) return damage
    this.#leftovers = await Leftovers.sort(stale.states, stale.policies, this.#settings.form.local.bytes)
    const { peers } = this.#is
    const wanted = [...peers.slots()].filter((slot) => peers.references[slot]! > 0)
    return { ...damage, stale: listsOf(this.#leftovers.take(peers.bytes, wanted)) }
  }

  /** For peers just added: makes `is` what an earlier process left of theirs, and returns what of that is not right. */
  async #adopt(should: Should, change: Change): Promise<Damage> {
    if (change === 'keys' || this.#leftovers === undefined || this.#leftovers.isEmpty) return {}
    const { peers } = this.#is
    const fresh = change.filter((slot) => peers.references[slot]! > 0)
    const found = this.#leftovers.take(peers.bytes, fresh)
    if (found === undefined) return {}
    const survey = new Survey(found.states, found.policies, this.#is, should, fresh)
    await inTurns(() => survey.step(STEPS))
    return survey.finish()
  }

  async #plan(should: Should, damage: Damage, scope: Scope = {}): Promise<Plan> {
    this.#is.networks = this.networks.guarded
    const planner = new Planner(this.#is, should, { ...scope, damage })
    await inTurns(() => planner.step(STEPS))
    return planner.finish()
  }

  /** Guards first, then SAs and policies in the plan's order, and last of all the end of guards. */
  async #carryOut(
    { plan, should, damage, guarded }: Pick<Look, 'plan' | 'should' | 'damage'> & { guarded?: Promise<PlanFailure[]> },
    how: { slots?: readonly number[] | undefined; looked: boolean; whole?: boolean },
    options: ExecutionOptions,
  ): Promise<Execution> {
    const { add, remove } = plan.networks
    let done: Execution
    let unguarded
    try {
      unguarded = await (guarded ?? this.networks.guard(add))
      done = await carryOut(this.#ports.xfrm, plan, this.#is, should, damage, options)
    } catch (error) {
      this.#known = false
      throw error
    } finally {
      await this.#judge(how.slots ?? this.#is.peers.slots())
    }
    // What is refused right after a look leaves nothing unknown, but for what differed; nor does what the plan itself
    // found impossible.
    const refused = done.failures.length > plan.failures.length
    const differed = (damage.states?.size ?? 0) + (damage.sharedPolicies ?? 0) > 0
    if ((refused && (!how.looked || differed)) || unguarded.length > 0) this.#known = false
    this.#forgetKeys()
    done.failures.unshift(...unguarded)
    if (unguarded.length === 0) done.added += add.size
    const hold = how.whole === true ? refused : done.failed.has(NO_PEER)
    if (hold || done.aborted || remove.size === 0) return done
    const released = await this.#release(remove)
    for (const failure of released) done.failures.push(failure)
    if (released.length === 0) done.removed += remove.size
    return done
  }

  /** What is guarded is not known after a failure. */
  async #release(remove: VniSet): Promise<PlanFailure[]> {
    const known = this.#known
    this.#known = false
    const failures = await this.networks.release(remove)
    this.#known = known && failures.length === 0
    return failures
  }

  /** Says of peers whether they lack anything, and lets go of those of which nothing is wanted or left. */
  async #judge(slots: Iterable<number>): Promise<void> {
    const { peers } = this.#is
    const { all, primary } = this.keyring
    const encrypt = primary < 0 ? 0 : (1 << primary) >>> 0
    const select = this.#settings.form.policies === 'per-peer' ? primary + 1 : 0
    const pace = new Pace()
    for (const slot of slots) {
      if (pace.isDue) await pace.breathe()
      if (peers.isGone(slot)) {
        peers.release(slot)
        continue
      }
      const right = peers.inbound[slot] === all && peers.outbound[slot] === encrypt && peers.policy[slot] === select
      const turned = peers.outbound[slot] !== 0 && peers.installedPort[slot] !== peers.port[slot]
      peers.degraded[slot] = peers.references[slot]! > 0 && right && !turned ? 0 : 1
    }
  }

  /** Lets go of the retired keys that no SA bears any more. */
  #forgetKeys(): void {
    const { retired } = this.keyring
    if (retired === 0 || !this.#known) return
    this.keyring = this.keyring.forget(retired & ~this.#is.peers.keysInUse())
  }
}

/** What kept all that was to follow a guard from being looked at, or done. */
function failureOf(error: XfrmeshError): PlanFailure {
  const { code, message } = error
  const errno = error instanceof NetlinkError ? error.errno : 0
  return { peer: NO_PEER, subject: 'SAs and policies', operation: 'look or change', errno, code, message }
}

/** Of what failed, what has to do with the change: others' failures show in their state. */
function concerning(change: Change, failures: Execution['failures']): Execution['failures'] {
  if (failures.length === 0) return failures
  if (change === 'keys') return failures.filter(({ peer }) => peer !== NETWORK)
  const slots = new Set(change)
  return failures.filter(({ peer }) => peer === NO_PEER || (change.length === 0 ? peer === NETWORK : slots.has(peer)))
}

/** Waits for both, whatever comes of them: what is read changes what is known, and nothing may do so in a later call. */
async function both<A, B>(one: Promise<A>, other: Promise<B>): Promise<[A, B]> {
  await Promise.allSettled([one, other])
  return [await one, await other]
}

/** All of some records, as a list. */
function listsOf(found: Found | undefined): NonNullable<Damage['stale']> {
  const nothing = new Uint8Array(0)
  const list = (records: Uint8Array) => ({ records, at: startsOf(records) })
  return { states: list(found?.states ?? nothing), policies: list(found?.policies ?? nothing) }
}

/** Takes steps until one says that it was the last, and lets the event loop turn between them. */
async function inTurns(step: () => boolean): Promise<void> {
  const pace = new Pace(1)
  while (!step()) if (pace.isDue) await pace.breathe()
}
