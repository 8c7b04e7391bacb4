import { KEY_WORDS } from '../base/address-key.js'
import { AF_INET, AF_INET6, type Family } from '../base/address.js'
import { Pace } from '../base/pace.js'
import type { EndpointLink } from './endpoint-link.js'
import { EndpointList } from './endpoint-list.js'
import { EndpointTable, noChanges, type Changes } from './endpoint-table.js'
import { carryOut, merged, nothingDone, type Execution } from './execution.js'
import {
  deleteFdb,
  deleteFound,
  deleteNeighbours,
  heldBack,
  holdFdb,
  setFdb,
  setNeighbours,
  type Phase,
  type Step,
} from './phases.js'
import { Standing } from './rows.js'
import { survey, type Found } from './survey.js'

/** What following changes came to: how many endpoints have all that they should, or nothing of what they should not. */
export interface Followed extends Execution {
  readonly applied: number
}

/** Whether frames may be sent to the VTEP at that word: not before there is what encrypts them. */
export type Readiness = (vteps: Uint32Array, at: number) => boolean

/**
 * The entries of a link: knows which there should be and how the kernel's stand to them, and makes those so. What it does
 * not want any more it forgets, done or not: a look finds what is left. One caller at a time.
 */
export class Entries {
  readonly table = new EndpointTable()
  /** FDB entries to what is not ready are held back: the kernel has none for their MACs. */
  isReady: Readiness = () => true
  readonly #link: EndpointLink
  /** Index of the link that entries were last set on, or looked at. */
  #index: number | undefined

  constructor(link: EndpointLink) {
    this.#link = link
  }

  /** The link's network and its port, once the link is known. */
  get network(): { readonly vni: number; readonly port: number } | undefined {
    return this.#link.known
  }

  /**
   * Checks endpoints that are to be wanted.
   *
   * @param assumed the family of VTEPs, where the link names none
   * @throws InvalidArgument; what {@link EndpointLink.open} does
   */
  async check(given: readonly unknown[], assumed?: Family): Promise<EndpointList> {
    const { family } = given.length === 0 ? {} : await this.#link.open()
    return EndpointList.of(given, family ?? assumed)
  }

  /** Checks endpoints that are to be wanted no more. Their link may be gone by now. @throws InvalidArgument */
  checkGone(given: readonly unknown[], assumed?: Family): Promise<EndpointList> {
    return EndpointList.of(given, this.#link.known?.family ?? assumed)
  }

  /** Wants these, beside those that it wants. What that changes is to be followed. */
  async put(list: EndpointList): Promise<Changes> {
    const changes = noChanges()
    const pace = new Pace()
    this.table.reserve(list.size)
    for (let i = 0; i < list.size; i++) {
      this.table.put(list, i, changes)
      if (pace.isDue) await pace.breathe()
    }
    return changes
  }

  /** Wants these no more. */
  async take(list: EndpointList): Promise<Changes> {
    const changes = noChanges()
    const pace = new Pace()
    for (let i = 0; i < list.size; i++) {
      this.table.take(list, i, changes)
      if (pace.isDue) await pace.breathe()
    }
    return changes
  }

  /** Wants these and no others. A look tells what that changes. */
  async replace(list: EndpointList): Promise<void> {
    const changes = await this.put(list)
    const pace = new Pace()
    for (const row of this.table.rows()) {
      if (list.find(this.table.ips, row * KEY_WORDS) < 0) this.table.remove(row, changes)
      if (pace.isDue) await pace.breathe()
    }
    await this.forgo()
  }

  /** Makes the kernel follow changes. What is held back is among the failures. */
  async follow({ set, gone }: Changes): Promise<Followed> {
    const { table } = this
    const due = await table.fdb.due()
    const [ready, held] = await this.#sorted(due.set, this.isReady)
    const lacking = await gather(set, (row) => table.standing[row] !== Standing.right)
    const goneNeighbours = deleteNeighbours(table, gone)
    const goneFdb = deleteFdb(table, due.gone)
    const phases = [
      setFdb(table, ready),
      setNeighbours(table, lacking),
      goneNeighbours,
      goneFdb,
      holdFdb(table, await gather(held, (row) => table.fdb.standing[row] !== Standing.held)),
    ]
    try {
      const done = await this.#carryOut(phases, [goneNeighbours, goneFdb])
      const left = { neighbours: done.failed.get(goneNeighbours), pairs: done.failed.get(goneFdb) }
      const isGone = (row: number) => left.neighbours?.has(row) !== true && left.pairs?.has(table.pairs[row]!) !== true
      const came = await gather(set, (row) => table.isRight(row))
      return { ...(await this.#holding(done, held)), applied: came.length + (await gather(gone, isGone)).length }
    } finally {
      await table.sweep()
      if (this.#link.known === undefined) table.forget()
    }
  }

  /** Leaves changes to the next look. */
  async forgo(): Promise<void> {
    await this.table.fdb.due()
    await this.table.sweep()
  }

  /** Reads the link's entries: the table knows then how they stand. Returns what else was found. */
  async look(): Promise<Found> {
    const { channel, index } = await this.#link.look(this.table.size > 0)
    const fdb = await channel.readFdb(index)
    const neighbours = [await channel.readNeighbours(index, AF_INET), await channel.readNeighbours(index, AF_INET6)]
    this.#index = index
    return survey(this.table, { fdb, neighbours })
  }

  /** What a repair after a look would do, in order. */
  async steps(found: Found, isReady = this.isReady): Promise<Step[]> {
    const { phases } = await this.#wanted(found, isReady)
    const steps: Step[] = []
    const pace = new Pace()
    for (const phase of [...phases, ...unwanted(found)]) {
      for (const subject of phase.subjects) {
        steps.push(phase.describe(subject))
        if (pace.isDue) await pace.breathe()
      }
    }
    return steps
  }

  /** Does what a look found is to be done: {@link mend}, then {@link clear}. Nothing may have happened since. */
  async repair(found: Found): Promise<Execution> {
    const done = await this.mend(found)
    return merged(done, await this.clear(found))
  }

  /** Makes what is wanted, and what stands in its place go. What is held back is among the failures. */
  async mend(found: Found): Promise<Execution> {
    const { phases, held } = await this.#wanted(found, this.isReady)
    const { standing } = this.table.fdb
    // The look found none.
    for (const row of held) if (standing[row] === Standing.unknown) standing[row] = Standing.held
    return this.#holding(await this.#repair(phases), held)
  }

  /** Makes what a look found, and nobody wants, go. */
  clear(found: Found): Promise<Execution> {
    return this.#repair(unwanted(found))
  }

  /** How many endpoints the kernel is known to have as they should be. */
  async right(): Promise<number> {
    return (await gather(this.table.rows(), (row) => this.table.isRight(row))).length
  }

  /** After a look. */
  async #wanted({ inTheWay }: Found, isReady: Readiness): Promise<{ phases: Phase[]; held: readonly number[] }> {
    const { table } = this
    const { fdb } = table
    const [ready, held] = await this.#sorted(fdb.heads(), isReady)
    const phases = [
      deleteFound('FDB', inTheWay),
      setFdb(table, await gather(ready, (row) => fdb.standing[row] !== Standing.right)),
      setNeighbours(table, await gather(table.rows(), (row) => table.standing[row] !== Standing.right)),
      holdFdb(table, await gather(held, (row) => isThere(fdb.standing[row]!))),
    ]
    return { phases, held }
  }

  /** Heads that are ready, and those that are held back. */
  async #sorted(heads: Iterable<number>, isReady: Readiness): Promise<[ready: number[], held: number[]]> {
    const { vteps } = this.table.fdb
    const held: number[] = []
    const ready = await gather(heads, (row) => isReady(vteps, row * KEY_WORDS) || held.push(row) < 0)
    return [ready, held]
  }

  async #holding(done: Execution, held: readonly number[]): Promise<Execution> {
    const failures = [...done.failures]
    const pace = new Pace()
    for (const row of held) {
      failures.push(heldBack(this.table, row))
      if (pace.isDue) await pace.breathe()
    }
    return { ...done, failures }
  }

  async #repair(phases: readonly Phase[]): Promise<Execution> {
    try {
      return await this.#carryOut(phases)
    } finally {
      if (this.#link.known === undefined) this.table.forget()
    }
  }

  /** @param left those that delete what was set before: it was on that link, and not on another that was made since */
  async #carryOut(phases: readonly Phase[], left: readonly Phase[] = []): Promise<Execution> {
    let something = phases.filter(({ subjects }) => subjects.length > 0)
    if (something.length === 0) return nothingDone()
    const isLess = something.every(({ isDeletion }) => isDeletion)
    // What a link had is gone with it.
    const link = isLess ? await this.#link.find() : await this.#link.open()
    if (link === undefined) return nothingDone()
    if (link.index !== (this.#index ?? link.index)) something = something.filter((phase) => !left.includes(phase))
    if (!isLess) this.#index = link.index
    const done = await carryOut(link.channel, link.index, something)
    if (done.isLinkGone) this.#link.forget()
    return done
  }
}

function unwanted({ neighbours, fdb }: Found): Phase[] {
  return [deleteFound('neighbour', neighbours), deleteFound('FDB', fdb)]
}

/** Whether a look found an entry. */
function isThere(standing: number): boolean {
  return standing === Standing.right || standing === Standing.differs
}

/** Those of some rows, while others have their turn. */
async function gather(rows: Iterable<number>, keep: (row: number) => boolean): Promise<number[]> {
  const kept: number[] = []
  const pace = new Pace()
  for (const row of rows) {
    if (keep(row)) kept.push(row)
    if (pace.isDue) await pace.breathe()
  }
  return kept
}
