import type { Failure } from '../base/errors.js'
import { Claims } from './claims.js'
import { Owner } from './owners.js'
import type { Remote, Settings } from './settings.js'

/** A node that is wanted, or not all gone. */
export interface Entry {
  readonly owner: number
  /** What it is here: the last that it could be, or, if it never could, what it should be. */
  node: Remote
  /** What it should be in place of that, and could not be yet, for another has something of it. */
  wish: Remote | undefined
  /** How often it was seen to have booted. */
  boots: number
  wanted: boolean
  /** Whether what only one node may have is this one's. */
  claimed: boolean
  /** Why it can't be what it should; undefined if it can. */
  conflict: string | undefined
  /** Whether nothing can be planned for it: then what it has stays. */
  blocked: boolean
  /** What the kernel has of it, as far as is known. */
  installed: Uint8Array
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

  /** What those are that are wanted, and what they should be. */
  get nodes(): readonly Remote[] {
    return this.entries
      .filter(({ wanted }) => wanted)
      .flatMap(({ node, wish }) => (wish === undefined ? node : [node, wish]))
  }

  /** Those of which something is lacking, or too much. */
  get unsettled(): readonly Entry[] {
    return this.entries.filter(({ lack, wanted }) => lack !== undefined || !wanted)
  }

  /** A node is wanted, or wanted otherwise: that it is once it has claimed. */
  want(node: Remote): Entry {
    const known = this.#entries.get(node.name)
    if (known === undefined) {
      const [owner, installed] = [this.#owners++, new Uint8Array(0)]
      const lacking = { wish: undefined, claimed: false, conflict: undefined, blocked: false, lack: undefined }
      const entry = { owner, node, boots: 1, wanted: true, installed, ...lacking }
      this.#entries.set(node.name, entry)
      return entry
    }
    known.wanted = true
    if (known.claimed) known.wish = node
    else become(known, node)
    return known
  }

  /** A node is wanted no more. @returns undefined if it is not known */
  drop(name: string): Entry | undefined {
    const entry = this.#entries.get(name)
    if (entry === undefined) return undefined
    this.#unclaim(entry)
    entry.wanted = false
    entry.wish = undefined
    return entry
  }

  /** Of a node that is not wanted nothing is left. */
  forget({ node }: Entry): void {
    this.#entries.delete(node.name)
  }

  /**
   * Claims for those that have not claimed yet, or are to be something else: who can't have that stays what it is. Two that
   * change places can, in one call.
   */
  claim(some: Iterable<Entry>): void {
    const open = [...some].filter(({ wanted, claimed, wish }) => wanted && (!claimed || wish !== undefined))
    const before = new Set(open.filter(({ claimed }) => claimed))
    for (const entry of open) this.#unclaim(entry)
    for (const entry of open) {
      entry.conflict = this.#claims.claim(entry.wish ?? entry.node)
      entry.claimed = entry.conflict === undefined
      if (entry.claimed && entry.wish !== undefined) become(entry, entry.wish)
    }
    for (const entry of before) if (!entry.claimed) entry.claimed = this.#claims.claim(entry.node) === undefined
  }

  #unclaim(entry: Entry): void {
    if (entry.claimed) this.#claims.release(entry.node)
    entry.claimed = false
  }
}

function become(entry: Entry, node: Remote): void {
  if (Buffer.compare(entry.node.bootId, node.bootId) !== 0) entry.boots++
  entry.node = node
  entry.wish = undefined
}

/** The lack of a node, as reports name it. */
export function failureOf({ node, conflict, lack }: Entry): Failure {
  const code = conflict === undefined ? 'ERR_XFRMESH_NO_KEY' : 'ERR_XFRMESH_NODE_CONFLICT'
  return { subject: node.name, operation: 'upsert node', errno: 0, code, message: lack! }
}
