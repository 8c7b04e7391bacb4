import { join } from 'node:path'
import { run } from '#dist/demo/processes.js'
import type { Contestant } from './contest.js'
import { LineProgram, session } from './sessions.js'

const program = join(import.meta.dirname, '../../../build/floor/floor')

/** More messages than any scenario has. */
const ALL = 1 << 20

/** The chunk that served best, by the files it was found for. */
const chunks = new Map<string, Promise<number>>()

/** Which netlink messages these are; an nft file is cut at its transactions, the others in the best chunk. */
export type Protocol = 'xfrm' | 'route' | 'nft'

/**
 * bench/floor/floor.c on recorded messages: a file for each step. They were recorded for one size; so is the best chunk
 * found, by running all of them in namespaces made for it, unless `chunk` says it.
 *
 * @param link commands of `ip` that make what the messages are about, for the namespaces in which the chunk is found
 */
export function floorOf(
  files: Readonly<Record<string, string>>,
  protocol: Protocol,
  { chunk, link = [] }: { readonly chunk?: number; readonly link?: readonly string[] } = {},
): Contestant {
  return {
    name: 'floor (C)',
    role: 'floor',
    open: async (namespace) => {
      const best = chunk ?? (protocol === 'nft' ? undefined : await bestChunk(Object.values(files), protocol, link))
      const words = best === undefined ? [] : ['--chunk', String(best)]
      const floor = LineProgram.start(namespace, program, [protocol, ...words])
      const steps = Object.entries(files).map(([step, file]) => [step, () => floor.tell(file)] as const)
      return session(Object.fromEntries(steps), () => floor.end())
    },
  }
}

/** The same messages, all in one send: what a hash table is short of room for grows after it, not during it. */
export function allAtOnce(files: Readonly<Record<string, string>>, protocol: Protocol): Contestant {
  return { ...floorOf(files, protocol, { chunk: ALL }), name: 'all in one send (C)', role: 'peer' }
}

function bestChunk(files: readonly string[], protocol: Protocol, link: readonly string[]): Promise<number> {
  const name = files.join()
  const known = chunks.get(name) ?? findChunk(files, protocol, link)
  chunks.set(name, known)
  return known
}

async function findChunk(files: readonly string[], protocol: Protocol, link: readonly string[]): Promise<number> {
  const prepare = link.length === 0 ? [] : ['--prepare', link.map((command) => `ip ${command}`).join(' && ')]
  const said = await run(program, [protocol, '--find-chunk', ...prepare, ...files])
  return (JSON.parse(said) as { chunk: number }).chunk
}
