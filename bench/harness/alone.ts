import { join } from 'node:path'
import type { Contestant } from './contest.js'
import { LineProgram } from './sessions.js'

const program = join(import.meta.dirname, '../alone.js')

/** A line that bench/alone.ts reads. `watch` is a step that says what it does to its process, in place of its time. */
export type AloneCommand =
  { readonly open: string; readonly size: number } | { readonly step: string } | { readonly watch: string } | 'close'

/**
 * One of ours at work in a process of its own. The harness starts programs all the time, and after a fork each page that a
 * process writes is copied first: whatever is measured in it takes up to twice as long.
 */
export class Alone {
  readonly contestant: Contestant
  /** The same, in the same process, but that its samples are what {@link AloneCommand} says of `watch`. */
  readonly watched: Contestant
  readonly #running: LineProgram

  private constructor(running: LineProgram, contestant: Contestant) {
    const tell = (command: AloneCommand) => running.tell(JSON.stringify(command))
    const opening =
      (command: (step: string) => AloneCommand): Contestant['open'] =>
      async ({ name }, size) => {
        await tell({ open: name, size })
        return {
          step: (step) => tell(command(step)),
          close: async () => {
            await tell('close')
          },
        }
      }
    this.#running = running
    this.contestant = { ...contestant, open: opening((step) => ({ step })) }
    this.watched = { ...contestant, open: opening((watch) => ({ watch })) }
  }

  /** @param node how Node.js is called */
  static start(scenario: string, contestant: Contestant, node: readonly string[] = [process.execPath]): Alone {
    const words = [...node.slice(1), program, scenario, contestant.name]
    return new Alone(LineProgram.start(undefined, node[0]!, words), contestant)
  }

  end(): Promise<void> {
    return this.#running.end()
  }
}

/** Ends their processes after `work`, whatever came of it. */
export async function during<T>(running: readonly Alone[], work: () => Promise<T>): Promise<T> {
  const end = () => Promise.all(running.map((each) => each.end()))
  let result: T
  try {
    result = await work()
  } catch (error) {
    // What came first is what is told.
    await end().catch(() => undefined)
    throw error
  }
  await end()
  return result
}
