import { setTimeout as sleep } from 'node:timers/promises'
import { NetlinkError, XfrmeshError } from '../base/errors.js'
import type { Nft } from '../kernel/nft.js'
import { emptyLedger, type Ledger } from './ledger.js'
import { apply, type Plan } from './plan.js'
import { readAttachments, readLedger, readMark, type ListedAttachment } from './read.js'
import { write } from './write.js'

/** How often a change is planned anew because somebody else's came in between, and a reading begun again. */
const TRIES = 64
/** The longest wait between two of them, which is as often less as more: so that two who met do not meet again. */
const LONGEST_WAIT_MS = 50

/** What the table held at a generation of the ruleset. */
interface Known {
  readonly ledger: Ledger
  readonly mark: string | undefined
  readonly generation: number
}

/** The table in the kernel, and what is remembered of it. */
export class Table {
  readonly #nft: Nft
  #known: Known | undefined
  /** Of what the latest change made. */
  #remembering: Promise<void> = Promise.resolve()

  constructor(nft: Nft) {
    this.#nft = nft
  }

  /** Looks whether there is a table: where there is none, the first change need not look. */
  async open(): Promise<void> {
    const now = await this.#now()
    if (now.mark === undefined) this.#known = { ledger: emptyLedger(), ...now }
  }

  /**
   * Carries out what is planned from what the table holds, or plans anew if it holds something else by then.
   * @throws XfrmeshError ERR_XFRMESH_BUSY if it always did
   */
  async change(make: (ledger: Ledger) => Promise<Plan | undefined>): Promise<{ added: number; removed: number }> {
    await this.#remembering
    for (let tries = 1; ; tries++) {
      // What is remembered is tried first: if it is out of date the kernel says so, or nobody needs it.
      const remembered = this.#known
      const looked = tries > 1 || remembered === undefined
      const known = looked ? await this.#look() : remembered
      const plan = await make(known.ledger)
      if (plan === undefined) {
        if (looked) return { added: 0, removed: 0 }
        continue
      }
      try {
        await this.#commit(plan, known)
        return { added: plan.added, removed: plan.removed }
      } catch (error) {
        if (isOvertaken(error)) {
          if (tries === TRIES) throw busy('commits', error)
          if (looked) await pause(tries)
        } else if (!(error instanceof NetlinkError) || known.ledger !== remembered?.ledger) throw error
        // What was remembered was wrong: something was put in the place of something else, and nothing told.
      }
    }
  }

  async list(): Promise<ListedAttachment[]> {
    return (await this.#reading(() => readAttachments(this.#nft), await readMark(this.#nft))).value
  }

  /** What the table holds now: read only if it may be something else than is remembered. */
  async #look(): Promise<Known> {
    const known = this.#known
    if (known !== undefined) {
      const generation = await this.#nft.generation()
      if (generation === known.generation) return known
    }
    const now = await this.#now()
    if (known !== undefined && now.mark === known.mark) return (this.#known = { ...known, ...now })
    this.#known = undefined
    if (now.mark === undefined) return (this.#known = { ledger: emptyLedger(), ...now })
    const { value: ledger, ...when } = await this.#reading(() => readLedger(this.#nft), now.mark)
    return (this.#known = { ledger, ...when })
  }

  /** The mark, and a generation of the ruleset that is as old or older: if somebody commits after that, ours is refused. */
  async #now(): Promise<Omit<Known, 'ledger'>> {
    // The socket does what it is asked in that order.
    const [generation, mark] = await Promise.all([this.#nft.generation(), readMark(this.#nft)])
    return { generation, mark }
  }

  /**
   * Reads until nobody wrote to the table meanwhile; what is done to other tables does not matter. The mark is that of what
   * was read, and so it was at that generation of the ruleset.
   * @param mark as it was before
   * @throws XfrmeshError ERR_XFRMESH_BUSY if somebody always did
   */
  async #reading<T>(
    read: () => Promise<T>,
    mark: string | undefined,
  ): Promise<{ value: T; mark: string | undefined; generation: number }> {
    let before = mark
    for (let tries = 1; ; tries++) {
      const [outcome] = await Promise.allSettled([read()])
      const now = await this.#now()
      if (now.mark === before) {
        if (outcome.status === 'rejected') throw outcome.reason
        return { value: outcome.value, ...now }
      }
      if (tries === TRIES) throw busy('readings')
      before = now.mark
    }
  }

  async #commit(plan: Plan, known: Known): Promise<void> {
    const { ledger, generation } = known
    const { transaction, firstMapping, maps } = write(plan, ledger)
    const echo = plan.rules + maps.size > 0
    this.#known = undefined
    const committing = this.#nft.commit(transaction, { generation, echo })
    // Asked for at once: the socket does what it is asked in that order. The mark is that of what was made, unless somebody
    // wrote in between, which the generation tells.
    const marking = Promise.all([readMark(this.#nft), this.#nft.generation()]).catch(() => undefined)
    const done = await committing.catch((error: unknown) => {
      // Then nothing was done, and what is known may hold still: another table changed, for one.
      if (isOvertaken(error)) this.#known = known
      throw error
    })
    const [failure] = done.failures
    if (failure !== undefined) throw new NetlinkError(`masquerade: ${failure.subject}`, failure.errno, failure.message)
    const { handles = none } = done
    const [mark, now] = (await marking) ?? []
    if (now !== done.generation || (echo && handles === none)) return
    const made = {
      mappings: handles.subarray(firstMapping, firstMapping + plan.rules),
      maps: new Map(Array.from(maps, ([family, change]) => [family, handles[change]!])),
    }
    // It is made, whatever comes of this, and nobody need wait for it but the next change.
    const next = { ledger, mark, generation: now! }
    this.#remembering = apply(this.#nft, plan, ledger, made).then(
      () => void (this.#known = next),
      () => undefined,
    )
  }
}

const none = new Float64Array()

function isOvertaken(error: unknown): boolean {
  return error instanceof XfrmeshError && error.code === 'ERR_XFRMESH_RULESET_CHANGED'
}

async function pause(tries: number): Promise<void> {
  await sleep(Math.random() * Math.min(2 ** tries, LONGEST_WAIT_MS))
}

function busy(what: string, cause?: unknown): XfrmeshError {
  return new XfrmeshError('ERR_XFRMESH_BUSY', `masquerade: the table changed during each of ${TRIES} ${what}`, {
    cause,
  })
}
