import { join } from 'node:path'
import type { Contestant } from './contest.js'
import { LineProgram } from './sessions.js'

const program = join(import.meta.dirname, '../alone.js')

/**
 * Has one of ours at work in a process of its own. The harness starts programs all the time, and after a fork each page
 * that a process writes is copied first: whatever is measured in it takes up to twice as long.
 */
export function alone(
  scenario: string,
  contestant: Contestant,
  size: number,
): { readonly contestant: Contestant; end(): Promise<void> } {
  const running = LineProgram.start(undefined, process.execPath, [program, scenario, contestant.name, String(size)])
  const tell = (command: AloneCommand) => running.tell(JSON.stringify(command))
  const open: Contestant['open'] = async ({ name }) => {
    await tell({ open: name })
    return {
      step: (step) => tell({ step }),
      close: async () => {
        await tell('close')
      },
    }
  }
  return { contestant: { ...contestant, open }, end: () => running.end() }
}

/** A line that bench/alone.ts reads. */
export type AloneCommand = { readonly open: string } | { readonly step: string } | 'close'
