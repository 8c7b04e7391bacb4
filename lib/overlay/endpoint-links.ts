import { type Failure, InvalidArgument, XfrmeshError } from '../base/errors.js'
import type { Vteps } from '../vxlan/endpoint-table.js'
import type { Endpoints } from '../vxlan/endpoints.js'
import type { Entries } from '../vxlan/entries.js'
import type { Execution as EntriesExecution } from '../vxlan/execution.js'
import type { Found } from '../vxlan/survey.js'
import type { Convergence } from './converge.js'
import type { Step } from './describe.js'
import { type Execution, type ExecutionOptions, nothingDone } from './executor.js'
import { NO_PEER } from './ops.js'
import { drop } from './references.js'

/** A link whose endpoints have references to peers. */
export interface EndpointLink {
  readonly endpoints: Endpoints
  readonly entries: Entries
  /** The network that they are of, once there are any. */
  vni: number | undefined
  /**
   * References that endpoints had which went. As long as there are any it is not known that no entry leads to where no
   * endpoint is.
   */
  readonly owed: Vteps[]
}

interface Look {
  readonly link: EndpointLink
  /** Nothing, where there is no such link, or another one bears its name. */
  readonly found: Found | undefined
  /** Whether its entries are known to lead to where endpoints are, or nowhere. */
  isRight: boolean
}

/** All links with endpoints, while nobody else is at them: the part of a reconciliation that is theirs. */
export class EndpointLinks {
  readonly #mesh: Convergence
  readonly #links: readonly EndpointLink[]
  readonly #failures: Failure[] = []
  readonly #looks: Look[] = []

  constructor(mesh: Convergence, links: readonly EndpointLink[]) {
    this.#mesh = mesh
    this.#links = links
  }

  /** Wants no endpoint any more. */
  async wantNothing(): Promise<void> {
    for (const { entries } of this.#links) await entries.replace(await entries.checkGone([]))
  }

  /** Reads all their entries. */
  async look(): Promise<void> {
    for (const link of this.#links) {
      const { endpoints, entries } = link
      try {
        this.#looks.push({ link, found: await entries.look(), isRight: true })
      } catch (error) {
        const isMissing = error instanceof InvalidArgument
        if (endpoints.size > 0 || !isMissing) this.#failed(link, 'read endpoints', error)
        if (isMissing) this.#looks.push({ link, found: undefined, isRight: true })
      }
    }
  }

  /** What {@link around} would do, if no peer is refused. */
  async steps(): Promise<Step[]> {
    const steps: Step[] = []
    for (const { link, found } of this.#looks) {
      if (found === undefined) continue
      for (const { operation, subject } of await link.entries.steps(found, () => true)) {
        steps.push({ phase: 'endpoints', operation, subject: `${link.endpoints.link}: ${subject}` })
      }
    }
    return steps
  }

  /** Makes what no endpoint wants go. */
  async clear(): Promise<Execution> {
    return this.#report(await this.#each((entries, found) => entries.clear(found)))
  }

  /** Makes peers what they should be; before that goes what no endpoint wants, after it comes what leads to peers. */
  async around(repair: () => Promise<Execution>, options: ExecutionOptions): Promise<Execution> {
    const cleared = await this.#each((entries, found) => entries.clear(found))
    const done = await repair()
    add(done, cleared)
    if (!done.aborted) {
      add(done, await this.#each((entries, found) => entries.mend(found)))
      add(done, await this.#release(options))
    }
    return this.#report(done)
  }

  #report(done: Execution): Execution {
    for (const failure of this.#failures.splice(0)) done.failures.push({ ...failure, peer: NO_PEER })
    return done
  }

  async #each(work: (entries: Entries, found: Found) => Promise<EntriesExecution>): Promise<Execution> {
    const all = nothingDone()
    for (const look of this.#looks) {
      const { link, found } = look
      if (found === undefined) continue
      try {
        const { operations, added, updated, removed, failures, failed } = await work(link.entries, found)
        add(all, { ...nothingDone(), operations, added, updated, removed })
        for (const failure of failures) {
          this.#failures.push({ ...failure, subject: `${link.endpoints.link}: ${failure.subject}` })
        }
        if (failed.size > 0) look.isRight = false
      } catch (error) {
        look.isRight = false
        this.#failed(link, 'change endpoints', error)
      }
    }
    return all
  }

  /** Gives up the references whose entries are gone for certain. */
  async #release(options: ExecutionOptions): Promise<Execution> {
    const slots = new Set<number>()
    for (const { link, isRight } of this.#looks) {
      if (!isRight) continue
      for (const owed of link.owed.splice(0)) {
        for (const slot of await drop(this.#mesh.peers, owed, 'endpoints')) slots.add(slot)
      }
    }
    return slots.size === 0 ? nothingDone() : this.#mesh.follow([...slots], options)
  }

  #failed({ endpoints }: EndpointLink, operation: string, error: unknown): void {
    if (!(error instanceof XfrmeshError)) throw error
    const { code, message } = error
    this.#failures.push({ subject: endpoints.link, operation, errno: 0, code, message })
  }
}

/** Adds what another execution came to. */
export function add(to: Execution, other: Execution): void {
  to.operations += other.operations
  to.added += other.added
  to.updated += other.updated
  to.removed += other.removed
  for (const failure of other.failures) to.failures.push(failure)
  to.aborted ||= other.aborted
}
