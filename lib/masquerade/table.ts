import { setTimeout as sleep } from 'node:timers/promises'
import { NetlinkError, XfrmeshError } from '../base/errors.js'
import type { Nft } from '../kernel/nft.js'
import type { Ledger } from './ledger.js'
import type { Plan } from './plan.js'
import { readAttachments, readLedger, readMark, type ListedAttachment } from './read.js'
import { write } from './write.js'

/** How often a change is planned anew because somebody else's came in between. */
const TRIES = 16
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

  constructor(nft: Nft) {
    this.#nft = nft
  }

  /**
   * Carries out what is planned from what the table holds, or plans anew if it holds something else by then.
   * @throws XfrmeshError ERR_XFRMESH_BUSY if it always did
   */
  async change(make: (ledger: Ledger) => Plan | undefined): Promise<{ added: number; removed: number }> {
    for (let tries = 1; ; tries++) {
      const remembered = this.#known?.ledger
      const known = await this.#look()
      const plan = make(known.ledger)
      if (plan === undefined) return { added: 0, removed: 0 }
      try {
        await this.#commit(plan, known)
        const { addRules, addElements, deleteRules, deleteElements } = plan
        return { added: addRules.length + addElements.length, removed: deleteRules.length + deleteElements.length }
      } catch (error) {
        if (isOvertaken(error)) {
          if (tries === TRIES) throw busy(error)
          await sleep(Math.random() * Math.min(2 ** tries, LONGEST_WAIT_MS))
        } else if (!(error instanceof NetlinkError) || known.ledger !== remembered) throw error
        // What was remembered was wrong: something was put in the place of something else, and nothing told.
      }
    }
  }

  async list(): Promise<ListedAttachment[]> {
    return (await this.#nft.snapshot(() => readAttachments(this.#nft))).value
  }

  /** What the table holds now: read only if it may be something else than is remembered. */
  async #look(): Promise<Known> {
    const nft = this.#nft
    const known = this.#known
    if (known !== undefined) {
      if ((await nft.generation()) === known.generation) return known
      const { value: mark, generation } = await nft.snapshot(() => readMark(nft))
      if (mark === known.mark) return (this.#known = { ...known, generation })
    }
    const { value, generation } = await nft.snapshot(async () => ({
      mark: await readMark(nft),
      ledger: await readLedger(nft),
    }))
    return (this.#known = { ...value, generation })
  }

  async #commit(plan: Plan, { ledger, generation }: Known): Promise<void> {
    const transaction = write(plan, ledger, () => undefined)
    const { failures } = await this.#nft.commit(transaction, { generation }).catch((error: unknown) => {
      // Then nothing was done, and what is known may hold still: another table changed, for one.
      if (!isOvertaken(error)) this.#known = undefined
      throw error
    })
    this.#known = undefined
    const [failure] = failures
    if (failure !== undefined) throw new NetlinkError(`masquerade: ${failure.subject}`, failure.errno, failure.message)
  }
}

function isOvertaken(error: unknown): boolean {
  return error instanceof XfrmeshError && error.code === 'ERR_XFRMESH_RULESET_CHANGED'
}

function busy(cause: unknown): XfrmeshError {
  return new XfrmeshError('ERR_XFRMESH_BUSY', `masquerade: the ruleset changed before each of ${TRIES} commits`, {
    cause,
  })
}
