import { CommanderError } from 'commander'
import { XfrmeshError } from '../base/errors.js'
import { CommandError } from '../demo/processes.js'

/** What the command line ends with. */
export const Exit = { ok: 0, failed: 1, usage: 2 } as const

/** The exit status for an error, and what to say of it; nothing if it was said already. */
export function judge(error: unknown): { status: number; said: string } {
  // commander has printed its help, version or complaint by now.
  if (error instanceof CommanderError) return { status: error.exitCode === 0 ? Exit.ok : Exit.usage, said: '' }
  if (error instanceof XfrmeshError || error instanceof CommandError) {
    return { status: Exit.failed, said: `xfrmesh: ${oneLine(error.message)}\n` }
  }
  const what = error instanceof Error ? (error.stack ?? error.message) : String(error)
  return { status: Exit.failed, said: `xfrmesh: an error of its own: ${what}\n` }
}

function oneLine(text: string): string {
  return text.trim().replace(/\s*\n\s*/g, '; ')
}
