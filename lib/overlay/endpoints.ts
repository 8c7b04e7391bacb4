import { familyOf, KEY_WORDS, parseKey, unpackKey } from '../base/address-key.js'
import { ADDRESS_BYTES } from '../base/address.js'
import { array } from '../base/check.js'
import { type Failure, InvalidArgument, InvalidState } from '../base/errors.js'
import { Pace } from '../base/pace.js'
import type { EndpointList } from '../vxlan/endpoint-list.js'
import type { Changes } from '../vxlan/endpoint-table.js'
import type { OpenLink } from '../vxlan/endpoint-link.js'
import { type Endpoint, Endpoints, type Holder } from '../vxlan/endpoints.js'
import type { Done } from './calls.js'
import type { Convergence } from './converge.js'
import { type EndpointLink, EndpointLinks } from './endpoint-links.js'
import { type ExecutionOptions, nothingDone } from './executor.js'
import type { Settings } from './options.js'
import { POLICY_DIFFERS } from './peers.js'
import type { Ports } from './ports.js'
import { drop, retain } from './references.js'
import type { VniSet } from './vni-set.js'

/** What a call on endpoints is given, as it was when the call was made. */
export interface GivenEndpoints {
  readonly endpoints: Endpoints
  readonly list: readonly unknown[]
}

/** @throws InvalidArgument */
export function takenEndpoints(endpoints: unknown, list: unknown): GivenEndpoints {
  if (!(endpoints instanceof Endpoints)) {
    throw new InvalidArgument(
      'link',
      "an Endpoints of xfrmesh/vxlan, as in new Endpoints({ link: 'vx4096' })",
      endpoints,
    )
  }
  return { endpoints, list: array(list, 'endpoints').slice() }
}

/** What a call on endpoints came to, in endpoints. */
export interface Outcome {
  readonly done: Done
  /** Endpoints that took doing. */
  readonly changed: number
  readonly applied: number
}

/**
 * The endpoints of encrypted networks: each has one reference to the peer that is its VTEP, beside those of callers.
 *
 * The peer comes first: its FDB entries are made once there is what encrypts to it, and held back until then. What leads to
 * it goes first: its reference after that. So of an endpoint whose new VTEP is not ready the entry to the old one goes too:
 * the endpoint is there no more, and without its reference the old peer may lose its SAs at any time. Frames to its MAC then
 * have nowhere to go.
 */
export class CountedEndpoints implements Holder {
  readonly #mesh: Convergence
  readonly #settings: Settings
  readonly #hasSocketOf: Ports['hasSocketOf']
  /** Makes sure that the kernel has what SAs need. */
  readonly #probe: () => Promise<void>
  /** Those that have endpoints, or had and may have entries of theirs. They are held for as long. */
  readonly #links = new Map<Endpoints, EndpointLink>()
  readonly #address = new Uint8Array(ADDRESS_BYTES)

  constructor(mesh: Convergence, settings: Settings, hasSocketOf: Ports['hasSocketOf'], probe: () => Promise<void>) {
    this.#mesh = mesh
    this.#settings = settings
    this.#hasSocketOf = hasSocketOf
    this.#probe = probe
  }

  /** One whose packets would not be encrypted here, or that is of another network than its endpoints. */
  async refusal(endpoints: Endpoints, found: OpenLink): Promise<InvalidArgument | undefined> {
    const { form } = this.#settings
    const name = endpoints.link
    const { vni, port, family } = found
    const refused = (expected: string) => new InvalidArgument('link', expected)
    if (port !== form.port) {
      return refused(`one at UDP port ${form.port}, which is encrypted; ${name} sends to ${port}`)
    }
    if (family !== undefined && family !== form.local.family) {
      return refused(`one whose outer addresses are of local's family (${form.local.text}); ${name}'s are not`)
    }
    const before = this.#links.get(endpoints)?.vni
    if (before !== undefined && vni !== before) {
      const advice = endpoints.size > 0 ? 'removeEndpoints() with them first' : 'reconcile() first'
      return refused(`of network ${before}, as when its endpoints were added; ${name} is of ${vni} now: ${advice}`)
    }
    if (await this.#hasSocketOf(found)) return undefined
    return refused(
      `one whose UDP socket is in the overlay's network namespace, where its packets are encrypted; ${name}'s is in another: make the link in the overlay's, and move it`,
    )
  }

  /** Whether there is what encrypts to a VTEP. */
  isReady(endpoints: Endpoints, vteps: Uint32Array, at: number): boolean {
    const vni = this.#links.get(endpoints)?.vni
    if (vni === undefined || !this.#mesh.isEncrypted(vni)) return false
    const slot = this.#slot(vteps, at)
    const { peers } = this.#mesh
    if (slot < 0 || peers.outbound[slot] === 0) return false
    const policy = peers.policy[slot]!
    return this.#settings.form.policies === 'shared' || (policy !== 0 && policy !== POLICY_DIFFERS)
  }

  /** @throws InvalidArgument; InvalidState; Unsupported: nothing has changed then */
  add({ endpoints, list: given }: GivenEndpoints, options: ExecutionOptions): Promise<Outcome> {
    if (endpoints.isClosed) {
      const message = `addEndpoints: the Endpoints of ${endpoints.link} are closed`
      return Promise.reject(new InvalidState(message, 'ERR_XFRMESH_CLOSED'))
    }
    return this.#held(endpoints, async (link) => {
      const { entries } = link
      const { form } = this.#settings
      const { peers, keyring } = this.#mesh
      if (keyring.size === 0) {
        throw new InvalidState('addEndpoints: there are no keys yet: call setKeys() first', 'ERR_XFRMESH_NO_KEYS')
      }
      const list = await entries.check(given, form.local.family)
      if (list.size > 0) await this.#check(link, list, given)
      await this.#probe()
      const { gained, lost } = await entries.table.moves(list, true)
      await retain(peers, gained, form.natPort, 'endpoints')
      const changes = await entries.put(list)
      link.owed.push(lost)
      const slots = await this.#degraded(list)
      let done: Done = nothingDone()
      try {
        if (slots.length > 0) done = await this.#mesh.follow(slots, options)
      } catch (error) {
        await entries.forgo()
        throw error
      }
      if (!done.aborted) return this.#finish(link, changes, done, options)
      await entries.forgo()
      return { done, changed: changes.set.length, applied: 0 }
    })
  }

  /** @throws InvalidArgument: nothing has changed then */
  remove({ endpoints, list: given }: GivenEndpoints, options: ExecutionOptions): Promise<Outcome> {
    return this.#held(endpoints, async (link) => {
      const { entries, owed } = link
      const list = await entries.checkGone(given, this.#settings.form.local.family)
      const { lost } = await entries.table.moves(list, false)
      const changes = await entries.take(list)
      owed.push(lost)
      return this.#finish(link, changes, nothingDone(), options)
    })
  }

  /** Does work on all links that have endpoints of ours, with nobody else at them. */
  hold<T>(work: (links: EndpointLinks) => Promise<T>): Promise<T> {
    const links = [...this.#links.values()]
    const holdRest = (from: number): Promise<T> => {
      const link = links[from]
      if (link === undefined) return work(new EndpointLinks(this.#mesh, links))
      return this.#held(link.endpoints, () => holdRest(from + 1))
    }
    return holdRest(0)
  }

  /** @throws InvalidState for networks of which there are endpoints: frames to these would leave in the clear */
  checkUnused(networks: VniSet): void {
    if (this.#settings.form.exclusive) return
    for (const { endpoints, vni } of this.#links.values()) {
      if (vni === undefined || !networks.has(vni)) continue
      const { link, size } = endpoints
      const why = size > 0 ? `has ${size} endpoints at ${link}` : `may have entries of removed endpoints at ${link}`
      const advice = size > 0 ? 'call removeEndpoints() with them first' : 'call reconcile() first'
      throw new InvalidState(`removeNetworks: network ${vni} ${why}: ${advice}`, 'ERR_XFRMESH_HAS_ENDPOINTS')
    }
  }

  /** Lets go of all links. Their entries stay. */
  async release(): Promise<void> {
    for (const { endpoints } of this.#links.values()) await endpoints.release(this)
    this.#links.clear()
  }

  /** What is not as it should be, as far as that is known, a sentence each. */
  async lacks(): Promise<string[]> {
    const lacking: string[] = []
    for (const { endpoints, entries, owed } of this.#links.values()) {
      const count = entries.table.size - (await entries.right())
      if (count > 0) lacking.push(`${endpoints.link}: ${count} endpoints lack entries`)
      if (owed.length > 0) lacking.push(`${endpoints.link}: entries may lead to where no endpoint is any more`)
    }
    return lacking
  }

  #held<T>(endpoints: Endpoints, work: (link: EndpointLink) => Promise<T>): Promise<T> {
    return endpoints.held(this, async (entries) => {
      const link = this.#links.get(endpoints) ?? { endpoints, entries, vni: undefined, owed: [] }
      this.#links.set(endpoints, link)
      try {
        return await work(link)
      } finally {
        if (endpoints.size === 0 && link.owed.length === 0) {
          this.#links.delete(endpoints)
          await endpoints.release(this)
        }
      }
    })
  }

  /** Follows changes with the link's entries; after them the references go that the last of the owed are. */
  async #finish(link: EndpointLink, changes: Changes, before: Done, options: ExecutionOptions): Promise<Outcome> {
    const { entries, owed } = link
    const followed = await entries.follow(changes)
    const failures: Failure[] = [...before.failures, ...followed.failures]
    const { applied } = followed
    const changed = changes.set.length + changes.gone.length
    let operations = before.operations + followed.operations
    // What could not be changed, now or before, may still lead to where no endpoint is: peers stay until a look shows that
    // it does not.
    if (owed.length > 1 || (followed.failed.size > 0 && !followed.isLinkGone)) {
      return { done: { operations, failures, aborted: false }, changed, applied }
    }
    const slots = await drop(this.#mesh.peers, owed.pop()!, 'endpoints')
    const released = slots.length === 0 ? nothingDone() : await this.#mesh.follow(slots, options)
    operations += released.operations
    return {
      done: { operations, failures: [...failures, ...released.failures], aborted: released.aborted },
      changed,
      applied,
    }
  }

  /** Slots of the peers of a list that lack anything. */
  async #degraded(list: EndpointList): Promise<number[]> {
    const slots = new Set<number>()
    const pace = new Pace()
    for (let i = 0; i < list.size; i++) {
      if (pace.isDue) await pace.breathe()
      const slot = this.#slot(list.vteps, i * KEY_WORDS)
      if (slot >= 0 && this.#mesh.peers.degraded[slot] === 1) slots.add(slot)
    }
    return [...slots]
  }

  #slot(vteps: Uint32Array, at: number): number {
    const { peers } = this.#mesh
    unpackKey(new Uint8Array(vteps.buffer), at * 4, familyOf(vteps, at), this.#address, 0)
    peers.load(this.#address)
    return peers.find()
  }

  /** Whether these can be had on that link now. */
  async #check(link: EndpointLink, list: EndpointList, given: readonly unknown[]): Promise<void> {
    const { form, advertise } = this.#settings
    const { vni } = link.entries.network!
    const { networks } = this.#mesh
    // The policies of an exclusive one come with its peers.
    if (!form.exclusive && !networks.isGuarded(vni)) {
      const advice = networks.wanted.has(vni) ? 'call reconcile() first' : `call addNetworks([${vni}]) first`
      throw new InvalidState(
        `addEndpoints: network ${vni} of ${link.endpoints.link} is not encrypted: ${advice}`,
        'ERR_XFRMESH_NO_NETWORK',
      )
    }
    link.vni = vni
    for (const own of [form.local.text, advertise]) await checkOthers(list, given, own)
  }
}

/** @throws InvalidArgument naming `endpoints[2].vtep`, if that is this node's own */
async function checkOthers(list: EndpointList, given: readonly unknown[], text: string): Promise<void> {
  const own = keyOf(text)
  const isOwn = (keys: Uint32Array, at: number) => own.every((word, i) => keys[at + i] === word)
  const pace = new Pace()
  for (let i = 0; i < list.size; i++) {
    if (pace.isDue) await pace.breathe()
    if (!isOwn(list.vteps, i * KEY_WORDS)) continue
    const index = given.findIndex((endpoint) => isOwn(keyOf((endpoint as Endpoint).vtep), 0))
    throw new InvalidArgument(
      `endpoints[${index}].vtep`,
      `another node's address; ${text} is this node's own, whose containers are at the link's bridge`,
    )
  }
}

function keyOf(text: string): Uint32Array {
  const key = new Uint32Array(KEY_WORDS)
  parseKey(text, new Uint8Array(key.buffer), 0)
  return key
}
