import fc from 'fast-check'
import { Aborted, InvalidArgument, InvalidState, type Overlay, PartialFailure } from '../../lib/index.js'
import { Operation, RecordReader, State } from '../../lib/kernel/records.js'
import { Ending } from '../../lib/kernel/xfrm-channel.js'
import { drops } from '../../lib/overlay/guard.js'
import type { FirewallState } from '../../lib/overlay/firewall.js'
import type { KeyInput } from '../../lib/overlay/keyring.js'
import type { FirewallPort, NatPort, Ports, XfrmPort } from '../../lib/overlay/ports.js'
import { VniSet } from '../../lib/overlay/vni-set.js'
import { Kernel, key, LOCAL } from './model.js'

/** Stories: calls on an Overlay one after the other, told to a model of the kernel, or to a real one. */

/** What refuses or fails, asked once for each message, and once for each batch. */
export interface Weather {
  refuses(): boolean
  /** Whether the socket fails before the batch is through: after how many messages. */
  breaks(messages: number): number | undefined
}

export const fair: Weather = { refuses: () => false, breaks: () => undefined }

const EEXIST = 17
const ESRCH = 3
const ENOMEM = 12
const EINVAL = 22
const ETIMEDOUT = 110

/** A model of the SAD, the SPD and the firewall's set behind an Overlay's ports. */
export class ModelPorts implements Ports {
  readonly kernel = new Kernel()
  readonly guarded = new Set<number>()
  #told: VniSet | undefined
  nat?: NatPort
  weather: Weather = fair
  /** Messages taken, dumps read. */
  operations = 0
  reads = 0
  /** Of the firewall's table. */
  tampered = false

  readonly xfrm: XfrmPort = {
    commit: (records, { keys }, signal) => Promise.resolve(this.#commit(records, keys, signal)),
    read: ({ policies, keys, algorithms }) => {
      this.reads++
      const all = this.kernel.dump(keys)
      const records = policies ? all.policies : all.states
      return Promise.resolve({ ...answered, records, keys: keys.map((k) => k.slice()), algorithms: [...algorithms] })
    },
    close: () => Promise.resolve(),
  }

  readonly firewall: FirewallPort = {
    // As the real one it remembers what it told, and asks what should be there only where that is out of date.
    apply: ({ add = [], keep = () => [], remove = [] }) => {
      const isRemembered = this.#told !== undefined && String([...this.#told]) === String([...new VniSet(this.guarded)])
      for (const vni of isRemembered ? add : [...keep(), ...add]) this.guarded.add(vni)
      for (const vni of remove) this.guarded.delete(vni)
      this.#told = new VniSet(this.guarded)
      return Promise.resolve(this.#told)
    },
    read: () => Promise.resolve(this.#firewall()),
    restore: (networks) => {
      this.tampered = false
      this.#told = undefined
      this.guarded.clear()
      for (const vni of networks) this.guarded.add(vni)
      return Promise.resolve()
    },
  }

  hasSocketOf({ linkNamespace }: { linkNamespace: number | undefined }): Promise<boolean> {
    return Promise.resolve(linkNamespace === undefined)
  }

  close(): Promise<void> {
    return Promise.resolve()
  }

  #firewall(): FirewallState {
    const networks = new VniSet(this.guarded)
    this.#told = networks
    return {
      exists: networks.size > 0,
      intact: networks.size > 0 && !this.tampered,
      differences: [],
      networks,
      otherPort: undefined,
      drops: drops([]),
    }
  }

  #commit(records: Uint8Array, keys: readonly Uint8Array[], signal: AbortSignal | undefined) {
    const outcome = {
      ending: Ending.complete as number,
      errno: 0,
      sent: 0,
      messages: [],
      sends: 1,
      readBack: 0,
      unknown: 0,
    }
    if (signal?.aborted) return { ...outcome, ending: Ending.cancelled, failures: new Uint32Array() }
    const failures: number[] = []
    const reader = new RecordReader(records)
    const batch: Uint8Array[] = []
    while (reader.next()) batch.push(reader.record())
    const isProbe = isOfNoState(batch[0]!)
    const end = isProbe ? undefined : this.weather.breaks(batch.length)
    for (const record of batch) {
      if (outcome.sent === end)
        return { ...outcome, ending: Ending.failed, errno: ETIMEDOUT, failures: Uint32Array.from(failures) }
      const index = outcome.sent++
      const errno = this.#take(record, keys)
      if (errno !== 0) failures.push(index, errno, 0xffffffff)
      else this.operations++
    }
    return { ...outcome, failures: Uint32Array.from(failures) }
  }

  #take(record: Uint8Array, keys: readonly Uint8Array[]): number {
    // The kernel changes no SA that is not there: so the Overlay asks it whether it has ESP.
    if (isOfNoState(record)) return ESRCH
    if (this.weather.refuses()) return ENOMEM
    const said = this.kernel.take(record, keys)
    return said === undefined ? 0 : { EEXIST, ESRCH, EINVAL }[said]
  }
}

function isOfNoState(record: Uint8Array): boolean {
  const reader = new RecordReader(record)
  return reader.next() && reader.u8(State.operation) === Operation.updateState && reader.u32(State.spi) === 0
}

const answered = { ending: Ending.complete, errno: 0, message: undefined }

/** Peers, among them pairs whose SPIs collide under tags 1 and 2, and one that derives a reserved one under tag 1. */
export const PEERS = [
  '10.0.0.2',
  '10.0.0.3',
  '192.0.2.200',
  '47.214.176.99',
  '3.143.180.106',
  '35.132.163.212',
  '85.193.104.44',
]
export const TAGS = [1, 2, 3, 4, 5]
/** Tag 4 has the value of tag 3. */
const given = (tag: number): KeyInput => key(tag, tag === 4 ? 3 : tag)
const tag = fc.constantFrom(...TAGS)
const peers = fc.array(fc.constantFrom(...PEERS), { minLength: 1, maxLength: 5 })
const networks = fc.array(fc.constantFrom<number[]>(0, 4096, 5000), { minLength: 1, maxLength: 2 })

export const call = fc.oneof(
  { weight: 3, arbitrary: fc.record({ name: fc.constant('setKeys' as const), tags: fc.array(tag, { maxLength: 4 }) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      name: fc.constant('updateKeys' as const),
      update: fc.record({ add: tag.map(given), primary: tag, prune: tag }, { requiredKeys: [] }),
    }),
  },
  { weight: 6, arbitrary: fc.record({ name: fc.constant('addPeers' as const), peers }) },
  { weight: 4, arbitrary: fc.record({ name: fc.constant('removePeers' as const), peers }) },
  { weight: 1, arbitrary: fc.record({ name: fc.constant('addNetworks' as const), networks }) },
  { weight: 1, arbitrary: fc.record({ name: fc.constant('removeNetworks' as const), networks }) },
  { weight: 2, arbitrary: fc.record({ name: fc.constant('reconcile' as const), dryRun: fc.boolean() }) },
)
export type StoryCall = typeof call extends fc.Arbitrary<infer T> ? T : never

/** How a call ended: its report or result, or the error that it may end with. Any other is thrown. */
export async function tell(overlay: Overlay, story: StoryCall): Promise<unknown> {
  try {
    switch (story.name) {
      case 'setKeys':
        return await overlay.setKeys(story.tags.map(given))
      case 'updateKeys':
        return await overlay.updateKeys(story.update)
      case 'addPeers':
        return await overlay.addPeers(story.peers)
      case 'removePeers':
        return await overlay.removePeers(story.peers)
      case 'addNetworks':
        return await overlay.addNetworks(story.networks)
      case 'removeNetworks':
        return await overlay.removeNetworks(story.networks)
      case 'reconcile':
        return await overlay.reconcile({ dryRun: story.dryRun })
    }
  } catch (error) {
    const expected = [InvalidArgument, InvalidState, PartialFailure, Aborted]
    if (expected.some((type) => error instanceof type)) return error
    throw error
  }
}

/** What should be after the calls that were not refused, kept as simply as can be. */
export class Wish {
  keys: number[] = []
  readonly references = new Map<string, number>()
  readonly networks = new Set<number>()

  /** Follows a call that ended so. */
  follow(story: StoryCall, ended: unknown): void {
    if (ended instanceof InvalidArgument || ended instanceof InvalidState) return
    switch (story.name) {
      case 'setKeys':
        this.keys = story.tags
        return
      case 'updateKeys': {
        const { add, primary, prune } = story.update
        if (add !== undefined && !this.keys.includes(add.tag)) this.keys = [...this.keys, add.tag]
        if (primary !== undefined) this.keys = [primary, ...this.keys.filter((other) => other !== primary)]
        this.keys = this.keys.filter((other) => other !== prune)
        return
      }
      case 'addPeers':
        for (const peer of story.peers) this.references.set(peer, (this.references.get(peer) ?? 0) + 1)
        return
      case 'removePeers':
        for (const peer of story.peers) {
          const left = (this.references.get(peer) ?? 0) - 1
          if (left > 0) this.references.set(peer, left)
          else this.references.delete(peer)
        }
        return
      case 'addNetworks':
        for (const vni of story.networks) this.networks.add(vni)
        return
      case 'removeNetworks':
        for (const vni of story.networks) this.networks.delete(vni)
        return
      case 'reconcile':
    }
  }
}

export { LOCAL }
