import type { Address } from '../base/address.js'
import { boolean, options as checkOptions } from '../base/check.js'
import { InvalidState, type Report, Unsupported, XfrmeshError } from '../base/errors.js'
import type { Endpoint, Endpoints } from '../vxlan/endpoints.js'
import { XfrmChannel } from '../kernel/xfrm-channel.js'
import type { EventChannel } from '../kernel/xfrm-monitor.js'
import { packedPeers, type PeerInput, taken, takenPeers, takenVnis, wipe } from './arguments.js'
import { abortedError, type Call, callOptions, type CallOptions, executionOptions, reportOf } from './calls.js'
import { Convergence } from './converge.js'
import { nothingDone } from './executor.js'
import { add } from './endpoint-links.js'
import { CountedEndpoints, takenEndpoints } from './endpoints.js'
import { type Drops, drops } from './guard.js'
import { Home } from './home.js'
import type { Keyring, KeyInput, KeyUpdate } from './keyring.js'
import { openFirewall } from './open-firewall.js'
import { type FirewallKind, type OverlayOptions, type Settings, settings } from './options.js'
import { type Peers, PeersView } from './peers-view.js'
import type { Mapping } from './mappings.js'
import { Nat } from './nat.js'
import type { NatSettings } from './nat-options.js'
import { type NatStatus, natTroubles } from './nat-status.js'
import { checkPorts } from './peer-ports.js'
import type { Step } from './describe.js'
import type { NatPort, Ports } from './ports.js'
import { probe } from './probe.js'
import { drop, retain } from './references.js'

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
  firewall: { kind: FirewallKind; intact: boolean | null; differences: string[] }
  /** Packets that the firewall dropped since its table was made. Mending it keeps the counts of what is still there. */
  drops: Drops
  /** ESP in UDP; null without it. */
  nat: NatStatus | null
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
  readonly #nat: Nat | undefined
  readonly #endpoints: CountedEndpoints
  /** Whether the kernel is known to have what SAs need. */
  #probed = false
  #queue: Promise<unknown> = Promise.resolve()
  #closed: Promise<void> | undefined

  private constructor(given: Settings, ports: Ports) {
    this.#settings = given
    this.#ports = ports
    this.#mesh = new Convergence(given, ports)
    this.peers = new PeersView(this.#mesh, given.form.spis)
    this.#endpoints = new CountedEndpoints(
      this.#mesh,
      given,
      (link) => ports.hasSocketOf(link),
      () => this.#probe(),
    )
    const { nat } = ports
    if (nat !== undefined && given.nat !== undefined)
      this.#nat = new Nat(nat, given.nat, this.#mesh.peers, (records) => this.#followMappings(records))
  }

  /**
   * Opens the overlay's sockets and takes its lock. Changes nothing: what an earlier process left stays and works on, and
   * is taken over as networks, keys and peers are added again; what nobody asks for is removed by `reconcile()`. Where it
   * had another kind of firewall, ours guards its networks before that one's is taken away.
   *
   * @throws InvalidArgument; Unsupported; XfrmeshError ERR_XFRMESH_LOCKED if another has this namespace and mark, and
   *   ERR_XFRMESH_PORT_HELD if another has the UDP port of `nat`
   */
  static async open(options: OverlayOptions): Promise<Overlay> {
    const given = settings(options)
    const { netns, timeoutMs, boost, form } = given
    const xfrm = await XfrmChannel.open({ netns, timeoutMs, boost })
    let nat: OpenNat | undefined
    let home: Home | undefined
    const closeXfrm = async () => {
      await nat?.mappings.close()
      home?.close()
      // The lock goes last.
      await xfrm.close()
    }
    try {
      const holder = await xfrm.lock(`xfrmesh/${form.mark.toString(16)}`)
      if (holder !== undefined) throw lockedError(form.mark, holder)
      if (given.nat !== undefined) nat = await openNat(xfrm, form.local, given.nat)
      const here = (home = new Home(netns, xfrm.namespaceInode))
      const ports = { xfrm, ...(nat && { nat }), hasSocketOf: here.hasSocketOf.bind(here) }
      if (given.firewall === 'none') return new Overlay(given, { ...ports, close: closeXfrm })
      const guard = await openFirewall(given)
      return new Overlay(given, { ...ports, firewall: guard.firewall, close: () => guard.close().then(closeXfrm) })
    } catch (error) {
      await closeXfrm()
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

  /** VNIs of the networks that are encrypted: a copy, of those added, not of those that an earlier process left. */
  get networks(): ReadonlySet<number> {
    return new Set(this.#mesh.networks.wanted)
  }

  /**
   * The descriptor of the UDP socket that ESP comes to, with `nat` and until `close()`. As long as nobody has it open the
   * kernel receives none: SAs stay, and nothing comes through them. So that a restart need not close it, hand it to the
   * process that is to go on (`stdio: ['inherit', 'inherit', 'inherit', overlay.natSocket]` of spawn() makes it that one's
   * descriptor 3), which opens with `nat: { socket: 3 }` once this one is closed. Against a crash, let somebody hold it who
   * does not crash: a parent, or systemd (`ListenDatagram=192.0.2.1:4500`). It is the overlay's: do not read or close it.
   */
  get natSocket(): number | undefined {
    return this.#closed ? undefined : this.#nat?.descriptor
  }

  /**
   * Encrypts networks from here on: without an SA of ours nothing of them leaves or enters this namespace. Needs no key,
   * no peer, and no ESP in the kernel. Unsupported if it lacks the firewall's parts; nothing has changed then. Where it fails
   * otherwise the network is not encrypted: add it again, or `reconcile()`.
   *
   * @param networks VNIs, integers from 0 to 2^24 - 1
   * @throws InvalidArgument; Unsupported; PartialFailure; InvalidState ERR_XFRMESH_OTHER_PORT if an earlier process
   *   encrypts networks on another port under this mark
   */
  addNetworks(networks: Iterable<number>, options?: CallOptions): Promise<Report> {
    const take = () => takenVnis(networks)
    return this.#call('addNetworks', options, take, async (call, { asked, count }) => {
      const mesh = this.#mesh
      const { networks } = mesh
      const unwanted = asked.minus(networks.wanted)
      const fresh = mesh.isUnderPolicies ? unwanted.union(asked.minus(networks.guarded)) : asked
      networks.want(asked)
      try {
        const done = fresh.size === 0 ? nothingDone() : await mesh.follow([], executionOptions(call))
        const applied = done.failed.size > 0 ? 0 : fresh.and(networks.guarded).size
        return reportOf(call, done, count, fresh.size, applied)
      } catch (error) {
        const refused = error instanceof Unsupported || error instanceof InvalidState
        if (refused) networks.forget(unwanted.minus(networks.guarded))
        throw error
      }
    })
  }

  /**
   * Ends the encryption of networks. Take down their links first: what they send afterwards leaves in the clear. Nothing here
   * can tell a link with endpoints that was moved to another namespace from one that is gone.
   *
   * @param networks VNIs; one that was not added is `unchanged`
   * @throws InvalidArgument; InvalidState ERR_XFRMESH_HAS_ENDPOINTS for one of which there are endpoints, or may be entries of
   *   removed ones, unless `exclusive` has all of the port encrypted: nothing has changed; PartialFailure
   */
  removeNetworks(networks: Iterable<number>, options?: CallOptions): Promise<Report> {
    const take = () => takenVnis(networks)
    return this.#call('removeNetworks', options, take, async (call, { asked, count }) => {
      this.#endpoints.checkUnused(asked)
      const { networks } = this.#mesh
      const gone = networks.giveUp(asked)
      const done = gone.size === 0 ? nothingDone() : await this.#mesh.follow([], executionOptions(call))
      return reportOf(call, done, count, gone.size, networks.released(gone).size)
    })
  }

  /**
   * These keys and no others. The first is primary: it encrypts, all decrypt. From any state: peers are kept, and so are,
   * without a break, keys that are there already.
   *
   * @throws InvalidArgument; PartialFailure
   */
  setKeys(keys: readonly KeyInput[], options?: CallOptions): Promise<Report> {
    return this.#callWithKeys('setKeys', keys, options, (call, given) => {
      const before = this.#mesh.keyring
      const next = before.set(given)
      const first = next.tag(next.primary)
      const same = next.tags.filter((tag) => before.find(tag) >= 0 && (tag !== first || tag === before.tags[0]))
      return this.#turn(call, next, next.size, next.size - same.length)
    })
  }

  /**
   * Adds a key, makes one primary, prunes one, in any combination and in an order that loses no packet: every peer
   * decrypts with the new key before it is used, and the old goes last.
   *
   * @throws InvalidArgument; InvalidState before `setKeys()`; PartialFailure
   */
  updateKeys(change: KeyUpdate, options?: CallOptions): Promise<Report> {
    return this.#callWithKeys('updateKeys', change, options, (call, given) => {
      const before = this.#mesh.keyring
      const next = before.update(given)
      const asked = [given.add, given.primary, given.prune].filter((part) => part !== undefined).length
      const took = [
        given.add !== undefined && before.find(given.add.tag) < 0,
        given.primary !== undefined && given.primary !== before.tags[0],
        given.prune !== undefined,
      ].filter(Boolean).length
      return this.#turn(call, next, asked, took)
    })
  }

  /**
   * Adds peers, or one reference more to those that are there: as many removals as additions take a peer away. Adding a
   * degraded peer again tries it again. Unsupported if the kernel has no ESP; nothing has changed then.
   *
   * @param peers addresses of this overlay's family, as the peers advertise them: no unspecified, multicast, broadcast,
   *   loopback, link-local or own ones. With `nat`, `{ address, port }` says at which UDP port a peer receives
   * @throws InvalidArgument, also for a port while the address was added with another: two nodes behind one public address
   *   can't be told apart (endpoints at it stand in no way); InvalidState before `setKeys()`; Unsupported; PartialFailure
   */
  addPeers(peers: Iterable<PeerInput>, options?: CallOptions): Promise<Report> {
    return this.#call(
      'addPeers',
      options,
      () => takenPeers(peers),
      async (call, given) => {
        if (this.#mesh.keyring.size === 0) {
          throw new InvalidState('addPeers: there are no keys yet: call setKeys() first', 'ERR_XFRMESH_NO_KEYS')
        }
        const packed = await packedPeers(given, this.#settings)
        const table = this.#mesh.peers
        await checkPorts(packed, table, this.#settings.form.natPort)
        await this.#probe()
        table.reserve(packed.count)
        const slots = await retain(table, packed, this.#settings.form.natPort)
        return this.#changePeers(call, packed.count, slots)
      },
    )
  }

  /**
   * Takes one reference from each peer, and the SAs from those that have none left. One that is not there, or that others
   * still refer to, is `unchanged`; so is one that has but the references of endpoints.
   *
   * @param peers as for `addPeers()`: a peer is told by its address alone
   * @throws InvalidArgument; PartialFailure
   */
  removePeers(peers: Iterable<PeerInput>, options?: CallOptions): Promise<Report> {
    return this.#call(
      'removePeers',
      options,
      () => takenPeers(peers),
      async (call, given) => {
        const packed = await packedPeers(given, this.#settings)
        const slots = await drop(this.#mesh.peers, packed)
        return this.#changePeers(call, packed.count, slots)
      },
    )
  }

  /**
   * Adds endpoints of an encrypted network, or moves those whose address is there with another MAC or VTEP: for each one
   * reference to the peer at its VTEP, and the entries of its link as {@link Endpoints.add} makes them. Those that are there
   * as they are given take no system call.
   *
   * Where the FDB entries that this makes lead, there are SAs: those of a VTEP come before them. A reference goes after the
   * last entry that needs it; `removePeers()` does not take it. While a peer can't be had, the FDB entries to it are held
   * back, and all of a network whose guard was found broken, each of them a failure with ERR_XFRMESH_HELD_BACK;
   * `reconcile()` makes them once it can, and for want of a peer so does adding the endpoints again. An endpoint that moves to
   * such a VTEP leaves the old one all the same: it is there no more. Until then the kernel has no FDB entry for its MAC.
   *
   * The link's endpoints are this overlay's from then on, until the last is removed or the overlay is closed: its own
   * `add()`, `remove()`, `replace()` and `reconcile()` refuse, and `close()` does not end it before. Entries that stay when
   * the overlay is closed are taken over as endpoints are added again, there or to another overlay.
   *
   * @param link a link of one of this overlay's networks, at its UDP port, whose socket is in this overlay's namespace: it was
   *   made there. It may live in another. Where a link of another network or port, or with its socket elsewhere, bears its
   *   name later, that has none of these endpoints
   * @param endpoints `vtep`: an address that `addPeers()` takes. Read in the call's turn: leave them as they are until then
   * @throws InvalidArgument for any of them that is wrong, and a link that is not there or is another's; InvalidState before
   *   `setKeys()`, before `addNetworks()` with the link's network (ERR_XFRMESH_NO_NETWORK), and for endpoints that were added
   *   otherwise; Unsupported: in all of these nothing has changed
   * @throws PartialFailure, also if the link vanished half way; XfrmeshError ERR_XFRMESH_TIMEOUT and the like
   */
  addEndpoints(
    link: Endpoints,
    endpoints: readonly Endpoint[],
    options?: Pick<CallOptions, 'signal'>,
  ): Promise<Report> {
    const take = () => takenEndpoints(link, endpoints)
    return this.#call('addEndpoints', options, take, async (call, given) => {
      const { done, changed, applied } = await this.#endpoints.add(given, executionOptions(call))
      return reportOf(call, done, given.list.length, changed, applied)
    })
  }

  /**
   * Removes endpoints: the entries of their link, then their references to peers, and the SAs of those that have none left.
   * One that is not there, or is with another MAC or at another VTEP by now, is `unchanged`. The link may be gone, or closed.
   *
   * @throws InvalidArgument, InvalidState: nothing has changed; PartialFailure: what entries could not be removed from
   *   keeps its references until `reconcile()` has seen to it
   */
  removeEndpoints(
    link: Endpoints,
    endpoints: readonly Endpoint[],
    options?: Pick<CallOptions, 'signal'>,
  ): Promise<Report> {
    const take = () => takenEndpoints(link, endpoints)
    return this.#call('removeEndpoints', options, take, async (call, given) => {
      const { done, changed, applied } = await this.#endpoints.remove(given, executionOptions(call))
      return reportOf(call, done, given.list.length, changed, applied)
    })
  }

  /**
   * Makes the kernel what it should be, whatever happened to it: reads all that is ours, and changes only what differs.
   * What bears our mark and nobody asked for goes last. The entries of links that have endpoints of this overlay bear no
   * mark: there all permanent ones are taken for ours, whoever made them, as {@link Endpoints.reconcile} says. What leads to
   * no endpoint goes before SAs do, and what is missing comes after them.
   *
   * The encryption of networks that an earlier process left, and that were not added since, ends too. Entries of their links,
   * where no endpoints were added since, stay, and what they send leaves in the clear: take these links down first.
   *
   * @param options `dryRun`: only say what would be done; default false
   * @throws InvalidArgument; PartialFailure
   */
  reconcile(options: CallOptions & { dryRun?: boolean } = {}): Promise<Reconciliation> {
    return this.#call(
      'reconcile',
      options,
      () => options,
      (call, given) =>
        this.#endpoints.hold(async (links) => {
          const look = await this.#mesh.look()
          await links.look()
          const plan = [...(await this.#mesh.steps(look)), ...(await links.steps())]
          if (given.dryRun === true) return { ...counted(plan), plan }
          const options = executionOptions(call)
          const done = await links.around(() => this.#mesh.repair(look, options), options)
          reportOf(call, done, plan.length, plan.length, done.added + done.updated + done.removed)
          return { added: done.added, updated: done.updated, removed: done.removed, plan }
        }),
    )
  }

  /** How it stands. Of the kernel it reads the firewall alone. */
  status(): Promise<OverlayStatus> {
    return this.#call(
      'status',
      undefined,
      () => undefined,
      async () => {
        const { form, advertise, firewall: kind } = this.#settings
        const { networks, peers, keyring } = this.#mesh
        const firewall = await networks.read()
        const differences = firewall === undefined ? [] : networks.differences(firewall)
        const degraded: string[] = []
        for (const slot of peers.slots()) {
          if (peers.degraded[slot] === 1 && peers.references[slot]! > 0) degraded.push(peers.text(slot))
        }
        const nat = (await this.#nat?.status()) ?? null
        const lacking = this.#mesh.lacks()
        if (degraded.length > 0) lacking.unshift(`${degraded.length} peers lack SAs or policies`)
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
          networks: [...networks.wanted],
          firewall: { kind, intact: nothingToHave ? null : differences.length === 0, differences },
          drops: firewall?.drops ?? drops([]),
          nat,
          degraded: [
            ...[...lacking, ...(await this.#endpoints.lacks()), ...differences.map((said) => `firewall: ${said}`)].map(
              (said) => `${said}; reconcile() mends it`,
            ),
            ...(nat === null ? [] : natTroubles(nat)),
          ],
        }
      },
    )
  }

  /**
   * Closes the sockets, once the calls made before are done, and gives up the lock. What is in the kernel stays there and
   * works on (but for ESP in UDP, which is received for as long as somebody has its socket: `natSocket`), unless `flush` asks
   * for all that is ours to go: entries of endpoints first, then SAs, policies, the firewall last. Where entries can't be
   * removed, all the rest stays; so it does where a link was named otherwise. One that was moved to another namespace counts
   * as gone: take it down first. Links are everybody's again.
   *
   * @throws PartialFailure if the kernel would not let something go; it is closed all the same
   */
  close(options: { flush?: boolean } = {}): Promise<void> {
    if (this.#closed) return this.#closed
    let flush: boolean
    try {
      flush = boolean(checkOptions<{ flush?: boolean }>(options, 'options', ['flush']).flush ?? false, 'options.flush')
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)))
    }
    const nothing = () => undefined
    const before = flush ? this.#call('close', undefined, nothing, (call) => this.#flush(call)) : this.#queue
    this.#closed = before.then(nothing).finally(async () => {
      this.#mesh.keyring.wipe()
      this.#nat?.stop()
      await this.#endpoints.release()
      await this.#ports.close()
    })
    return this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** What the kernel told of where peers' packets come from, followed in its turn. */
  #followMappings(records: Uint8Array): Promise<readonly Mapping[]> {
    const take = () => records
    return this.#call('nat', undefined, take, async (call, told) => {
      const { slots, mappings } = this.#mesh.learn(told)
      // What fails leaves the peer degraded, and the kernel tells again: the SA that it compares with changes last.
      if (slots.length > 0) await this.#mesh.follow(slots, executionOptions(call)).catch(() => undefined)
      return mappings
    })
  }

  #flush(call: Call): Promise<void> {
    return this.#endpoints.hold(async (links) => {
      await links.wantNothing()
      await links.look()
      const cleared = await links.clear()
      const { length } = cleared.failures
      // Where entries may be left, frames may be sent: what encrypts them stays, and what keeps them in.
      if (length > 0) {
        reportOf(call, cleared, length, length, 0)
        return
      }
      this.#mesh.clear()
      const look = await this.#mesh.look()
      const done = await this.#mesh.repair(look, executionOptions(call))
      add(done, cleared)
      reportOf(call, done, look.plan.operations, look.plan.operations, done.operations)
    })
  }

  /**
   * Puts a call in line. Its arguments are taken at once; VNIs are checked then, all else in its turn. Whatever is wrong
   * with it, it says through its promise.
   */
  #call<A, T>(
    name: string,
    options: CallOptions | undefined,
    take: () => A,
    work: (call: Call, given: A) => Promise<T>,
  ): Promise<T> {
    if (this.#closed) {
      return Promise.reject(new InvalidState(`${name}: the overlay is closed`, 'ERR_XFRMESH_CLOSED'))
    }
    let given: A
    let call: Call
    try {
      call = { name, ...callOptions(name, options), started: performance.now(), thrown: [] }
      given = take()
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)))
    }
    const run = async (): Promise<T> => {
      if (call.signal?.aborted) throw abortedError(call)
      const result = await work(call, given)
      if (call.thrown.length > 0) throw call.thrown[0]
      return result
    }
    const result = this.#queue.then(run)
    this.#queue = result.catch(() => undefined)
    return result
  }

  /** A call whose argument holds keys: its copy is wiped when it is done. */
  #callWithKeys<A>(
    name: string,
    keys: A,
    options: CallOptions | undefined,
    work: (call: Call, given: A) => Promise<Report>,
  ): Promise<Report> {
    let copy: A | undefined
    const take = () => (copy = taken(keys))
    return this.#call(name, options, take, work).finally(() => wipe(copy))
  }

  async #turn(call: Call, next: Keyring, requested: number, changes: number): Promise<Report> {
    this.#mesh.keyring = next
    const done = await this.#mesh.follow('keys', executionOptions(call))
    return reportOf(call, done, requested, changes, done.failures.length > 0 || done.aborted ? 0 : changes)
  }

  /** Follows a change of these peers. In the report, those that are not all as they should be are not applied. */
  async #changePeers(call: Call, requested: number, slots: readonly number[]): Promise<Report> {
    if (slots.length === 0) return reportOf(call, nothingDone(), requested, 0, 0)
    const done = await this.#mesh.follow(slots, executionOptions(call))
    const { peers } = this.#mesh
    const lacking = slots.filter((slot) => peers.has(slot) && peers.degraded[slot] === 1).length
    return reportOf(call, done, requested, slots.length, slots.length - lacking)
  }

  async #probe(): Promise<void> {
    if (this.#probed) return
    await probe(this.#ports.xfrm, this.#settings.form)
    this.#probed = true
  }
}

type OpenNat = NatPort & { readonly mappings: EventChannel }

/** The UDP socket of ESP, and what listens beside it. */
async function openNat(xfrm: XfrmChannel, local: Address, { port, socket }: NatSettings): Promise<OpenNat> {
  const encap = await xfrm.encap({ local, port, socket })
  const mappings = await xfrm.monitor(['mapping'])
  return {
    descriptor: encap.descriptor,
    isIntact: () => encap.isIntact(),
    keepAlive: (addresses, ports) => encap.keepAlive(addresses, ports),
    mappings,
  }
}

function counted(steps: readonly Step[]): { added: number; updated: number; removed: number } {
  const count = (pattern: RegExp) => steps.filter(({ operation }) => pattern.test(operation)).length
  return { added: count(/^add /), updated: count(/^update /), removed: count(/^(delete|remove) /) }
}

function lockedError(mark: number, { pid, uid }: { pid: number; uid: number }): XfrmeshError {
  const who = pid === 0 ? 'another process' : `process ${pid} (user ${uid})`
  // Any local user may take an abstract socket's name. That keeps us out, and lets nothing through.
  const stranger = pid !== 0 && uid !== 0 && uid !== process.getuid?.()
  return new XfrmeshError(
    'ERR_XFRMESH_LOCKED',
    `${who} holds mark 0x${mark.toString(16)} in this network namespace: ${stranger ? 'it is no process of yours: end it' : 'close it first'}, or use another mark`,
  )
}
