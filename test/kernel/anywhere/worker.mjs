/**
 * Work for the tests of the addon's life, in a process or thread of its own. Arguments: the kind, and a namespace's path.
 * Says what it has to say in one line.
 */
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { pbkdf2 } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { setTimeout as sleep } from 'node:timers/promises'
import { URL } from 'node:url'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { Xfrm, XfrmBatch } from '../../../dist/kernel/xfrm.js'
import { NETLINK_XFRM, native } from '../../../dist/native.js'

const [kind, netns] = isMainThread ? process.argv.slice(2) : workerData

function policies(count, network = 1) {
  const batch = new XfrmBatch()
  for (let i = 0; i < count; i++) {
    const destination = `10.${network + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`
    batch.addPolicy({ direction: 'out', selector: { source: '10.0.0.1', destination } })
  }
  return batch
}

function say(what) {
  process.stdout.write(`${JSON.stringify(what)}\n`)
}

const descriptors = () => readdirSync('/proc/self/fd').length
const threads = () => readdirSync('/proc/self/task').length

const kinds = {
  /** Hears of its own policy, and is then kept by nothing: its monitor is open, and nobody waits for it. */
  async monitor() {
    const xfrm = await Xfrm.open({ netns })
    const monitor = xfrm.monitor(['policy'])
    await monitor.ready
    // Past the commit's end the monitor alone keeps the process.
    void sleep(100, undefined, { ref: false }).then(() => xfrm.commit(policies(1)))
    const { value } = await monitor.next()
    say(value.change)
  },
  /** Exits while a monitor waits. */
  async waiting() {
    const xfrm = await Xfrm.open({ netns })
    void xfrm.monitor(['policy']).next()
    await sleep(50)
    say('exiting')
    process.exit(0)
  },
  /** Exits with a batch, a list and a close in flight on several sockets. */
  async exit() {
    const all = await Promise.all(Array.from({ length: 4 }, () => Xfrm.open({ netns })))
    all.forEach((xfrm, i) => void xfrm.commit(policies(20_000, 1 + i * 10)).catch(() => {}))
    void all[1].policies().next()
    void all[2].close()
    await sleep(10)
    say('exiting')
    process.exit(0)
  },

  /** Ends by having nothing left to do, with sockets open: they must not keep it. */
  async idle() {
    const xfrm = await Xfrm.open({ netns })
    await xfrm.commit(policies(10))
    say('idle')
  },

  /** A batch in flight keeps the process alive, though nothing else does. */
  async pending() {
    const xfrm = await Xfrm.open({ netns })
    void xfrm.commit(policies(20_000)).then(({ applied }) => say(applied))
  },

  /** Drops sockets unclosed, idle and at work, and collects. */
  async garbage() {
    const finished = []
    for (let round = 0; round < 20; round++) {
      const xfrm = await Xfrm.open({ netns })
      finished.push(xfrm.commit(policies(2_000, 1 + round)))
      globalThis.gc()
    }
    const results = await Promise.all(finished)
    for (let i = 0; i < 10; i++) {
      globalThis.gc()
      await sleep(10)
    }
    say({ applied: results.reduce((sum, { applied }) => sum + applied, 0), threads: threads() })
  },

  /** Opens, uses and closes a hundred times. */
  async rounds() {
    const once = async () => {
      const xfrm = await Xfrm.open({ netns })
      await Promise.all([xfrm.commit(policies(100)), xfrm.info(), xfrm.statistics()])
      for await (const policy of xfrm.policies()) void policy
      await xfrm.close()
    }
    for (let i = 0; i < 10; i++) await once()
    const before = { descriptors: descriptors(), threads: threads() }
    globalThis.gc()
    const memory = process.memoryUsage().rss
    for (let i = 0; i < 100; i++) await once()
    globalThis.gc()
    say({
      before,
      after: { descriptors: descriptors(), threads: threads() },
      grown: process.memoryUsage().rss - memory,
    })
  },

  /** Closes sockets that were given their namespace by descriptor, opened or never, and holds on to them all. */
  async namespaces() {
    const fd = openSync(netns)
    const unopened = { protocol: NETLINK_XFRM, netns: fd, receiveBuffer: 0, sendBuffer: 0, chunk: 0 }
    const kept = []
    const before = descriptors()
    for (let i = 0; i < 300; i++) {
      const xfrm = await Xfrm.open({ netns: fd })
      const socket = new native.Socket(unopened)
      await Promise.all([xfrm.close(), socket.close()])
      kept.push(xfrm, socket)
    }
    say({ kept: kept.length, left: descriptors() - before })
    closeSync(fd)
  },

  /** What a call says when the path of its namespace leads in a circle, and when this process may not look at it. */
  async unseen() {
    const directory = mkdtempSync(join(tmpdir(), 'xfrmesh-'))
    const [path, circle] = [join(directory, 'netns'), join(directory, 'circle')]
    symlinkSync(netns, path)
    const [one, other] = [await Xfrm.open({ netns: path }), await Xfrm.open({ netns: path })]
    const code = (xfrm) =>
      xfrm.info().then(
        () => 'none',
        (error) => error.code,
      )
    process.seteuid(65_534)
    const hidden = await code(one)
    process.seteuid(0)
    rmSync(path)
    symlinkSync(circle, path)
    symlinkSync(path, circle)
    say({ hidden, circular: await code(other) })
    rmSync(directory, { recursive: true })
  },

  /** Several threads, each with sockets of its own, one ended at work. */
  async threads() {
    const workers = Array.from(
      { length: 4 },
      (_, i) => new Worker(new URL(import.meta.url), { workerData: ['thread', netns, i], stdout: false }),
    )
    const ends = workers.map(
      (worker) =>
        new Promise((resolve, reject) => worker.on('error', reject).on('message', resolve).on('exit', resolve)),
    )
    await sleep(150)
    await workers[0].terminate()
    const results = await Promise.all(ends)
    const xfrm = await Xfrm.open({ netns })
    say({ results: results.slice(1), out: (await xfrm.info()).policies.out })
    await xfrm.close()
  },

  async thread() {
    const xfrm = await Xfrm.open({ netns })
    const { applied } = await xfrm.commit(policies(20_000, 1 + workerData[2] * 10))
    parentPort.postMessage(applied)
    await xfrm.close()
  },

  /** How many of six batches were done when a job of libuv's pool, which has four threads, was. */
  async pool() {
    const all = await Promise.all(Array.from({ length: 6 }, () => Xfrm.open({ netns })))
    const batches = all.map((_, i) => policies(20_000, 1 + i * 10))
    let finished = 0
    const committing = all.map((xfrm, i) => xfrm.commit(batches[i]).then(() => finished++))
    const order = []
    await new Promise((resolve) => pbkdf2('a', 'b', 1, 32, 'sha256', () => resolve(order.push(finished))))
    await Promise.all(committing)
    await Promise.all(all.map((xfrm) => xfrm.close()))
    say({ finishedBeforePool: order[0] })
  },
}

await kinds[kind]()
