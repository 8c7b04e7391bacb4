/**
 * What one large call does to the process that makes it: run by anatomy.ts, which reads the one line of JSON that it
 * prints, and what strace saw between the two marks on its standard error.
 *
 * usage: subject.js policies|peers|networks|rules|elements NETNS SIZE
 */
import { writeSync } from 'node:fs'
import { monitorEventLoopDelay, PerformanceObserver } from 'node:perf_hooks'
import { setTimeout } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Overlay } from 'xfrmesh'
import { type Attachment, Masquerade } from 'xfrmesh/masquerade'
import { Xfrm, XfrmBatch } from 'xfrmesh/xfrm'
import { threadMs } from '../harness/sessions.js'
import { attachment } from '../masquerade/mappings.js'
import { KEYS, LOCAL, MARK, peerAddress, peerAddresses, PORT } from '../xfrm/common.js'
import type { Call } from './anatomy.js'

const [what, netns, size] = [process.argv[2] as Call, process.argv[3]!, Number(process.argv[4])]

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void

interface Subject {
  prepare(): void
  work(): Promise<unknown>
  close(): Promise<void>
}

async function policies(): Promise<Subject> {
  const xfrm = await Xfrm.open({ netns, timeoutMs: 600_000 })
  let batch = new XfrmBatch()
  return {
    prepare: () => {
      batch = new XfrmBatch()
      for (let i = 0; i < size; i++) {
        batch.addPolicy({
          direction: 'out',
          selector: {
            source: `${LOCAL}/32`,
            destination: `${peerAddress(i)}/32`,
            protocol: 'udp',
            destinationPort: PORT,
          },
          mark: MARK,
          templates: [{ source: LOCAL, destination: peerAddress(i), reqid: MARK }],
        })
      }
    },
    work: async () => {
      const { failures } = await xfrm.commit(batch)
      if (failures.length > 0) throw new Error(`${failures.length} refused: ${failures[0]!.message}`)
    },
    close: () => xfrm.close(),
  }
}

async function peers(): Promise<Subject> {
  const overlay = await Overlay.open({ local: LOCAL, mark: MARK, netns, firewall: 'none', timeoutMs: 600_000 })
  await overlay.setKeys(KEYS)
  let list: string[] = []
  return {
    prepare: () => (list = peerAddresses(size)),
    work: () => overlay.addPeers(list),
    close: () => overlay.close(),
  }
}

async function networks(): Promise<Subject> {
  const overlay = await Overlay.open({ local: LOCAL, mark: MARK, netns, timeoutMs: 600_000 })
  let list: number[] = []
  return {
    prepare: () => (list = Array.from({ length: size }, (_, i) => 4096 + i)),
    work: () => overlay.addNetworks(list),
    close: () => overlay.close(),
  }
}

async function mappings(layout: 'rules' | 'set'): Promise<Subject> {
  const masquerade = await Masquerade.open({ netns, layout, timeoutMs: 600_000 })
  let list: Attachment[] = []
  return {
    prepare: () => (list = Array.from({ length: size }, (_, i) => attachment(i))),
    work: () => masquerade.add(list),
    close: () => masquerade.close(),
  }
}

const subjects: Record<Call, () => Promise<Subject>> = {
  policies,
  peers,
  networks,
  rules: () => mappings('rules'),
  elements: () => mappings('set'),
}

const subject = await subjects[what]()
subject.prepare()
const delay = monitorEventLoopDelay({ resolution: 1 })
delay.enable()
await setTimeout(1000)
const idle = { p50: delay.percentile(50), p99: delay.percentile(99), max: delay.max }
const collections: number[] = []
const observer = new PerformanceObserver((list) =>
  list.getEntries().forEach(({ duration }) => collections.push(duration)),
)
observer.observe({ entryTypes: ['gc'] })
for (let i = 0; i < 4; i++) collect()
// What was collected is told a turn later.
await setTimeout(10)
const before = process.memoryUsage()
const residentBefore = process.resourceUsage().maxRSS
collections.length = 0
delay.reset()

writeSync(2, 'anatomy: begin\n')
const [cpu, began] = [threadMs(), performance.now()]
await subject.work()
const [elapsedMs, onProcessorMs] = [performance.now() - began, threadMs() - cpu]
writeSync(2, 'anatomy: end\n')

await setTimeout(10)
const busy = { p50: delay.percentile(50), p99: delay.percentile(99), max: delay.max }
delay.disable()
const count = collections.length
const gcMs = collections.reduce((sum, duration) => sum + duration, 0)
const peakKiB = process.resourceUsage().maxRSS
for (let i = 0; i < 4; i++) collect()
const after = process.memoryUsage()
process.stdout.write(
  JSON.stringify({
    elapsedMs,
    threadMs: onProcessorMs,
    idle,
    busy,
    collections: count,
    gcMs,
    peakKiB,
    residentKiB: peakKiB - residentBefore,
    heapBytesEach: (after.heapUsed - before.heapUsed) / size,
    bufferBytesEach: (after.arrayBuffers - before.arrayBuffers) / size,
  }),
)
await subject.close()
