import type { Effects } from '../harness/contest.js'
import { MARKS } from './watch.js'

/** What strace sees of a step. */
export type Calls = Pick<Effects, 'systemCalls' | 'bytesSent' | 'bytesReceived'>

/** Of each step that a trace (strace -f -s 0) has marks of, in their order. */
export function callsIn(trace: string): Calls[] {
  const mark = new RegExp(` write\\(2, ""\\.\\.\\., (${MARKS.begin.length}|${MARKS.end.length})(?:\\)| <unfinished)`)
  const steps: Calls[] = []
  let counts = new Map<string, number>()
  let [bytesSent, bytesReceived, within] = [0, 0, false]
  for (const line of trace.split('\n')) {
    const marked = mark.exec(line)?.[1]
    if (Number(marked) === MARKS.begin.length) {
      // The latest beginning is the one.
      ;[counts, bytesSent, bytesReceived, within] = [new Map<string, number>(), 0, 0, true]
      continue
    }
    if (!within) continue
    if (marked !== undefined) {
      within = false
      const systemCalls = Object.fromEntries([...counts].sort((a, b) => b[1] - a[1]))
      steps.push({ systemCalls, bytesSent, bytesReceived })
      continue
    }
    const name = /^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed)/.exec(line)?.[1]
    if (name === undefined) continue
    const bytes = Number(/ = (\d+)/.exec(line)?.[1] ?? 0)
    if (name.startsWith('send')) bytesSent += bytes
    if (name.startsWith('recv')) bytesReceived += bytes
    if (!line.includes(' resumed')) counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  return steps
}
