import { setImmediate as breathe } from 'node:timers/promises'
import { ADDRESS_BYTES, AF_INET, parseAddress, unusable, whyNot } from '../base/address.js'
import { array, boolean, integer, options as checkOptions } from '../base/check.js'
import {
  Aborted,
  type Failure,
  InvalidArgument,
  InvalidState,
  NetlinkError,
  PartialFailure,
  type Report,
  Unsupported,
  XfrmeshError,
} from '../base/errors.js'
import { errnoText } from '../kernel/channel.js'
import { Nft } from '../kernel/nft.js'
import { Policy, RecordReader, State } from '../kernel/records.js'
import { XfrmChannel } from '../kernel/xfrm-channel.js'
import { carryOut, type Execution, type ExecutionOptions } from './executor.js'
import { Firewall, type FirewallState, LAST_VNI } from './firewall.js'
import { Keyring, type KeyInput, type KeyUpdate } from './keyring.js'
import { type OverlayOptions, type Settings, settings } from './options.js'
import { PeerTable } from './peers.js'
import { type Damage, describe, type Is, type Plan, Planner, type RecordList, type Should, type Step } from './plan.js'
import { probe } from './probe.js'
import { SpiIndex } from './spi-index.js'
import { Survey } from './survey.js'
import { algorithms } from './writer.js'

/** Peers planned for, or looked at, between two turns of the event loop. */
const SLICE = 2048

/** What a call may be given beside its subject. */
export interface CallOptions {
  /** Ends the call between two sends to the kernel; it rejects with Aborted, whose report says what was applied. */
  signal?: AbortSignal
  /** Called as the kernel answers. */
  onProgress?: (progress: Progress) => void
}

export interface Progress {
  /** Netlink operations the kernel has answered, and all that this call takes. */
  done: number
  total: number
}

/** What `reconcile()` changed, or would change: numbers of SAs, policies and networks, and the steps in order. */
export interface Reconciliation {
  added: number
  updated: number
  removed: number
  plan: Step[]
}

/** One peer, as it is now. */
export interface PeerStatus {
  readonly address: string
  /** How often it was added and not removed. */
  readonly references: number
  /** 'degraded': the kernel refused some of what it should have; `reconcile()`, or adding it again, completes it. */
  readonly state: 'active' | 'degraded'
  /** SPIs under each key, the primary first: `forward` of the SA to the peer, `reverse` of the one from it. */
  readonly spis: readonly { readonly tag: number; readonly forward: number; readonly reverse: number }[]
}

/** The peers that are wanted. A view: it shows what is at the time it is asked. */
export interface Peers extends Iterable<PeerStatus> {
  readonly size: number
  get(address: string): PeerStatus | undefined
}

/** Plain JSON: no key, but tags. */
export interface OverlayStatus {
  local: string
  advertise: string
  port: number
  mark: number
  suite: string
  policies: 'shared' | 'per-peer'
  exclusive: boolean
  /** Tags, the primary first. */
  keys: number[]
  peers: { wanted: number; active: number; degraded: string[] }
  networks: number[]
  firewall: {
    kind: 'nftables' | 'none'
    /** Whether the kernel's table is as it should be, for all networks; null without one to have. */
    intact: boolean | null
    differences: string[]
  }
  /** Packets of encrypted networks dropped in the clear, since the table was made. */
  drops: { in: number; out: number }
  /** What is not as it should be, a sentence each; empty if all is well. */
  degraded: string[]
}

/**
 * The encryption of a VXLAN overlay on one node: the networks that are encrypted, the keys, the peers, and what the
 * kernel has of them. One Overlay a network namespace and mark; a lock holds others off for as long as it is open.
 *
 * Calls may overlap: they run in the order made. Each leaves the kernel such that nothing of an encrypted network leaves
 * or enters in the clear, whether it succeeds, fails or is never finished.
 */
export class Overlay implements AsyncDisposable {
  readonly peers: Peers
  readonly #settings: Settings
  readonly #xfrm: XfrmChannel
  readonly #nft: Nft | undefined
  readonly #firewall: Firewall | undefined
  readonly #is: Is & { networks: Set<number> }
  readonly #wanted = new Set<number>()
  #keyring: Keyring
  /** Whether `is` is what the kernel has. Not at first, nor after a call whose end is not known. */
  #known = false
  /** What the last look found that is nobody's: peers added later may find their own there. */
  #strangers = false
  #probed = false
  #queue: Promise<unknown> = Promise.resolve()
  #closed: Promise<void> | undefined

  private constructor(given: Settings, xfrm: XfrmChannel, nft: Nft | undefined) {
    const { form } = given
    this.#settings = given
    this.#xfrm = xfrm
    this.#nft = nft
    this.#firewall = nft && new Firewall({ nft, mark: form.mark, port: form.port })
    this.#keyring = Keyring.empty(form.suite)
    this.#is = { peers: new PeerTable(form.local.family), claims: new SpiIndex(), sharedPolicies: 0, networks: new Set() }
    this.peers = new PeersView(this.#is.peers, (slot) => this.#peerStatus(slot))
  }

  /**
   * Opens the overlay's sockets and takes its lock. Changes nothing: what an earlier process left stays, and is taken over
   * as networks, keys and peers are added again; what nobody asks for is removed by `reconcile()`.
   *
   * @throws InvalidArgument; Unsupported; XfrmeshError ERR_XFRMESH_LOCKED if another has this namespace and mark
   */
  static async open(options: OverlayOptions): Promise<Overlay> {
    const given = settings(options)
    const { netns, timeoutMs, form } = given
    const xfrm = await XfrmChannel.open({ netns, timeoutMs })
    try {
      const holder = await xfrm.lock(`xfrmesh/${form.mark.toString(16)}`)
      if (holder !== undefined) throw lockedError(form.mark, holder)
      const nft = given.firewall === 'nftables' ? await Nft.open({ timeoutMs, ...(netns !== undefined && { netns }) }) : undefined
      return new Overlay(given, xfrm, nft)
    } catch (error) {
      await xfrm.close()
      throw error
    }
  }

  /** VNIs of the networks that are encrypted: of those added, not of those that an earlier process left. */
  get networks(): ReadonlySet<number> {
    return this.#wanted
  }

  /**
   * Encrypts networks from here on: without an SA of ours nothing of them leaves or enters this namespace. Needs no key,
   * no peer, and no ESP in the kernel.
   *
   * @param vnis integers from 0 to 2^24 - 1
   * @throws InvalidArgument; Unsupported; PartialFailure
   */
  addNetworks(vnis: Iterable<number>, options?: CallOptions): Promise<Report> {
    return this.#call('addNetworks', options, async (call) => {
      const list = checkVnis(vnis)
      const fresh = new Set(list.filter((vni) => !this.#wanted.has(vni)))
      for (const vni of fresh) this.#wanted.add(vni)
      try {
        return await this.#change(call, list.length, fresh.size, { peers: [] })
      } catch (error) {
        if (error instanceof Unsupported) for (const vni of fresh) this.#wanted.delete(vni)
        throw error
      }
    })
  }

  /** Ends the encryption of networks: take down their links first, for what they send afterwards leaves in the clear. */
  removeNetworks(vnis: Iterable<number>, options?: CallOptions): Promise<Report> {
    return this.#call('removeNetworks', options, async (call) => {
      const list = checkVnis(vnis)
      const gone = new Set(list.filter((vni) => this.#wanted.delete(vni)))
      return this.#change(call, list.length, gone.size, { peers: [], unguard: gone })
    })
  }

  /**
   * These keys and no others. The first is primary: it encrypts, all decrypt. From any state: peers are kept, and so are,
   * without a break, keys that are there already.
   *
   * @throws InvalidArgument; PartialFailure
   */
  setKeys(keys: readonly KeyInput[], options?: CallOptions): Promise<Report> {
    return this.#call('setKeys', options, (call) => this.#turn(call, this.#keyring.set(keys), keys.length))
  }

  /**
   * Adds a key, makes one primary, prunes one, in any combination and in an order that loses no packet: every peer
   * decrypts with the new key before it is used, and the old goes last.
   *
   * @throws InvalidArgument; InvalidState before `setKeys()`; PartialFailure
   */
  updateKeys(change: KeyUpdate, options?: CallOptions): Promise<Report> {
    return this.#call('updateKeys', options, (call) => {
      const next = this.#keyring.update(change)
      const requested = [change.add, change.primary, change.prune].filter((part) => part !== undefined).length
      return this.#turn(call, next, requested)
    })
  }

  /**
   * Adds peers, or one reference more to those that are there: as many removals as additions take a peer away. Adding a
   * degraded peer again tries it again.
   *
   * @param addresses of this overlay's family, as peers advertise them; no unspecified, multicast, broadcast, loopback,
   *   link-local or own ones
   * @throws InvalidArgument; InvalidState before `setKeys()`; Unsupported where the kernel has no ESP: nothing has changed
   *   then; PartialFailure
   */
  addPeers(addresses: Iterable<string>, options?: CallOptions): Promise<Report> {
    return this.#call('addPeers', options, async (call) => {
      if (this.#keyring.size === 0) throw new InvalidState('addPeers: there are no keys yet: call setKeys() first', 'ERR_XFRMESH_NO_KEYS')
      const list = await this.#checkAddresses(addresses)
      await this.#probe()
      const { peers } = this.#is
      const slots: number[] = []
      for (let i = 0; i < list.count; i++) {
        peers.load(list.bytes, i * ADDRESS_BYTES)
        const slot = peers.insert()
        if (peers.retain(slot) === 1 || peers.degraded[slot] === 1) slots.push(slot)
        if (i % SLICE === SLICE - 1) await breathe()
      }
      // A degraded peer may have come several times.
      const changed = [...new Set(slots)]
      return this.#change(call, list.count, changed.length, { peers: changed })
    })
  }

  /** Takes one reference from each peer, and the SAs from those that have none left. One that is not there is `unchanged`. */
  removePeers(addresses: Iterable<string>, options?: CallOptions): Promise<Report> {
    return this.#call('removePeers', options, async (call) => {
      const list = await this.#checkAddresses(addresses)
      const { peers } = this.#is
      const slots: number[] = []
      let applied = 0
      for (let i = 0; i < list.count; i++) {
        peers.load(list.bytes, i * ADDRESS_BYTES)
        const slot = peers.find()
        if (slot < 0) continue
        const before = peers.drop(slot)
        if (before > 0) applied++
        if (before === 1) slots.push(slot)
        if (i % SLICE === SLICE - 1) await breathe()
      }
      return this.#change(call, list.count, applied, { peers: slots })
    })
  }

  /**
   * Makes the kernel what it should be, whatever happened to it: reads all that is ours, and changes only what differs.
   * What bears our mark and nobody asked for goes last.
   *
   * @param options `dryRun`: only say what would be done
   * @throws PartialFailure
   */
  reconcile(options: CallOptions & { dryRun?: boolean } = {}): Promise<Reconciliation> {
    const { dryRun: given, ...callOptions } = checkOptions<CallOptions & { dryRun?: boolean }>(options, 'options', [
      'dryRun',
      'signal',
      'onProgress',
    ])
    const dryRun = boolean(given ?? false, 'options.dryRun')
    return this.#call('reconcile', callOptions, async (call) => {
      const should = this.#should(this.#wanted)
      const firewall = await this.#readFirewall()
      const damage = await this.#look(should)
      const plan = await this.#plan(should, { damage })
      const steps = [...describe(plan, this.#is, should, damage), ...repairs(firewall, this.#wanted)]
      if (dryRun) {
        this.#known = false
        return { ...countSteps(steps), plan: steps }
      }
      const mended = await this.#mendFirewall(firewall)
      const done = await this.#carryOut(call, { plan, should, damage, whole: true })
      await this.#settleKeys()
      this.#throwFailures(call, done, { requested: steps.length, applied: done.operations + mended, peers: undefined })
      return {
        added: done.added + plan.networks.add.length,
        updated: done.updated + mended,
        removed: done.removed + plan.networks.remove.length,
        plan: steps,
      }
    })
  }

  /** How it stands, as plain JSON. Reads the firewall, and only that, from the kernel. */
  status(): Promise<OverlayStatus> {
    return this.#call('status', undefined, async () => {
      const { form, advertise, firewall: kind } = this.#settings
      const { peers } = this.#is
      const firewall = await this.#readFirewall()
      const broken: string[] = []
      const degraded: string[] = []
      for (const slot of peers.slots()) if (peers.degraded[slot] === 1 && peers.references[slot]! > 0) degraded.push(peers.text(slot))
      if (degraded.length > 0) broken.push(`${degraded.length} peers lack SAs or policies; reconcile() tries them again`)
      const differences = firewall === undefined ? [] : guardDifferences(firewall, this.#wanted)
      broken.push(...differences.map((said) => `firewall: ${said}; reconcile() mends it`))
      return {
        local: form.local.text,
        advertise,
        port: form.port,
        mark: form.mark,
        suite: form.suite.name,
        policies: form.policies,
        exclusive: form.exclusive,
        keys: this.#keyring.tags,
        peers: { wanted: peers.wanted, active: peers.wanted - degraded.length, degraded },
        networks: [...this.#wanted].sort((a, b) => a - b),
        firewall: {
          kind,
          intact: firewall === undefined || (this.#wanted.size === 0 && !firewall.exists) ? null : differences.length === 0,
          differences,
        },
        drops: firewall?.drops ?? { in: 0, out: 0 },
        degraded: broken,
      }
    })
  }

  /**
   * Closes the sockets, once the calls made before are done, and gives up the lock. What is in the kernel stays there and
   * goes on to work, unless `flush` asks for all that is ours to go: SAs first, then policies, the firewall last.
   */
  close(options: { flush?: boolean } = {}): Promise<void> {
    const { flush } = checkOptions<{ flush?: boolean }>(options, 'options', ['flush'])
    boolean(flush ?? false, 'options.flush')
    if (this.#closed) return this.#closed
    const flushed = flush === true ? this.#call('close', undefined, (call) => this.#flush(call)) : this.#queue.catch(() => undefined)
    this.#closed = flushed.then(
      () => this.#release(),
      async (error: unknown) => {
        await this.#release()
        throw error
      },
    ) as Promise<void>
    return this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #release(): Promise<void> {
    await Promise.all([this.#xfrm.close(), this.#nft?.close()])
    this.#keyring.forget(this.#keyring.all)
  }

  async #flush(call: Call): Promise<void> {
    const { peers } = this.#is
    for (const slot of peers.slots()) while (peers.drop(slot) > 0);
    this.#wanted.clear()
    const should = this.#should(this.#wanted)
    const damage = await this.#look(should)
    const plan = await this.#plan(should, { damage })
    const done = await this.#carryOut(call, { plan, should, damage, whole: true })
    this.#throwFailures(call, done, { requested: plan.operations, applied: done.operations, peers: undefined })
  }

  /** Puts a call in line. Its arguments may be checked before its turn comes: what it throws, it throws through the promise. */
  #call<T>(name: string, options: CallOptions | undefined, work: (call: Call) => Promise<T>): Promise<T> {
    if (this.#closed) {
      return Promise.reject(new InvalidState(`${name}: the overlay is closed`, 'ERR_XFRMESH_CLOSED'))
    }
    const { signal, onProgress } = checkOptions<CallOptions>(options ?? {}, 'options', ['signal', 'onProgress'])
    if (signal !== undefined && !(signal instanceof AbortSignal)) throw new InvalidArgument('options.signal', 'an AbortSignal')
    const run = async (): Promise<T> => {
      const call = { name, signal, onProgress, started: performance.now() }
      if (signal?.aborted) throw abortedError(call, undefined)
      return work(call)
    }
    const result = this.#queue.then(run, run)
    this.#queue = result.catch(() => undefined)
    return result
  }

  /** Turns to another keyring. Keys that went stay in it, retired, until no SA is left that bears them. */
  async #turn(call: Call, next: Keyring, requested: number): Promise<Report> {
    const before = this.#keyring
    const order = (ring: Keyring) => ring.tags.join()
    this.#keyring = next
    const unchanged = order(before) === order(next) ? requested : before.tags.filter((tag) => next.find(tag) >= 0).length
    const applied = call.name === 'setKeys' ? requested - Math.min(unchanged, requested) : order(before) === order(next) ? 0 : requested
    return this.#change(call, requested, applied, {})
  }

  /**
   * Plans and carries out what changed. In the report, of what was asked, `changes` is what took doing.
   *
   * `peers`: those to plan for, default all. `unguard`: networks that are encrypted no more.
   */
  async #change(
    call: Call,
    requested: number,
    changes: number,
    what: { peers?: readonly number[]; unguard?: ReadonlySet<number> },
  ): Promise<Report> {
    const firstPeers = what.peers !== undefined && what.peers.length > 0 && this.#strangers
    const fresh = !this.#known || firstPeers
    const nothing = what.peers?.length === 0 && what.unguard === undefined && call.name !== 'addNetworks'
    // Without peers keys concern nobody. What an earlier process left must not be touched for their sake.
    if (what.peers === undefined && this.#is.peers.size === 0) {
      this.#keyring = this.#keyring.forget(this.#keyring.retired)
      return this.#report(call, requested, changes, [], 0)
    }
    if (nothing || (call.name === 'addNetworks' && changes === 0)) return this.#report(call, requested, changes, [], 0)

    const networks = await this.#guardedNetworks(what.unguard)
    const should = this.#should(networks)
    const damage = fresh ? this.#ofPeers(await this.#look(should)) : {}
    const slots = fresh ? undefined : what.peers
    const plan = await this.#plan(should, { damage, ...(slots && { peers: slots }) })
    const done = await this.#carryOut(call, { plan, should, damage, slots })
    await this.#settleKeys()
    const report = this.#throwFailures(call, done, { requested, applied: changes, peers: what.peers })
    return report
  }

  #should(networks: ReadonlySet<number>): Should {
    return { form: this.#settings.form, keyring: this.#keyring, networks }
  }

  /**
   * The networks to guard: those wanted, and those that an earlier process left, until `reconcile()`: they may be a
   * daemon's that has just started again and is about to add them.
   */
  async #guardedNetworks(unguard: ReadonlySet<number> | undefined): Promise<Set<number>> {
    if (!this.#known) this.#is.networks = (await this.#readFirewall())?.networks ?? new Set()
    const networks = new Set(this.#wanted)
    for (const vni of this.#is.networks) if (!unguard?.has(vni)) networks.add(vni)
    return networks
  }

  /** Reads what the kernel has of ours, makes `is` that, and returns what else was found. */
  async #look(should: Should): Promise<Damage> {
    const { form, keyring } = should
    this.#known = false
    const query = { keys: keyring.sideTable(), algorithms: algorithms(form), reqid: form.mark, details: false }
    const [states, policies] = await Promise.all([
      this.#xfrm.read({ ...query, policies: false }),
      this.#xfrm.read({ ...query, policies: true }),
    ])
    const survey = new Survey(states.records, policies.records, this.#is, should)
    while (!survey.step(SLICE)) await breathe()
    for (const dump of [states, policies]) for (const key of dump.keys) key.fill(0)
    this.#is.networks = (await this.#readFirewall())?.networks ?? new Set()
    const damage = survey.finish()
    this.#known = true
    const { stale } = damage
    this.#strangers = stale !== undefined && stale.states.at.length + stale.policies.at.length > 0
    return damage
  }

  /** Without what is stale but of no peer wanted: it may be a peer's that is about to be added again. */
  #ofPeers(damage: Damage): Damage {
    if (damage.stale === undefined) return damage
    const { peers } = this.#is
    const { local } = this.#settings.form
    const keep = (list: RecordList, offsetOf: (reader: RecordReader) => number): RecordList => {
      const at = Array.from(list.at).filter((start) => {
        const reader = new RecordReader(list.records.subarray(start))
        reader.next()
        peers.load(reader.buffer, offsetOf(reader))
        const slot = peers.find()
        return slot >= 0 && peers.references[slot]! > 0
      })
      return { records: list.records, at }
    }
    const { states, policies } = damage.stale
    return {
      ...damage,
      stale: {
        states: keep(states, (reader) =>
          Buffer.compare(reader.address(State.destination), local.bytes) === 0 ? State.source : State.destination,
        ),
        policies: keep(policies, () => Policy.destination),
      },
    }
  }

  async #plan(should: Should, scope: { damage: Damage; peers?: readonly number[] }): Promise<Plan> {
    const planner = new Planner(this.#is, should, scope)
    while (!planner.step(SLICE)) await breathe()
    return planner.finish()
  }

  /** Guards first, then SAs and policies in the plan's order, and only then ends guards. */
  async #carryOut(call: Call, made: Made): Promise<Execution> {
    const { plan, should, damage, slots } = made
    const { add, remove } = plan.networks
    const refused = await this.#guard(add, should.networks)
    if (refused !== undefined) return refused
    const { peers } = this.#is
    let done: Execution
    try {
      done = await carryOut(this.#xfrm, plan, this.#is, should, damage, executionOptions(call))
    } catch (error) {
      this.#known = false
      throw error
    }
    for (const slot of slots ?? peers.slots()) this.#judge(slot, should)
    if (done.failures.length > 0) this.#known = false
    const empty = made.whole === true && this.#wanted.size === 0
    if (done.aborted || done.failures.length > 0 || (remove.length === 0 && !empty)) return done
    done.failures.push(...(await this.#unguard(remove, empty)))
    return done
  }

  /** Sets or clears a peer's `degraded`, and releases its row if nothing is left of it. */
  #judge(slot: number, { form, keyring }: Should): void {
    const { peers } = this.#is
    if (peers.isGone(slot)) {
      peers.release(slot)
      return
    }
    const wanted = peers.references[slot]! > 0
    const encrypt = keyring.primary < 0 ? 0 : (1 << keyring.primary) >>> 0
    const select = form.policies === 'per-peer' ? keyring.primary + 1 : 0
    const right = wanted
      ? peers.inbound[slot] === keyring.all && peers.outbound[slot] === encrypt && peers.policy[slot] === select
      : false
    peers.degraded[slot] = right ? 0 : 1
  }

  /** Guards networks. What the kernel refuses is an Execution of failures; what it lacks is thrown. */
  async #guard(add: readonly number[], all: ReadonlySet<number>): Promise<Execution | undefined> {
    if (this.#firewall === undefined) {
      this.#is.networks = new Set([...this.#is.networks, ...add])
      return undefined
    }
    if (add.length === 0) return undefined
    try {
      // All of them: should another tool have emptied our set, this is the time to know.
      await this.#firewall.apply({ add: [...all] })
      this.#is.networks = new Set([...this.#is.networks, ...all])
      return undefined
    } catch (error) {
      return {
        ...nothingDone(),
        failures: networkFailures(add, 'guard network', error),
      }
    }
  }

  async #unguard(remove: readonly number[], empty: boolean): Promise<Failure[]> {
    try {
      await this.#firewall?.apply({ remove, removeEmpty: empty || this.#wanted.size === 0 })
    } catch (error) {
      return networkFailures(remove, 'end guarding network', error)
    }
    const left = new Set(this.#is.networks)
    for (const vni of remove) left.delete(vni)
    this.#is.networks = left
    return []
  }

  async #readFirewall(): Promise<FirewallState | undefined> {
    return this.#firewall?.read()
  }

  /** Rebuilds a table that was tampered with, at once and whole. Returns how many repairs that was. */
  async #mendFirewall(state: FirewallState | undefined): Promise<number> {
    if (state === undefined || !needsMending(state, this.#wanted)) return 0
    await this.#firewall!.restore([...new Set([...state.networks, ...this.#wanted])])
    this.#is.networks = new Set([...state.networks, ...this.#wanted])
    return 1
  }

  /** Lets go of the keys that no SA bears any more. */
  async #settleKeys(): Promise<void> {
    const { retired } = this.#keyring
    if (retired === 0) return
    await breathe()
    const used = this.#known ? this.#is.peers.keysInUse() : retired
    this.#keyring = this.#keyring.forget(retired & ~used)
  }

  /** The report of a call, thrown as PartialFailure or Aborted if it was not all done. */
  #throwFailures(
    call: Call,
    done: Execution,
    asked: { requested: number; applied: number; peers: readonly number[] | undefined },
  ): Report {
    const { failed, failures, operations } = done
    let { applied } = asked
    if (asked.peers !== undefined && asked.peers.length > 0) {
      const { peers } = this.#is
      const left = asked.peers.filter((slot) => failed.has(slot) || (peers.has(slot) && peers.degraded[slot] === 1))
      applied -= left.length
    } else if (failures.length > 0 || done.aborted) {
      applied = 0
    }
    const report = this.#report(call, asked.requested, applied, failures, operations, asked.requested - asked.applied)
    if (done.aborted) throw abortedError(call, report)
    if (failures.length > 0) throw new PartialFailure(report)
    return report
  }

  #report(
    call: Call,
    requested: number,
    applied: number,
    failures: Failure[],
    operations: number,
    unchanged = requested - applied,
  ): Report {
    return { requested, applied, unchanged, failures, operations, elapsedMs: performance.now() - call.started }
  }

  /** Packs addresses, refusing the whole if one can't be a peer. */
  async #checkAddresses(addresses: unknown): Promise<{ bytes: Uint8Array; count: number }> {
    const list = iterable(addresses, 'peers', "an array of addresses, as in ['192.0.2.1']")
    const { form, advertise } = this.#settings
    const { family, text: own } = form.local
    const bytes = new Uint8Array(list.length * ADDRESS_BYTES)
    for (let i = 0; i < list.length; i++) {
      const value = list[i]
      const at = i * ADDRESS_BYTES
      const found = typeof value === 'string' ? parseAddress(value, bytes, at) : 0
      const argument = `peers[${i}]`
      if (found === 0) throw new InvalidArgument(argument, whyNot(value), value)
      if (found !== family) {
        const name = family === AF_INET ? 'IPv4' : 'IPv6'
        throw new InvalidArgument(argument, `an ${name} address, as this overlay's local (${own}) is`, value)
      }
      const why = unusable(bytes, at, family)
      if (why !== undefined) throw new InvalidArgument(argument, `the address of a host; ${String(value)} is ${why}`)
      if (this.#isOwn(bytes, at)) {
        throw new InvalidArgument(argument, `another node's address; ${String(value)} is this node's own (${own}, known as ${advertise})`)
      }
      if (i % SLICE === SLICE - 1) await breathe()
    }
    return { bytes, count: list.length }
  }

  #isOwn(bytes: Uint8Array, at: number): boolean {
    const address = bytes.subarray(at, at + ADDRESS_BYTES)
    return Buffer.compare(address, this.#settings.form.local.bytes) === 0 || Buffer.compare(address, this.#settings.advertised) === 0
  }

  async #probe(): Promise<void> {
    if (this.#probed) return
    await probe(this.#xfrm, this.#settings.form)
    this.#probed = true
  }

  #peerStatus(slot: number): PeerStatus {
    const { peers } = this.#is
    const { spis } = this.#settings.form
    const at = slot * ADDRESS_BYTES
    return {
      address: peers.text(slot),
      references: peers.references[slot]!,
      state: peers.degraded[slot] === 1 ? 'degraded' : 'active',
      spis: this.#keyring.tags.map((tag) => ({
        tag,
        forward: spis.forward(tag, peers.bytes, at),
        reverse: spis.reverse(tag, peers.bytes, at),
      })),
    }
  }
}

/** A plan, and what it was made from. */
interface Made {
  readonly plan: Plan
  readonly should: Should
  readonly damage: Damage
  /** Slots of the peers that it was made for; default: all. */
  readonly slots?: readonly number[] | undefined
  /** Whether what nobody asked for goes too. */
  readonly whole?: boolean
}

/** A call in its turn. */
interface Call {
  readonly name: string
  readonly signal: AbortSignal | undefined
  readonly onProgress: ((progress: Progress) => void) | undefined
  readonly started: number
}

class PeersView implements Peers {
  readonly #table: PeerTable
  readonly #status: (slot: number) => PeerStatus

  constructor(table: PeerTable, status: (slot: number) => PeerStatus) {
    this.#table = table
    this.#status = status
  }

  get size(): number {
    return this.#table.wanted
  }

  get(address: string): PeerStatus | undefined {
    const slot = this.#table.lookup(address)
    return slot >= 0 && this.#table.references[slot]! > 0 ? this.#status(slot) : undefined
  }

  *[Symbol.iterator](): Generator<PeerStatus> {
    for (const slot of this.#table.slots()) if (this.#table.references[slot]! > 0) yield this.#status(slot)
  }
}

function executionOptions({ signal, onProgress }: Call): ExecutionOptions {
  return { signal, onProgress: onProgress && ((done, total) => onProgress({ done, total })) }
}

function nothingDone(): Execution {
  return { operations: 0, added: 0, updated: 0, removed: 0, failures: [], failed: new Set(), aborted: false }
}

function checkVnis(value: unknown): number[] {
  const list = iterable(value, 'networks', 'an array of VNIs, as in [4096]')
  return list.map((vni, i) => integer(vni, `networks[${i}]`, 0, LAST_VNI))
}

/** An iterable as an array; a string is one, and never what was meant. */
function iterable(value: unknown, argument: string, expected: string): readonly unknown[] {
  if (Array.isArray(value)) return array(value, argument)
  if (typeof value === 'object' && value !== null && Symbol.iterator in value) return [...(value as Iterable<unknown>)]
  throw new InvalidArgument(argument, expected, value)
}

/** What keeps the kernel's table from guarding just these networks. */
function guardDifferences(state: FirewallState, wanted: ReadonlySet<number>): string[] {
  if (wanted.size === 0) return state.exists && !state.intact ? state.differences : []
  const missing = [...wanted].filter((vni) => !state.networks.has(vni))
  if (missing.length === 0) return state.differences
  return [...state.differences, `${missing.length} networks are not in its set (${missing.slice(0, 3).join(', ')}${missing.length > 3 ? ', …' : ''})`]
}

function needsMending(state: FirewallState, wanted: ReadonlySet<number>): boolean {
  return !state.intact && (state.exists || wanted.size > 0)
}

/** The steps of mending the firewall, beside the networks that the plan adds and removes. */
function repairs(state: FirewallState | undefined, wanted: ReadonlySet<number>): Step[] {
  if (state === undefined || !needsMending(state, wanted) || !state.exists) return []
  return [{ phase: 'guard', operation: 'update firewall', subject: state.differences.join('; ') }]
}

function countSteps(steps: readonly Step[]): { added: number; updated: number; removed: number } {
  const count = (pattern: RegExp) => steps.filter(({ operation }) => pattern.test(operation)).length
  return { added: count(/^add /), updated: count(/^update /), removed: count(/^(delete|remove) /) }
}

function networkFailures(networks: readonly number[], operation: string, error: unknown): Failure[] {
  if (!(error instanceof NetlinkError)) throw error
  const [code] = errnoText(error.errno)
  return networks.map((vni) => ({ subject: `vni ${vni}`, operation, errno: error.errno, code, message: error.message }))
}

function abortedError(call: Call, report: Report | undefined): Aborted {
  const far = report === undefined ? 'before it began' : `after ${report.operations} operations; reconcile() completes it`
  return new Aborted(`${call.name}: aborted ${far}`, report, { cause: call.signal?.reason })
}

function lockedError(mark: number, { pid, uid }: { pid: number; uid: number }): XfrmeshError {
  const who = pid === 0 ? 'another process' : `process ${pid} (user ${uid})`
  return new XfrmeshError(
    'ERR_XFRMESH_LOCKED',
    `${who} holds mark 0x${mark.toString(16)} in this network namespace: close it first, or use another mark`,
  )
}
