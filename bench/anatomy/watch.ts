import { closeSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs'
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout } from 'node:timers/promises'
import { GCProfiler, getHeapStatistics, setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Effects, Sample } from '../harness/contest.js'
import { threadMs } from '../harness/sessions.js'

/** What one step does to the process that it is called in: in that process, beside the rounds that are measured. */

/** The file in which mallocs.c counts; where there is one, strace looks on, and times mean nothing. */
export const COUNTED = 'XFRMESH_BENCH_MALLOCS'
/** What is written on standard error where a step begins and ends, for strace to show. */
export const MARKS = { begin: 'anatomy: begin\n', end: 'anatomy: end\n' } as const

const IDLE_MS = 500
/** Longer than the event loop's delay is measured by. */
const TURN_MS = 10

const counted = process.env[COUNTED]

let collect: (() => void) | undefined
let idleP99Ms: number | undefined
let begun: (() => Promise<void>) | undefined

/**
 * A step that begins with what is the caller's own, such as filling a batch, calls this where that ends: it is of the rest
 * that is told. Undefined where nobody watches.
 */
export function watchFromHere(): Promise<void> | undefined {
  return begun?.()
}

/** Does a step, and returns what it did to this process. */
export async function watched(step: () => Promise<unknown>): Promise<Sample> {
  if (collect === undefined) {
    setFlagsFromString('--expose-gc')
    collect = runInNewContext('gc') as () => void
  }
  return counted === undefined ? looked(step, collect) : listed(step, counted, collect)
}

/** How often it allocated; strace sees the rest. */
async function listed(step: () => Promise<unknown>, file: string, collect: () => void): Promise<Sample> {
  let before = 0
  begun = () => {
    collect()
    before = mallocs(file)
    writeSync(2, MARKS.begin)
    return Promise.resolve()
  }
  await begun()
  await step()
  writeSync(2, MARKS.end)
  const after = mallocs(file)
  begun = undefined
  return { ms: 0, mallocs: after - before }
}

function mallocs(file: string): number {
  const bytes = new BigUint64Array(1)
  const opened = openSync(file, 'r')
  readSync(opened, bytes, 0, 8, 0)
  closeSync(opened)
  return Number(bytes[0])
}

/** What is known of a step without strace. */
export const LOOKED_AT = [
  'threadMs',
  'loopP50Ms',
  'loopP99Ms',
  'loopMostMs',
  'idleP99Ms',
  'collections',
  'collectionMs',
  'allocatedBytes',
  'heapBytes',
  'bufferBytes',
  'peakKiB',
] as const satisfies readonly (keyof Effects)[]
export type Looked = (typeof LOOKED_AT)[number]

async function looked(step: () => Promise<unknown>, collect: () => void): Promise<Sample & Pick<Effects, Looked>> {
  const delay = monitorEventLoopDelay({ resolution: 1 })
  delay.enable()
  idleP99Ms ??= await idle(delay)
  let before = { heap: 0, buffers: 0, thread: 0 }
  let profiler = new GCProfiler()
  begun = async () => {
    collect()
    // What this has kept the loop from is told at its next turn.
    await setTimeout(TURN_MS)
    profiler.stop()
    profiler = new GCProfiler()
    profiler.start()
    // The largest resident set begins anew with it (proc(5), clear_refs).
    writeFileSync('/proc/self/clear_refs', '5')
    delay.reset()
    before = memory()
  }
  await begun()
  await step()
  const after = memory()
  const peakKiB = Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))![1])
  await setTimeout(TURN_MS)
  const [p50, p99, most] = [delay.percentile(50), delay.percentile(99), delay.max]
  delay.disable()
  const { statistics } = profiler.stop()
  begun = undefined
  const freed = statistics.reduce(
    (sum, { beforeGC, afterGC }) => sum + beforeGC.heapStatistics.usedHeapSize - afterGC.heapStatistics.usedHeapSize,
    0,
  )
  collect()
  const left = memory()
  return {
    ms: 0,
    threadMs: after.thread - before.thread,
    loopP50Ms: p50 / 1e6,
    loopP99Ms: p99 / 1e6,
    loopMostMs: most / 1e6,
    idleP99Ms,
    collections: statistics.length,
    collectionMs: statistics.reduce((sum, { cost }) => sum + cost, 0) / 1000,
    allocatedBytes: after.heap - before.heap + freed,
    heapBytes: left.heap - before.heap,
    bufferBytes: left.buffers - before.buffers,
    peakKiB,
  }
}

function memory(): { heap: number; buffers: number; thread: number } {
  return { heap: getHeapStatistics().used_heap_size, buffers: process.memoryUsage().arrayBuffers, thread: threadMs() }
}

async function idle(delay: IntervalHistogram): Promise<number> {
  await setTimeout(IDLE_MS)
  return delay.percentile(99) / 1e6
}
