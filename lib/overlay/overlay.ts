import { setImmediate as breathe } from 'node:timers/promises'
import { ADDRESS_BYTES } from '../base/address.js'
import { boolean, options as checkOptions } from '../base/check.js'
import {
  Aborted,
  InvalidArgument,
  InvalidState,
  PartialFailure,
  type Report,
  Unsupported,
  XfrmeshError,
} from '../base/errors.js'
import { Nft } from '../kernel/nft.js'
import { XfrmChannel } from '../kernel/xfrm-channel.js'
import { peerAddresses, vnis } from './arguments.js'
import { type Change, Convergence } from './converge.js'
import { type Execution, type ExecutionOptions, nothingDone } from './executor.js'
import { Firewall } from './firewall.js'
import type { Keyring, KeyInput, KeyUpdate } from './keyring.js'
import { type OverlayOptions, type Settings, settings } from './options.js'
import { type Peers, PeersView } from './peers-view.js'
import type { Step } from './plan.js'
import type { Ports } from './ports.js'
import { probe } from './probe.js'

/** References counted between two turns of the event loop. */
const SLICE = 4096

/** What a call may be given beside its subject. */
export interface CallOptions {
  /** Ends the call between two sends to the kernel; it rejects with Aborted, whose report says what was applied. */
  signal?: AbortSignal
  /** Called as the kernel answers. */
  onProgress?: (progress: Progress) => void
}

export interface Progress {
  /** Netlink operations that the kernel has answered, and all that this call takes. */
  done: number
  total: number
}

/** What `reconcile()` changed, or would change: how many SAs, policies and networks, and the steps in order. */
export interface Reconciliation {
  added: number
  updated: number
  removed: number
  plan: Step[]
}

/** Plain JSON. Of keys it has the tags. */
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
  /** `intact`: whether the kernel's table is as it should be for all networks; null where there is none to have. */
  firewall: { kind: 'nftables' | 'none'; intact: boolean | null; differences: string[] }
  /** Packets of encrypted networks dropped in the clear since the table was made. */
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
  /** The peers wanted: a view that shows what is at the time it is asked. */
  readonly peers: Peers
  readonly #settings: Settings
  readonly #ports: Ports
  readonly #mesh: Convergence
  /** Whether the kernel is known to have what SAs need. */
  #probed = false
  #queue: Promise<unknown> = Promise.resolve()
  #closed: Promise<void> | undefined

  private constructor(given: Settings, ports: Ports) {
    this.#settings = given
    this.#ports = ports
    this.#mesh = new Convergence(given, ports)
    this.peers = new PeersView(this.#mesh, given.form.spis)
  }

  /**
   * Opens the overlay's sockets and takes its lock. Changes nothing: what an earlier process left stays and works on, and
   * is taken over as networks, keys and peers are added again; what nobody asks for is removed by `reconcile()`.
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
      if (given.firewall === 'none') return new Overlay(given, { xfrm, close: () => xfrm.close() })
      const nft = await Nft.open({ timeoutMs, ...(netns !== undefined && { netns }) })
      const firewall = new Firewall({ nft, mark: form.mark, port: form.port })
      // The lock goes last.
      return new Overlay(given, { xfrm, firewall, close: () => nft.close().then(() => xfrm.close()) })
    } catch (error) {
      await xfrm.close()
      throw error
    }
  }

  /**
   * An Overlay over other ports than the kernel's, with no lock: for tests of what this class makes of their answers.
   * @internal
   */
  static over(options: OverlayOptions, ports: Ports): Overlay {
    return new Overlay(settings(options), ports)
  }

  /** VNIs of the networks that are encrypted: of those added, not of those that an earlier process left. */
  get networks(): ReadonlySet<number> {
    return this.#mesh.networks.wanted
  }

  /**
   * Encrypts networks from here on: without an SA of ours nothing of them leaves or enters this namespace. Needs no key,
   * no peer, and no ESP in the kernel. Unsupported if it lacks nftables; nothing has changed then.
   *
   * @param networks VNIs, integers from 0 to 2^24 - 1
   * @throws InvalidArgument; Unsupported; PartialFailure
   */
  addNetworks(networks: Iterable<number>, options?: CallOptions): Promise<Report> {
    return this.#call('addNetworks', options, async (call) => {
      const list = vnis(networks)
      const { wanted } = this.#mesh.networks
      const fresh = new Set(list.filter((vni) => !wanted.has(vni)))
      for (const vni of fresh) wanted.add(vni)
      try {
        const done = fresh.size === 0 ? nothingDone() : await this.#follow(call, { peers: [] })
        return this.#report(call, done, list.length, fresh.size)
      } catch (error) {
        if (error instanceof Unsupported) for (const vni of fresh) wanted.delete(vni)
        throw error
      }
    })
  }

  /**
   * Ends the encryption of networks. Take down their links first: what they send afterwards leaves in the clear.
   *
   * @param networks VNIs; one that was not added is `unchanged`
   * @throws InvalidArgument; PartialFailure
   */
  removeNetworks(networks: Iterable<number>, options?: CallOptions): Promise<Report> {
    return this.#call('removeNetworks', options, async (call) => {
      const list = vnis(networks)
      const gone = new Set(list.filter((vni) => this.#mesh.networks.wanted.delete(vni)))
      const done = gone.size === 0 ? nothingDone() : await this.#follow(call, { peers: [], unguard: gone })
      return this.#report(call, done, list.length, gone.size)
    })
  }

  /**
   * These keys and no others. The first is primary: it encrypts, all decrypt. From any state: peers are kept, and so are,
   * without a break, keys that are there already.
   *
   * @throws InvalidArgument; PartialFailure
   */
  setKeys(keys: readonly KeyInput[], options?: CallOptions): Promise<Report> {
    return this.#call('setKeys', options, (call) => {
      const before = this.#mesh.keyring
      const next = before.set(keys)
      const first = next.tag(next.primary)
      const same = next.tags.filter((tag) => before.find(tag) >= 0 && (tag !== first || tag === before.tags[0]))
      return this.#turn(call, next, keys.length, keys.length - same.length)
    })
  }

  /**
   * Adds a key, makes one primary, prunes one, in any combination and in an order that loses no packet: every peer
   * decrypts with the new key before it is used, and the old goes last.
   *
   * @throws InvalidArgument; InvalidState before `setKeys()`; PartialFailure
   */
  updateKeys(change: KeyUpdate, options?: CallOptions): Promise<Report> {
    return this.#call('updateKeys', options, (call) => {
      const before = this.#mesh.keyring
      const next = before.update(change)
      const asked = [change.add, change.primary, change.prune].filter((part) => part !== undefined).length
      const took = [
        change.add !== undefined && before.find(change.add.tag) < 0,
        change.primary !== undefined && change.primary !== before.tags[0],
        change.prune !== undefined,
      ].filter(Boolean).length
      return this.#turn(call, next, asked, took)
    })
  }

  /**
   * Adds peers, or one reference more to those that are there: as many removals as additions take a peer away. Adding a
   * degraded peer again tries it again. Unsupported if the kernel has no ESP; nothing has changed then.
   *
   * @param peers addresses of this overlay's family, as the peers advertise them: no unspecified, multicast, broadcast,
   *   loopback, link-local or own ones
   * @throws InvalidArgument; InvalidState before `setKeys()`; Unsupported; PartialFailure
   */
  addPeers(peers: Iterable<string>, options?: CallOptions): Promise<Report> {
    return this.#call('addPeers', options, async (call) => {
      if (this.#mesh.keyring.size === 0) {
        throw new InvalidState('addPeers: there are no keys yet: call setKeys() first', 'ERR_XFRMESH_NO_KEYS')
      }
      const { bytes, count } = await peerAddresses(peers, this.#settings)
      await this.#probe()
      const table = this.#mesh.peers
      const slots = new Set<number>()
      for (let i = 0; i < count; i++) {
        table.load(bytes, i * ADDRESS_BYTES)
        const slot = table.insert()
        if (table.retain(slot) === 1 || table.degraded[slot] === 1) slots.add(slot)
        if (i % SLICE === SLICE - 1) await breathe()
      }
      return this.#changePeers(call, count, slots.size, [...slots])
    })
  }

  /**
   * Takes one reference from each peer, and the SAs from those that have none left. One that is not there is `unchanged`.
   *
   * @throws InvalidArgument; PartialFailure
   */
  removePeers(peers: Iterable<string>, options?: CallOptions): Promise<Report> {
    return this.#call('removePeers', options, async (call) => {
      const { bytes, count } = await peerAddresses(peers, this.#settings)
      const table = this.#mesh.peers
      const slots: number[] = []
      let dropped = 0
      for (let i = 0; i < count; i++) {
        table.load(bytes, i * ADDRESS_BYTES)
        const slot = table.find()
        const references = slot < 0 ? 0 : table.drop(slot)
        if (references > 0) dropped++
        if (references === 1) slots.push(slot)
        if (i % SLICE === SLICE - 1) await breathe()
      }
      return this.#changePeers(call, count, dropped, slots)
    })
  }

  /**
   * Makes the kernel what it should be, whatever happened to it: reads all that is ours, and changes only what differs.
   * What bears our mark and nobody asked for goes last.
   *
   * @param options `dryRun`: only say what would be done; default false
   * @throws InvalidArgument; PartialFailure
   */
  reconcile(options: CallOptions & { dryRun?: boolean } = {}): Promise<Reconciliation> {
    return this.#call('reconcile', options, async (call) => {
      const look = await this.#mesh.look()
      if (options.dryRun === true) return { ...counted(look.steps), plan: look.steps }
      const done = await this.#mesh.repair(look, executionOptions(call))
      this.#report(call, done, look.steps.length, look.steps.length)
      return { added: done.added, updated: done.updated, removed: done.removed, plan: look.steps }
    })
  }

  /** How it stands. Of the kernel it reads the firewall alone. */
  status(): Promise<OverlayStatus> {
    return this.#call('status', undefined, async () => {
      const { form, advertise, firewall: kind } = this.#settings
      const { networks, peers, keyring } = this.#mesh
      const firewall = await networks.read()
      const differences = firewall === undefined ? [] : networks.differences(firewall)
      const degraded: string[] = []
      for (const slot of peers.slots()) {
        if (peers.degraded[slot] === 1 && peers.references[slot]! > 0) degraded.push(peers.text(slot))
      }
      const lacking =
        degraded.length === 0 ? [] : [`${degraded.length} peers lack SAs or policies; reconcile() tries again`]
      const nothingToHave = firewall === undefined || (networks.wanted.size === 0 && !firewall.exists)
      return {
        local: form.local.text,
        advertise,
        port: form.port,
        mark: form.mark,
        suite: form.suite.name,
        policies: form.policies,
        exclusive: form.exclusive,
        keys: keyring.tags,
        peers: { wanted: peers.wanted, active: peers.wanted - degraded.length, degraded },
        networks: [...networks.wanted].sort((a, b) => a - b),
        firewall: { kind, intact: nothingToHave ? null : differences.length === 0, differences },
        drops: firewall?.drops ?? { in: 0, out: 0 },
        degraded: [...lacking, ...differences.map((said) => `firewall: ${said}; reconcile() mends it`)],
      }
    })
  }

  /**
   * Closes the sockets, once the calls made before are done, and gives up the lock. What is in the kernel stays there and
   * works on, unless `flush` asks for all that is ours to go: SAs first, then policies, the firewall last.
   *
   * @throws PartialFailure if the kernel would not let something go; it is closed all the same
   */
  close(options: { flush?: boolean } = {}): Promise<void> {
    if (this.#closed) return this.#closed
    const { flush } = checkOptions<{ flush?: boolean }>(options, 'options', ['flush'])
    const before = boolean(flush ?? false, 'options.flush')
      ? this.#call('close', undefined, (call) => this.#flush(call))
      : this.#queue
    this.#closed = before
      .then(() => undefined)
      .finally(async () => {
        await this.#ports.close()
        this.#mesh.keyring.wipe()
      })
    return this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #flush(call: Call): Promise<void> {
    this.#mesh.clear()
    const look = await this.#mesh.look()
    const done = await this.#mesh.repair(look, executionOptions(call))
    this.#report(call, done, look.steps.length, look.steps.length)
  }

  /** Puts a call in line. Whatever is wrong with it, it says through its promise. */
  #call<T>(name: string, options: CallOptions | undefined, work: (call: Call) => Promise<T>): Promise<T> {
    if (this.#closed) {
      return Promise.reject(new InvalidState(`${name}: the overlay is closed`, 'ERR_XFRMESH_CLOSED'))
    }
    const run = async (): Promise<T> => {
      const { signal, onProgress } = callOptions(name, options)
      const call = { name, signal, onProgress, started: performance.now() }
      if (signal?.aborted) throw abortedError(call)
      return work(call)
    }
    const result = this.#queue.then(run)
    this.#queue = result.catch(() => undefined)
    return result
  }

  #follow(call: Call, change: Change): Promise<Execution> {
    return this.#mesh.follow(change, executionOptions(call))
  }

  async #turn(call: Call, next: Keyring, requested: number, changes: number): Promise<Report> {
    this.#mesh.keyring = next
    return this.#report(call, await this.#follow(call, {}), requested, changes)
  }

  /** Follows a change of peers. In the report, those whose SAs are not all as they should be are not applied. */
  async #changePeers(call: Call, requested: number, changes: number, slots: readonly number[]): Promise<Report> {
    if (slots.length === 0) return this.#report(call, nothingDone(), requested, changes)
    const done = await this.#follow(call, { peers: slots })
    const { peers } = this.#mesh
    const lacking = slots.filter((slot) => peers.has(slot) && peers.degraded[slot] === 1).length
    return this.#report(call, done, requested, changes, changes - lacking)
  }

  /**
   * The report of a call of whose `requested` items `changes` took doing.
   * @throws PartialFailure or Aborted, with it, if it was not all done
   */
  #report(
    call: Call,
    { failures, operations, aborted }: Execution,
    requested: number,
    changes: number,
    applied = failures.length > 0 || aborted ? 0 : changes,
  ): Report {
    const elapsedMs = performance.now() - call.started
    const report = { requested, applied, unchanged: requested - changes, failures, operations, elapsedMs }
    if (aborted) throw abortedError(call, report)
    if (failures.length > 0) throw new PartialFailure(report)
    return report
  }

  async #probe(): Promise<void> {
    if (this.#probed) return
    await probe(this.#ports.xfrm, this.#settings.form)
    this.#probed = true
  }
}

/** A call in its turn. */
interface Call {
  readonly name: string
  readonly signal: AbortSignal | undefined
  readonly onProgress: ((progress: Progress) => void) | undefined
  readonly started: number
}

function callOptions(name: string, given: unknown): CallOptions {
  type Given = CallOptions & { dryRun?: boolean }
  const known =
    name === 'reconcile' ? (['signal', 'onProgress', 'dryRun'] as const) : (['signal', 'onProgress'] as const)
  const checked = checkOptions<Given>(given ?? {}, 'options', known)
  const { signal, onProgress, dryRun } = checked
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new InvalidArgument('options.signal', 'an AbortSignal', signal)
  }
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw new InvalidArgument('options.onProgress', 'a function', onProgress)
  }
  boolean(dryRun ?? false, 'options.dryRun')
  return checked
}

function executionOptions({ signal, onProgress }: Call): ExecutionOptions {
  return { signal, onProgress: onProgress && ((done, total) => onProgress({ done, total })) }
}

function counted(steps: readonly Step[]): { added: number; updated: number; removed: number } {
  const count = (pattern: RegExp) => steps.filter(({ operation }) => pattern.test(operation)).length
  return { added: count(/^add /), updated: count(/^update /), removed: count(/^(delete|remove) /) }
}

function abortedError(call: Call, report?: Report): Aborted {
  const far =
    report === undefined ? 'before it began' : `after ${report.operations} operations; reconcile() completes it`
  return new Aborted(`${call.name}: aborted ${far}`, report, { cause: call.signal?.reason })
}

function lockedError(mark: number, { pid, uid }: { pid: number; uid: number }): XfrmeshError {
  const who = pid === 0 ? 'another process' : `process ${pid} (user ${uid})`
  return new XfrmeshError(
    'ERR_XFRMESH_LOCKED',
    `${who} holds mark 0x${mark.toString(16)} in this network namespace: close it first, or use another mark`,
  )
}
