import { closeSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs'
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout } from 'node:timers/promises'
import { GCProfiler, getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Effects, Sample } from '../harness/contest.js'

/** What one step does to the process that it is called in: in that process, beside the rounds that are measured. */

/** The file in which mallocs.c counts; where there is one, strace looks on, and times mean nothing. */
export const COUNTED = 'XFRMESH_BENCH_MALLOCS'
/** What is written on standard error where a step begins and ends, for strace to show. */
export const MARKS = { begin: 'anatomy: begin\n', end: 'anatomy: end\n' } as const

const IDLE_MS = 500
/** Longer than the event loop's delay is measured by. */
const TURN_MS = 10

const counted = process.env[COUNTED]

let idleP99Ms: number | undefined
let begun: (() => Promise<void>) | undefined

/**
 * A step that begins with what is the caller's own, such as filling a batch, calls this where that ends: it is of the rest
 * that is told. Undefined where nobody watches.
 */
export function watchFromHere(): Promise<void> | undefined {
  return begun?.()
}

/** Does a step, and returns what it did to this process: what is told where strace looks on, or else {@link looked}. */
export function watched(step: () => Promise<unknown>): Promise<Sample> {
  return counted === undefined ? looked(step) : listed(step, counted)
}

/** How often it allocated, and what stays when all is collected: which has code compiled anew, so that no times are told. */
async function listed(step: () => Promise<unknown>, file: string): Promise<Sample & Pick<Effects, Listed>> {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  let before = { ...memory(), mallocs: 0 }
  begun = async () => {
    collect()
    await setTimeout(TURN_MS)
    before = { ...memory(), mallocs: mallocs(file) }
    writeSync(2, MARKS.begin)
  }
  await begun()
  await step()
  writeSync(2, MARKS.end)
  const after = mallocs(file)
  begun = undefined
  if (before.mallocs === 0) throw new Error(`nothing counts allocations in ${file}`)
  collect()
  // Buffers that nobody holds are freed beside the collection.
  await setTimeout(TURN_MS)
  const { heap, buffers } = memory()
  return {
    ms: 0,
    mallocs: after - before.mallocs,
    heapBytes: heap - before.heap,
    bufferBytes: buffers - before.buffers,
  }
}

export type Listed = 'mallocs' | 'heapBytes' | 'bufferBytes'

function mallocs(file: string): number {
  const bytes = new BigUint64Array(1)
  const opened = openSync(file, 'r')
  readSync(opened, bytes, 0, 8, 0)
  closeSync(opened)
  return Number(bytes[0])
}

/** What is known of a step without strace. */
export const LOOKED_AT = [
  'loopP50Ms',
  'loopP99Ms',
  'loopMostMs',
  'idleP99Ms',
  'collections',
  'collectionMs',
  'allocatedBytes',
  'peakKiB',
] as const satisfies readonly (keyof Effects)[]
export type Looked = (typeof LOOKED_AT)[number]

async function looked(step: () => Promise<unknown>): Promise<Sample & Pick<Effects, Looked>> {
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  idleP99Ms ??= await idle(delay)
  let before = 0
  let profiler = new GCProfiler()
  begun = async () => {
    // What this has kept the loop from is told at its next turn.
    await setTimeout(TURN_MS)
    profiler.stop()
    profiler = new GCProfiler()
    profiler.start()
    // The largest resident set begins anew with it (proc(5), clear_refs).
    writeFileSync('/proc/self/clear_refs', '5')
    delay.reset()
    before = memory().heap
  }
  await begun()
  await step()
  const after = memory().heap
  const collections = profiler.stop().statistics.filter(({ gcType }) => /Scavenge|Compact/.test(gcType))
  const peakKiB = Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))![1])
  await setTimeout(TURN_MS)
  const [p50, p99, most] = [delay.percentile(50), delay.percentile(99), delay.max]
  delay.disable()
  begun = undefined
  const freed = collections.reduce(
    (sum, { beforeGC, afterGC }) => sum + beforeGC.heapStatistics.usedHeapSize - afterGC.heapStatistics.usedHeapSize,
    0,
  )
  return {
    ms: 0,
    loopP50Ms: p50 / 1e6,
    loopP99Ms: p99 / 1e6,
    loopMostMs: most / 1e6,
    idleP99Ms,
    collections: collections.length,
    collectionMs: collections.reduce((sum, { cost }) => sum + cost, 0) / 1000,
    allocatedBytes: after - before + freed,
    peakKiB,
  }
}

function memory(): { heap: number; buffers: number } {
  return { heap: getHeapStatistics().used_heap_size, buffers: process.memoryUsage().arrayBuffers }
}

async function idle(delay: IntervalHistogram): Promise<number> {
  await setTimeout(IDLE_MS)
  return delay.percentile(99) / 1e6
}
