import { KEY_WORDS } from '../base/address-key.js'
import { AF_INET, AF_INET6 } from '../base/address.js'
import { Pace } from '../base/pace.js'
import type { EndpointLink } from './endpoint-link.js'
import { EndpointList } from './endpoint-list.js'
import { EndpointTable, noChanges, type Changes } from './endpoint-table.js'
import { carryOut, nothingDone, type Execution } from './execution.js'
import { deleteFdb, deleteFound, deleteNeighbours, setFdb, setNeighbours, type Phase, type Step } from './phases.js'
import { Standing } from './rows.js'
import { survey } from './survey.js'

/** What following changes came to: how many endpoints have all that they should, or nothing of what they should not. */
export interface Followed extends Execution {
  readonly applied: number
}

/** What a look at the link found is to be done. */
export interface Look {
  readonly phases: readonly Phase[]
}

/**
 * The entries of a link: knows which there should be and how the kernel's stand to them, and makes those so. What it does
 * not want any more it forgets, done or not: a look finds what is left. One caller at a time.
 */
export class Entries {
  readonly table = new EndpointTable()
  readonly #link: EndpointLink

  constructor(link: EndpointLink) {
    this.#link = link
  }

  /** Checks endpoints that are to be wanted. @throws InvalidArgument; what {@link EndpointLink.open} does */
  async check(given: readonly unknown[]): Promise<EndpointList> {
    const { family } = given.length === 0 ? {} : await this.#link.open()
    return EndpointList.of(given, family)
  }

  /** Checks endpoints that are to be wanted no more. Their link may be gone by now. @throws InvalidArgument */
  checkGone(given: readonly unknown[]): Promise<EndpointList> {
    return EndpointList.of(given, this.#link.known?.family)
  }

  /** Wants these, beside those that it wants. What that changes is to be followed. */
  async put(list: EndpointList): Promise<Changes> {
    const changes = noChanges()
    const pace = new Pace()
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
    this.forgo()
  }

  /**
   * Makes the kernel follow changes.
   * @param isReady whether what its entries lead to is ready, by rows of pairs
   */
  async follow({ set, gone }: Changes, isReady: (pair: number) => boolean = () => true): Promise<Followed> {
    const { table } = this
    const due = table.fdb.due()
    const lacking = await gather(set, (row) => table.standing[row] !== Standing.right)
    const goneNeighbours = deleteNeighbours(table, gone)
    const goneFdb = deleteFdb(table, due.gone)
    try {
      const done = await this.#carryOut([
        setFdb(table, due.set),
        setNeighbours(table, lacking),
        goneNeighbours,
        goneFdb,
      ])
      const left = { neighbours: done.failed.get(goneNeighbours), pairs: done.failed.get(goneFdb) }
      const isGone = (row: number) => left.neighbours?.has(row) !== true && left.pairs?.has(table.pairs[row]!) !== true
      const came = await gather(set, (row) => table.isRight(row) && isReady(table.pairs[row]!))
      return { ...done, applied: came.length + (await gather(gone, isGone)).length }
    } finally {
      table.sweep()
      if (this.#link.known === undefined) table.forget()
    }
  }

  /** Leaves changes to the next look. */
  forgo(): void {
    this.table.fdb.due()
    this.table.sweep()
  }

  /** Reads the link's entries and finds what is to be done. */
  async look(): Promise<Look> {
    const { table } = this
    const { channel, index } = await this.#link.look()
    const fdb = await channel.readFdb(index)
    const neighbours = [await channel.readNeighbours(index, AF_INET), await channel.readNeighbours(index, AF_INET6)]
    const found = await survey(table, { fdb, neighbours })
    const pairs = await gather(table.fdb.heads(), (row) => table.fdb.standing[row] !== Standing.right)
    const rows = await gather(table.rows(), (row) => table.standing[row] !== Standing.right)
    const phases = [
      deleteFound('FDB', found.inTheWay),
      setFdb(table, pairs),
      setNeighbours(table, rows),
      deleteFound('neighbour', found.neighbours),
      deleteFound('FDB', found.fdb),
    ]
    return { phases }
  }

  /** The steps of a look, in order. */
  async steps({ phases }: Look): Promise<Step[]> {
    const steps: Step[] = []
    const pace = new Pace()
    for (const phase of phases) {
      for (const subject of phase.subjects) {
        steps.push(phase.describe(subject))
        if (pace.isDue) await pace.breathe()
      }
    }
    return steps
  }

  /** Does what a look found. Nothing may have happened since. */
  async repair({ phases }: Look): Promise<Execution> {
    try {
      return await this.#carryOut(phases)
    } finally {
      if (this.#link.known === undefined) this.table.forget()
    }
  }

  /** How many endpoints the kernel is known to have as they should be. */
  async right(): Promise<number> {
    return (await gather(this.table.rows(), (row) => this.table.isRight(row))).length
  }

  async #carryOut(phases: readonly Phase[]): Promise<Execution> {
    const something = phases.filter(({ subjects }) => subjects.length > 0)
    if (something.length === 0) return nothingDone()
    // What a link had is gone with it.
    const link = something.every(({ isDeletion }) => isDeletion) ? await this.#link.find() : await this.#link.open()
    if (link === undefined) return nothingDone()
    const done = await carryOut(link.channel, link.index, something)
    if (done.isLinkGone) this.#link.forget()
    return done
  }
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
