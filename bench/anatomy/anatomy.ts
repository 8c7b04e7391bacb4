import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Alone, during } from '../harness/alone.js'
import type { Anatomy, Contestant, Effects, Sample, Scenario } from '../harness/contest.js'
import { keepFile } from '../harness/files.js'
import { round } from '../harness/round.js'
import { median } from '../harness/statistics.js'
import { type Calls, callsIn } from './trace.js'
import { COUNTED, type Listed, LOOKED_AT, type Looked } from './watch.js'

const mallocs = join(import.meta.dirname, '../../anatomy/mallocs.so')

/**
 * What each step of one of ours does to its process: the median of some rounds in the one that has been up for a while, and
 * one in a process of its own that strace looks on at.
 */
export async function dissect(scenario: Scenario, running: Alone, size: number, rounds: number): Promise<Anatomy> {
  const seen: Map<string, Sample>[] = []
  for (let i = 0; i < rounds; i++) seen.push(await round(scenario, running.watched, size, false))
  const traced = await trace(scenario, running.contestant, size)
  const steps = [...seen[0]!.keys()].map((step) => {
    const medianOf = (name: string) => median(seen.map((each) => each.get(step)![name]!))
    const figures = Object.fromEntries(LOOKED_AT.map((name) => [name, medianOf(name)]))
    return [step, { ...(figures as Record<Looked, number>), ...traced.get(step)! }] as const
  })
  return { name: running.contestant.name, steps: Object.fromEntries(steps) }
}

async function trace(
  scenario: Scenario,
  contestant: Contestant,
  size: number,
): Promise<Map<string, Calls & Pick<Effects, Listed>>> {
  const [seen, count] = [keepFile(), keepFile(new Uint8Array(8))]
  const strace = ['-f', '-qq', '-s', '0', '-e', 'signal=none', '-o', seen]
  const running = Alone.start(scenario.name, contestant, [
    'strace',
    ...strace,
    ...['-E', `LD_PRELOAD=${mallocs}`, '-E', `${COUNTED}=${count}`],
    process.execPath,
  ])
  const samples = await during([running], async () => {
    // A first time makes what stays.
    await round(scenario, running.contestant, size, false)
    return round(scenario, running.watched, size, false)
  })
  const calls = callsIn(await readFile(seen, 'utf8'))
  if (calls.length !== samples.size) throw new Error(`strace shows ${calls.length} steps of ${samples.size}`)
  const listed = ({ mallocs, heapBytes, bufferBytes }: Sample) => ({
    mallocs: mallocs!,
    heapBytes: heapBytes!,
    bufferBytes: bufferBytes!,
  })
  return new Map([...samples].map(([step, sample], i) => [step, { ...listed(sample), ...calls[i]! }]))
}
