import { setTimeout as sleep } from 'node:timers/promises'
import { array, boolean, integer, options as checkOptions } from '../base/check.js'
import { Aborted, InvalidArgument, type Report, Unsupported, XfrmeshError } from '../base/errors.js'
import { closedError } from '../kernel/netlink-errors.js'
import { Nft } from '../kernel/nft.js'
import { XfrmChannel } from '../kernel/xfrm-channel.js'
import { type Call, Calls, type NodeCallOptions } from './calls.js'
import { NodeGuard } from './guard.js'
import type { NodeKeys } from './keyfile.js'
import { NodeKeyring } from './keyring.js'
import { NodeMesh } from './mesh.js'
import type { Step } from './plan.js'
import type { XfrmPort } from './port.js'
import { type NodeEncryptionOptions, nodeName, remote, type RemoteNode, type Settings, settings } from './settings.js'
import { type LabelledCounter, labelled } from './statistics.js'
import { checkSysctls, type SysctlCheck, turnOnIPv6Forwarding } from './sysctls.js'

/** What `reconcile()` changed, or would change. */
export interface NodeReconciliation {
  added: number
  updated: number
  removed: number
  plan: Step[]
}

/** Plain JSON. Of keys it has the ids. */
export interface NodeStatus {
  addresses: string[]
  marks: false | 'cilium'
  /**
   * The id of the key that encrypts, of the next, which is prepared or, after a restart, is to be, and of those that only
   * decrypt still. `ready`: what `prepare()` came to can be committed.
   */
  keys: { current: number; prepared: number | null; ready: boolean; old: number[] }
  nodes: { wanted: number; degraded: { name: string; lack: string }[] }
  /** null where marks choose what is encrypted, and there is no guard. */
  guard: { intact: boolean; differences: string[]; drops: { in: number; out: number } } | null
}

/** How long old keys still decrypt after a rotation, in milliseconds: Cilium's. */
const RECLAIM_AFTER = 300_000
const LOCK = 'xfrmesh/node'

/**
 * Node-to-node encryption on one node, in the manner of Cilium: tunnels of ESP to every other node, with a key of its own
 * for each pair, and the policies that lead pods' traffic into them. One a network namespace; a lock holds others off.
 *
 * Calls may overlap: they run in the order made. With `marks: false` nothing between a range here and one there leaves or
 * enters in the clear, whether a call succeeds, fails or is never finished, and with the policies flushed by another tool:
 * a guard in nftables sees to it, which a call sees to first of all. Where the guard itself can't be made, the call does
 * nothing else, says so, and the nodes are degraded. With `marks: 'cilium'` the policy that drops marked traffic without a
 * policy of its own takes that place, and is all there is: whoever flushes the policies flushes it too, and what the
 * datapath marks leaves in the clear.
 *
 * That begins with the first `upsert()`, not with `open()`: after this node has booted nothing of it is in the kernel, and
 * what its own pods send leaves in the clear until then. Start this before the pods; or, without marks, restore the guard's
 * table at boot (what `nft list table inet xfrmesh_node` said, by `nft -f`).
 *
 * Whatever a call throws once its arguments were right, `status()` names the nodes that do not have all that they should,
 * and each call after it tries them again.
 */
export class NodeEncryption implements AsyncDisposable {
  readonly #settings: Settings
  readonly #mesh: NodeMesh
  readonly #xfrm: XfrmPort
  readonly #close: () => Promise<void>
  readonly #calls = new Calls()
  /** Ends what waits outside of a call. */
  readonly #closing = new AbortController()
  #closed: Promise<void> | undefined

  private constructor(given: Settings, mesh: NodeMesh, xfrm: XfrmPort, close: () => Promise<void>) {
    this.#settings = given
    this.#mesh = mesh
    this.#xfrm = xfrm
    this.#close = close
  }

  /**
   * Opens the sockets and takes the lock. Changes nothing: what an earlier process left stays and works on, and is taken
   * over as nodes are named again, also where their addresses are others by now, and with `marks: false` this node's own; what
   * nobody asks for is removed by `reconcile()`. If that process encrypted under
   * another key id than the given keys', so does this one, as far as its SAs go: a node that is new, or has booted anew, is
   * degraded until the given keys, or others, are prepared and committed.
   *
   * Other keys than before under the same id are not noticed here, as `prepare()` would: the first `upsert()` then swaps all
   * SAs of its nodes at once, and no packet passes until the others have done the same. Give changed keys another id.
   *
   * @throws InvalidArgument; Unsupported; XfrmeshError ERR_XFRMESH_LOCKED if another has this namespace
   */
  static async open(options: NodeEncryptionOptions): Promise<NodeEncryption> {
    const { settings: given, keys } = settings(options)
    const keyring = new NodeKeyring(keys)
    const { netns, timeoutMs } = given
    const xfrm = await XfrmChannel.open({ netns, timeoutMs }).catch((error: unknown) => {
      keyring.wipe()
      throw error
    })
    try {
      const holder = await xfrm.lock(LOCK)
      if (holder !== undefined) {
        const who = holder.pid === 0 ? 'another process' : `process ${holder.pid} (user ${holder.uid})`
        const message = `${who} encrypts between nodes in this network namespace: close it first`
        throw new XfrmeshError('ERR_XFRMESH_LOCKED', message)
      }
      if (given.marks !== false) {
        const mesh = new NodeMesh(given, keyring, xfrm, undefined)
        return new NodeEncryption(given, mesh, xfrm, () => xfrm.close())
      }
      const nft = await Nft.open({ timeoutMs, ...(netns !== undefined && { netns }) })
      const mesh = new NodeMesh(given, keyring, xfrm, new NodeGuard(nft, given))
      // The lock goes last.
      return new NodeEncryption(given, mesh, xfrm, () => nft.close().then(() => xfrm.close()))
    } catch (error) {
      keyring.wipe()
      await xfrm.close()
      throw error
    }
  }

  /**
   * Adds nodes, or changes those whose names are known: with another boot id their keys change too.
   *
   * @returns the report, in nodes
   * @throws InvalidArgument; nothing changed then
   * @throws PartialFailure with the report: the wish is recorded, the nodes concerned keep what they had and are degraded.
   *   With ERR_XFRMESH_SEQUENCE, here and below, all is done, but the other end may not take what an SA that was put back sends
   */
  upsert(nodes: readonly RemoteNode[], options?: NodeCallOptions): Promise<Report> {
    return this.#calls.run('upsert', options, async (call) => {
      const checked = array(nodes, 'nodes').map((node, i) => remote(node, `nodes[${i}]`, this.#settings))
      const names = new Map<string, number>()
      for (const [i, { name }] of checked.entries()) {
        const before = names.get(name)
        if (before !== undefined)
          throw new InvalidArgument(`nodes[${i}].name`, `another than nodes[${before}] has`, name)
        names.set(name, i)
      }
      const entries = checked.map((node) => this.#mesh.roster.want(node))
      return call.report(entries, await this.#mesh.follow(entries, call.execution))
    })
  }

  /**
   * Removes nodes, by name. Without marks their ranges stay guarded, so that nothing meant for them leaves in the clear,
   * until another node has them or `release()` gives them up.
   */
  remove(names: readonly string[], options?: NodeCallOptions): Promise<Report> {
    return this.#calls.run('remove', options, async (call) => {
      const checked = array(names, 'names').map((name, i) => nodeName(name, `names[${i}]`))
      const entries = [...new Set(checked)].flatMap((name) => this.#mesh.roster.drop(name) ?? [])
      const done = await this.#mesh.follow(entries, call.execution)
      return call.report(entries, done, checked.length)
    })
  }

  /** Gives up guarding the ranges that no node has: nodes' that were removed, and what an earlier process guarded. */
  release(): Promise<void> {
    return this.#calls.run('release', undefined, () => this.#mesh.release())
  }

  /**
   * The first step of a rotation: installs what decrypts under the new key, for all nodes. Once this resolves, the kernel
   * has it all, and others may be told to encrypt with it; not before.
   *
   * @throws InvalidArgument for other keys under an id in use, also where it is an earlier process's: its SAs tell, of nodes
   *   that are named
   * @throws PartialFailure with the nodes that do not have it yet, or that something else was refused of. Only if a node does
   *   not have it, the key can't be committed (`status().keys.ready`): call this again, with another key, or with that node
   *   removed
   */
  prepare(keys: NodeKeys, options?: NodeCallOptions): Promise<Report> {
    return this.#calls.run('prepare', options, async (call) => {
      return call.report(this.#mesh.roster.entries, await this.#mesh.prepare(keys, call.execution))
    })
  }

  /**
   * The second step, once all nodes have prepared: encrypts with the prepared key. Without marks the old one stops
   * encrypting at once; with them it stays until `reclaim()`, and the datapath may switch its marks now.
   *
   * @throws InvalidState if what decrypts under the key is not in place for each node
   */
  commit(options?: NodeCallOptions): Promise<Report> {
    return this.#calls.run('commit', options, async (call) => {
      return call.report(this.#mesh.roster.entries, await this.#mesh.commit(call.execution))
    })
  }

  /**
   * The last step: removes what is of keys that encrypt no more, once the present one has encrypted for `after`
   * milliseconds, and as long after another that had been prepared was given up. It waits for that: what is under way under
   * the old keys, and nodes that commit late, are decrypted until then. How long that is, and in which order keys came, the
   * kernel itself remembers, so that a restart changes nothing. The key that encrypts and the one prepared stay, whatever
   * happens meanwhile.
   *
   * @param options `after`: 0 to 2^31 - 1; default 300,000, five minutes
   * @throws InvalidState after a restart with older keys than an earlier process committed, where both still encrypt, as with
   *   marks they do: prepare() and commit() those that are to stay
   */
  async reclaim(options: NodeCallOptions & { after?: number } = {}): Promise<Report> {
    const { after = RECLAIM_AFTER, ...rest } = checkOptions<NodeCallOptions & { after?: number }>(options, 'options', [
      'signal',
      'onProgress',
      'after',
    ])
    integer(after, 'options.after', 0, 0x7fffffff)
    for (;;) {
      const outcome = await this.#calls.run('reclaim', rest, async (call) => {
        const done = await this.#mesh.reclaim(after, call.execution)
        return typeof done === 'number' ? done : call.report(this.#mesh.roster.entries, done)
      })
      if (typeof outcome !== 'number') return outcome
      await this.#wait(outcome, rest.signal)
    }
  }

  /**
   * Makes the kernel match, changing only what differs, whatever happened to it meanwhile, and removes what of ours nobody
   * asks for. @param options `dryRun`: say what would be done, and do nothing
   */
  reconcile(options: NodeCallOptions & { dryRun?: boolean } = {}): Promise<NodeReconciliation> {
    const { dryRun = false, ...rest } = checkOptions<NodeCallOptions & { dryRun?: boolean }>(options, 'options', [
      'signal',
      'onProgress',
      'dryRun',
    ])
    boolean(dryRun, 'options.dryRun')
    return this.#calls.run('reconcile', rest, async (call) => {
      if (dryRun) {
        const plan = await this.#mesh.survey()
        const count = (verb: string) => plan.filter(({ operation }) => operation.startsWith(`${verb} `)).length
        return { added: count('add'), updated: count('update'), removed: count('delete'), plan }
      }
      const { done, plan } = await this.#mesh.repair(call.execution)
      const guarded = plan.filter(({ phase }) => phase === 'guard sets').length
      call.report(this.#mesh.roster.entries, done)
      return { added: done.added, updated: done.updated + guarded, removed: done.removed, plan }
    })
  }

  status(): Promise<NodeStatus> {
    return this.#calls.run('status', undefined, async () => {
      const { current, next, isReady, old } = this.#mesh.keyring
      const guard = await this.#mesh.guard()
      const degraded = this.#mesh.roster.entries.flatMap(({ node, lack, wanted }) =>
        lack === undefined && wanted ? [] : [{ name: node.name, lack: lack ?? 'removed, and not all gone' }],
      )
      return {
        addresses: [...this.#settings.local.addresses.values()].map(({ text }) => text),
        marks: this.#settings.marks,
        keys: { current, prepared: next ?? null, ready: next !== undefined && isReady, old },
        nodes: { wanted: this.#mesh.roster.entries.filter(({ wanted }) => wanted).length, degraded },
        guard:
          guard === undefined
            ? null
            : { intact: guard.intact, differences: [...guard.differences], drops: guard.drops },
      }
    })
  }

  /**
   * The kernel's counters of packets that XFRM dropped in this namespace, each with what it means and what to do.
   * @throws Unsupported on a kernel without CONFIG_XFRM_STATISTICS
   */
  statistics(): Promise<LabelledCounter[]> {
    return this.#calls.run('statistics', undefined, async () => {
      const text = await this.#xfrm.readNetFile('xfrm_stat')
      if (text !== undefined) return labelled(text)
      throw new Unsupported(
        'CONFIG_XFRM_STATISTICS',
        'this kernel counts no XFRM errors: CONFIG_XFRM_STATISTICS is off',
      )
    })
  }

  /**
   * The kernel's switches that tunnels depend on, each with whether it is as it should be and why it should; those of
   * single devices only where they are not.
   */
  sysctls(): Promise<SysctlCheck[]> {
    const families = new Set(this.#settings.local.addresses.keys())
    return this.#calls.run('sysctls', undefined, () => checkSysctls(families, this.#xfrm))
  }

  /**
   * Has this namespace forward IPv6 between all its devices (net.ipv6.conf.all.forwarding). A router takes no router's
   * advertisements: where the host has its own addresses or routes by those, set accept_ra to 2 on that device first.
   *
   * @throws Unsupported where /proc/sys can't be written
   */
  enableIPv6Forwarding(): Promise<void> {
    return this.#calls.run('enableIPv6Forwarding', undefined, () => turnOnIPv6Forwarding(this.#xfrm))
  }

  /**
   * Ends once the calls made before are done; a `reclaim()` that waits is rejected with ERR_XFRMESH_CLOSED. What is in the
   * kernel stays, and works on, unless `flush`: then all of ours goes, the guard last.
   */
  close(options: { flush?: boolean } = {}): Promise<void> {
    if (this.#closed) return this.#closed
    const { flush = false } = checkOptions<{ flush?: boolean }>(options, 'options', ['flush'])
    boolean(flush, 'options.flush')
    this.#closing.abort()
    const flushed = flush ? this.#calls.run('close', undefined, (call) => this.#flush(call)) : Promise.resolve()
    this.#closed = Promise.all([flushed, this.#calls.close()])
      .then(() => undefined)
      .finally(async () => {
        this.#mesh.wipe()
        await this.#close()
      })
    return this.#closed
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #flush(call: Call): Promise<void> {
    await this.#mesh.look()
    const entries = this.#mesh.roster.entries
    for (const { node } of entries) this.#mesh.roster.drop(node.name)
    call.report(entries, await this.#mesh.follow(entries, call.execution, { clean: true, flush: true }))
    await this.#mesh.unguard()
  }

  async #wait(ms: number, signal: AbortSignal | undefined): Promise<void> {
    const closing = this.#closing.signal
    try {
      await sleep(ms, undefined, { signal: signal === undefined ? closing : AbortSignal.any([signal, closing]) })
    } catch (error) {
      if (closing.aborted) throw closedError('reclaim')
      throw new Aborted('reclaim: aborted while it waited', undefined, { cause: error })
    }
  }
}
