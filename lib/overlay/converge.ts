import { setImmediate as breathe } from 'node:timers/promises'
import { Policy, RecordReader, State } from '../kernel/records.js'
import { carryOut, type Execution, type ExecutionOptions, nothingDone } from './executor.js'
import type { FirewallState } from './firewall.js'
import { Keyring } from './keyring.js'
import { Networks } from './networks.js'
import type { Settings } from './options.js'
import { PeerTable } from './peers.js'
import { type Damage, describe, type Is, type Plan, Planner, type RecordList, type Should, type Step } from './plan.js'
import type { Ports } from './ports.js'
import { SpiIndex } from './spi-index.js'
import { Survey } from './survey.js'
import { algorithms } from './writer.js'

/** Peers planned for, or looked at, between two turns of the event loop. */
const SLICE = 2048

/** What of the wish changed. */
export interface Change {
  /** Slots of the peers concerned; default: all. */
  readonly peers?: readonly number[]
  /** Networks to guard no more. */
  readonly unguard?: ReadonlySet<number>
}

/** What a look at the kernel came to: what is to be done, and with what. */
export interface Look {
  readonly should: Should
  readonly damage: Damage
  readonly firewall: FirewallState | undefined
  readonly plan: Plan
  readonly steps: Step[]
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
  readonly #settings: Settings
  readonly #ports: Ports
  readonly #is: Omit<Is, 'networks'> & { networks: ReadonlySet<number> }
  #keyring: Keyring
  #known = false
  /** The last look found something of ours that is nobody's. */
  #strangers = false

  constructor(settings: Settings, ports: Ports) {
    const { form } = settings
    this.#settings = settings
    this.#ports = ports
    this.networks = new Networks(ports.firewall)
    this.#keyring = Keyring.empty(form.suite)
    this.#is = {
      peers: new PeerTable(form.local.family),
      claims: new SpiIndex(),
      sharedPolicies: 0,
      networks: new Set(),
    }
  }

  get peers(): PeerTable {
    return this.#is.peers
  }

  get keyring(): Keyring {
    return this.#keyring
  }

  /** Turns to other keys. Those that went stay, retired, until no SA is left that bears them. */
  set keyring(next: Keyring) {
    this.#keyring = next
  }

  /** Makes the kernel follow a change of the wish. */
  async follow(change: Change, options: ExecutionOptions): Promise<Execution> {
    const { peers } = this.#is
    // Without peers keys concern nobody, and what an earlier process left must not be touched for their sake.
    if (change.peers === undefined && peers.size === 0) {
      this.#keyring = this.#keyring.forget(this.#keyring.retired)
      return nothingDone()
    }
    // Peers that are new may have what an earlier process left.
    const look = !this.#known || (this.#strangers && change.peers !== undefined && change.peers.length > 0)
    if (look) await this.networks.read()
    const should = this.#should(this.#guardedUnless(change.unguard))
    const damage = look ? this.#ofPeers(await this.#survey(should)) : {}
    const slots = look ? undefined : change.peers
    const plan = await this.#plan(should, damage, slots)
    return this.#carryOut({ plan, should, damage }, slots, options)
  }

  /** Looks at all of the kernel that is ours, and plans how it becomes what should be and nothing else. */
  async look(): Promise<Look> {
    const firewall = await this.networks.read()
    const should = this.#should(this.networks.wanted)
    const damage = await this.#survey(should)
    const plan = await this.#plan(should, damage)
    const steps = [...this.networks.repairs(firewall), ...describe(plan, this.#is, should, damage)]
    return { should, damage, firewall, plan, steps }
  }

  /** Does what a look found is to be done. Nothing may have happened since. */
  async repair(look: Look, options: ExecutionOptions): Promise<Execution> {
    const mended = await this.networks.mend(look.firewall)
    const done = await this.#carryOut(look, undefined, options)
    if (mended) done.updated++
    const refused = done.failures.length > look.plan.failures.length
    if (refused || done.aborted || this.networks.wanted.size > 0 || look.firewall?.exists !== true) return done
    // With nothing to guard, a table without networks goes too.
    done.failures.push(...(await this.networks.release([])))
    return done
  }

  /** Wants nothing any more. */
  clear(): void {
    const { peers } = this.#is
    for (const slot of peers.slots()) while (peers.drop(slot) > 0);
    this.networks.wanted.clear()
  }

  #should(networks: ReadonlySet<number>): Should {
    return { form: this.#settings.form, keyring: this.#keyring, networks }
  }

  /** The networks wanted, and those that an earlier process left. */
  #guardedUnless(unguard: ReadonlySet<number> | undefined): Set<number> {
    const networks = new Set(this.networks.wanted)
    for (const vni of this.networks.guarded) if (!unguard?.has(vni)) networks.add(vni)
    return networks
  }

  /** Reads what the kernel has of ours, makes `is` that, and returns what else was found. */
  async #survey(should: Should): Promise<Damage> {
    this.#known = false
    const { form, keyring } = should
    const query = { keys: keyring.sideTable(), algorithms: algorithms(form), reqid: form.mark, details: false }
    const [states, policies] = await Promise.all([
      this.#ports.xfrm.read({ ...query, policies: false }),
      this.#ports.xfrm.read({ ...query, policies: true }),
    ])
    for (const dump of [states, policies]) for (const key of dump.keys) key.fill(0)
    const survey = new Survey(states.records, policies.records, this.#is, should)
    while (!survey.step(SLICE)) await breathe()
    const damage = survey.finish()
    this.#known = true
    this.#strangers = (damage.stale?.states.at.length ?? 0) + (damage.stale?.policies.at.length ?? 0) > 0
    return damage
  }

  /** Without what is stale but of no peer wanted. */
  #ofPeers(damage: Damage): Damage {
    if (damage.stale === undefined) return damage
    const { peers } = this.#is
    const { bytes: local } = this.#settings.form.local
    const isPeers = (list: RecordList, start: number, offsetOf: (reader: RecordReader) => number): boolean => {
      const reader = new RecordReader(list.records.subarray(start))
      reader.next()
      peers.load(reader.buffer, offsetOf(reader))
      const slot = peers.find()
      return slot >= 0 && peers.references[slot]! > 0
    }
    const remote = (reader: RecordReader) =>
      Buffer.compare(reader.address(State.destination), local) === 0 ? State.source : State.destination
    const keep = (list: RecordList, offsetOf: (reader: RecordReader) => number): RecordList => ({
      records: list.records,
      at: Array.from(list.at).filter((start) => isPeers(list, start, offsetOf)),
    })
    const { states, policies } = damage.stale
    return { ...damage, stale: { states: keep(states, remote), policies: keep(policies, () => Policy.destination) } }
  }

  async #plan(should: Should, damage: Damage, peers?: readonly number[]): Promise<Plan> {
    this.#is.networks = this.networks.guarded
    const planner = new Planner(this.#is, should, { damage, ...(peers && { peers }) })
    while (!planner.step(SLICE)) await breathe()
    return planner.finish()
  }

  /** Guards first, then SAs and policies in the plan's order, and last of all the end of guards. */
  async #carryOut(
    { plan, should, damage }: Pick<Look, 'plan' | 'should' | 'damage'>,
    slots: readonly number[] | undefined,
    options: ExecutionOptions,
  ): Promise<Execution> {
    const { add, remove } = plan.networks
    const unguarded = await this.networks.guard(add, should.networks)
    if (unguarded.length > 0) return { ...nothingDone(), failures: unguarded }
    let done: Execution
    try {
      done = await carryOut(this.#ports.xfrm, plan, this.#is, should, damage, options)
    } catch (error) {
      this.#known = false
      throw error
    } finally {
      for (const slot of slots ?? this.#is.peers.slots()) this.#judge(slot)
    }
    done.added += add.length
    // What the plan itself found impossible is known, and stands in the way of nothing else.
    const refused = done.failures.length > plan.failures.length
    if (refused) this.#known = false
    this.#forgetKeys()
    if (refused || done.aborted || remove.length === 0) return done
    const guarded = await this.networks.release(remove)
    done.failures.push(...guarded)
    if (guarded.length === 0) done.removed += remove.length
    return done
  }

  /** Says whether a peer lacks anything, and lets go of one of which nothing is wanted or left. */
  #judge(slot: number): void {
    const { peers } = this.#is
    if (peers.isGone(slot)) {
      peers.release(slot)
      return
    }
    const { all, primary } = this.#keyring
    const wanted = peers.references[slot]! > 0
    const encrypt = primary < 0 ? 0 : (1 << primary) >>> 0
    const select = this.#settings.form.policies === 'per-peer' ? primary + 1 : 0
    const right = peers.inbound[slot] === all && peers.outbound[slot] === encrypt && peers.policy[slot] === select
    peers.degraded[slot] = wanted && right ? 0 : 1
  }

  /** Lets go of the retired keys that no SA bears any more. */
  #forgetKeys(): void {
    const { retired } = this.#keyring
    if (retired === 0 || !this.#known) return
    this.#keyring = this.#keyring.forget(retired & ~this.#is.peers.keysInUse())
  }
}
