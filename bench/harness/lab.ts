import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { Measured, Place } from '../main.js'

const root = join(import.meta.dirname, '../../..')
/** Seconds: for what hangs. */
const LIMIT = 3 * 3600

/**
 * Runs scenarios in the lab, which is this program there, and hands over what it wrote: also what it had measured when it
 * failed, or when its time was up.
 */
export async function inLab(
  place: Exclude<Place, 'here'>,
  scenarios: readonly string[],
  options: readonly string[],
  directory: string,
  take: (measured: Measured) => Promise<void>,
): Promise<void> {
  const out = join(directory, place)
  await mkdir(out, { recursive: true })
  const written = join(out, 'results.json')
  await rm(written, { force: true })
  const lab = ['--limit', String(LIMIT), '--writable', out, ...(place === 'counted' ? ['--icount'] : [])]
  const command = [
    'node',
    'build/bench/main.js',
    '--inside',
    place,
    '--scenario',
    scenarios.join(),
    '--out',
    out,
    ...options,
  ]
  const running = spawn(join(root, 'test/lab/lab'), [...lab, '--', ...command], {
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  const [status] = (await once(running, 'close')) as [number | null]
  const text = await readFile(written, 'utf8').catch(() => undefined)
  if (text !== undefined) await take(JSON.parse(text) as Measured)
  if (status !== 0 || text === undefined) throw new Error(`the lab (${place}) ended with status ${status}`)
}
