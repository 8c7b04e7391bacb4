import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Namespace } from '#dist/demo/namespace.js'
import { run } from '#dist/demo/processes.js'
import { inNamespace } from '../harness/contend.js'
import { keepFile } from '../harness/files.js'
import { digits } from '../harness/report.js'
import { KEYS } from '../xfrm/common.js'

interface Delay {
  p50: number
  p99: number
  max: number
}

/** A large call, by what it makes: `rules` and `elements` are masquerading's in either layout. */
export type Call = 'policies' | 'peers' | 'networks' | 'rules' | 'elements'

/** What one large call does to the process that makes it. Delays are of the event loop, in nanoseconds. */
export interface Anatomy {
  what: Call
  size: number
  elapsedMs: number
  /** On a processor, of the JavaScript thread alone. */
  threadMs: number
  idle: Delay
  busy: Delay
  /** Garbage collections. */
  collections: number
  gcMs: number
  /** The largest resident set, and by how much it grew. */
  peakKiB?: number
  residentKiB: number
  /** That stay, an object of the size's unit: in V8's heap, and in array buffers beside it. */
  heapBytesEach: number
  bufferBytesEach: number
  /** All threads', by name. */
  systemCalls: Record<string, number>
  bytesSent: number
  bytesReceived: number
}

const subject = join(import.meta.dirname, 'subject.js')

/** Makes the call once in a process that is only measured, and once in one that strace counts the system calls of. */
export async function dissect(what: Anatomy['what'], size: number): Promise<Anatomy> {
  const words = [subject, what]
  const measured = await inNamespace(async (namespace) => {
    const said = await run(process.execPath, [...words, namespace.netns, String(size)])
    await checkMade(namespace, what, size)
    return said
  })
  const seen = keepFile()
  await inNamespace(({ netns }) =>
    run('strace', [
      '-f',
      '-qq',
      '-s',
      '0',
      '-e',
      'signal=none',
      '-o',
      seen,
      process.execPath,
      ...words,
      netns,
      String(size),
    ]),
  )
  const own = JSON.parse(measured) as Omit<Anatomy, 'what' | 'size' | 'systemCalls' | 'bytesSent' | 'bytesReceived'>
  return { what, size, ...own, ...callsIn(await readFile(seen, 'utf8')) }
}

/** Throws unless `ip` or `nft` shows as many as the call was to make. */
async function checkMade(namespace: Namespace, what: Call, size: number): Promise<void> {
  const ruleset = async (one: RegExp) => (await namespace.ruleset()).match(one)?.length ?? 0
  const made = {
    policies: () => namespace.policies(),
    peers: async () => (await namespace.states()) / (KEYS.length + 1),
    // Marks and offsets stand in rules, outside of braces.
    networks: async () => /elements = \{([^}]*)\}/.exec(await namespace.ruleset())?.[1]!.split(',').length ?? 0,
    rules: () => ruleset(/ masquerade comment /g),
    elements: () => ruleset(/ : jump subnet_/g),
  }
  let count = NaN
  // A set whose hash table grows is not told whole.
  for (let tries = 0; tries < 50 && count !== size; tries++) {
    await sleep(100)
    count = await made[what]()
  }
  if (count !== size) throw new Error(`${count} ${what} were made, not ${size}`)
}

function callsIn(trace: string): Pick<Anatomy, 'systemCalls' | 'bytesSent' | 'bytesReceived'> {
  const lines = trace.split('\n')
  // The marks are writes of their lengths, with nothing shown of them (-s 0).
  const marks = lines.flatMap((line, i) => (/ write\(2, ""\.\.\., 1[35]\)/.test(line) ? [i] : []))
  if (marks.length !== 2) throw new Error(`strace shows ${marks.length} marks of two`)
  const counts = new Map<string, number>()
  let [bytesSent, bytesReceived] = [0, 0]
  for (const line of lines.slice(marks[0]! + 1, marks[1])) {
    const name = /^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed)/.exec(line)?.[1]
    if (name === undefined) continue
    const bytes = Number(/ = (\d+)/.exec(line)?.[1] ?? 0)
    if (name.startsWith('send')) bytesSent += bytes
    if (name.startsWith('recv')) bytesReceived += bytes
    if (!line.includes(' resumed')) counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  const systemCalls = Object.fromEntries([...counts].sort((a, b) => b[1] - a[1]))
  return { systemCalls, bytesSent, bytesReceived }
}

/** For a terminal. */
export function anatomyText(a: Anatomy): string {
  const ms = (nanoseconds: number) => digits(nanoseconds / 1e6)
  const calls = Object.entries(a.systemCalls).map(([name, count]) => `${count} ${name}`)
  const total = Object.values(a.systemCalls).reduce((sum, count) => sum + count, 0)
  const peak = a.peakKiB === undefined ? '' : `${digits(a.peakKiB / 1024)} MiB at most, `
  return [
    `${a.size.toLocaleString('en')} ${a.what} in one call of a fresh process: ${digits(a.elapsedMs)} ms`,
    `  JavaScript thread    ${digits(a.threadMs)} ms on a processor, ${a.collections} collections (${digits(a.gcMs)} ms)`,
    `  event loop's delay   p50 ${ms(a.busy.p50)}, p99 ${ms(a.busy.p99)}, most ${ms(a.busy.max)} ms (idle: ${ms(a.idle.p50)}, ${ms(a.idle.p99)}, ${ms(a.idle.max)})`,
    `  memory               ${digits(a.heapBytesEach)} bytes of heap and ${digits(a.bufferBytesEach)} of buffers each stay; resident ${peak}${digits(a.residentKiB / 1024)} MiB more than before`,
    `  system calls         ${total}: ${calls.slice(0, 6).join(', ')}`,
    `  copied               ${digits(a.bytesSent / 1024)} KiB to the kernel, ${digits(a.bytesReceived / 1024)} KiB back`,
    '',
  ].join('\n')
}
