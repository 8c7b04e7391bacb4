import type { Failure } from '../base/errors.js'
import { Claims } from './claims.js'
import { Owner } from './owners.js'
import type { Remote, Settings } from './settings.js'

/** A node that is wanted, or not all gone. */
export interface Entry {
  readonly owner: number
  node: Remote
  /** How often it was seen to have booted. */
  boots: number
  wanted: boolean
  /** Whether what only one node may have is this one's. */
  claimed: boolean
  /** Whether it can't have what it wants: then it keeps what it has. */
  blocked: boolean
  /** What the kernel has of it, as far as is known. */
  installed: Uint8Array
  /** What it was when it last had all that it wanted, and how often it had booted by then: blocked, it keeps what is that's. */
  settled: { readonly node: Remote; readonly boots: number } | undefined
  /** Why it does not have all that it should; undefined if it has. */
  lack: string | undefined
}

/** The nodes that are wanted, and those of which something is left, by name. */
export class Roster {
  readonly #claims: Claims
  readonly #entries = new Map<string, Entry>()
  #owners: number = Owner.firstNode

  constructor(settings: Settings) {
    this.#claims = new Claims(settings)
  }

  get entries(): readonly Entry[] {
    return [...this.#entries.values()]
  }

  /** Those that are wanted. */
  get nodes(): readonly Remote[] {
    return this.entries.filter(({ wanted }) => wanted).map(({ node }) => node)
  }

  /** Those of which something is lacking, or too much. */
  get unsettled(): readonly Entry[] {
    return this.entries.filter(({ lack, wanted }) => lack !== undefined || !wanted)
  }

  /** A node is wanted, or wanted otherwise. */
  want(node: Remote): Entry {
    const known = this.#entries.get(node.name)
    if (known === undefined) {
      const [owner, installed] = [this.#owners++, new Uint8Array(0)]
      const lacking = { claimed: false, blocked: false, settled: undefined, lack: undefined }
      const entry = { owner, node, boots: 1, wanted: true, installed, ...lacking }
      this.#entries.set(node.name, entry)
      return entry
    }
    this.#unclaim(known)
    if (Buffer.compare(known.node.bootId, node.bootId) !== 0) known.boots++
    known.node = node
    known.wanted = true
    return known
  }

  /** A node is wanted no more. @returns undefined if it is not known */
  drop(name: string): Entry | undefined {
    const entry = this.#entries.get(name)
    if (entry === undefined) return undefined
    this.#unclaim(entry)
    entry.wanted = false
    return entry
  }

  /** Of a node that is not wanted nothing is left. */
  forget({ node }: Entry): void {
    this.#entries.delete(node.name)
  }

  /** Claims for those that can. */
  stake(): void {
    for (const entry of this.entries) {
      if (entry.wanted && !entry.claimed) entry.claimed = this.#claims.claim(entry.node) === undefined
    }
  }

  /**
   * Claims for those that have not claimed yet.
   * @param lackOf why a node can't have what it wants, whatever the others have
   * @returns a failure for each that can't
   */
  claim(some: Iterable<Entry>, lackOf: (node: Remote) => string | undefined): Failure[] {
    const failures: Failure[] = []
    for (const entry of some) {
      if (!entry.wanted) continue
      const conflict = entry.claimed ? undefined : this.#claims.claim(entry.node)
      entry.claimed = conflict === undefined
      entry.lack = conflict ?? lackOf(entry.node)
      entry.blocked = entry.lack !== undefined
      if (entry.blocked) failures.push(failureOf(entry))
    }
    return failures
  }

  #unclaim(entry: Entry): void {
    if (entry.claimed) this.#claims.release(entry.node)
    entry.claimed = false
  }
}

/** The lack of a node, as reports name it. */
export function failureOf({ node, claimed, lack }: Entry): Failure {
  const code = claimed ? 'ERR_XFRMESH_NO_KEY' : 'ERR_XFRMESH_NODE_CONFLICT'
  return { subject: node.name, operation: 'upsert node', errno: 0, code, message: lack! }
}
