import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import type { DemoResult } from '../../lib/demo/demo.js'
import { Namespace } from '../../lib/demo/namespace.js'

interface Ended {
  status: number | null
  stdout: string
  stderr: string
}

/** Runs the demo as a person does; `watch` sees what it says so far, each time it says something. */
async function demo(args: string[], watch?: (said: string, child: ChildProcess) => void): Promise<Ended> {
  const child = spawn(process.execPath, ['dist/cli/main.js', 'demo', '--json', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString()
    watch?.(stderr, child)
  })
  const [status] = (await once(child, 'close')) as [number | null]
  return { status, stdout, stderr }
}

/** Namespaces and temporary directories of the demo's that are there. */
async function leftovers(): Promise<string[]> {
  const names = [...(await readdir('/run/netns')), ...(await readdir(tmpdir()))]
  return names.filter((name) => /^(xm\d|xfrmesh-demo-)/.test(name))
}

it('the demo loses, leaks and leaves nothing', async () => {
  const { status, stdout, stderr } = await demo(['--peers', '50'])
  expect(stderr).not.toContain('xfrmesh: ')
  expect(status).toBe(0)
  const result = JSON.parse(stdout) as DemoResult & { ok: boolean }
  expect(result).toMatchObject({
    ok: true,
    before: { ping: { sent: 3, received: 3, lost: 0 } },
    closed: { ping: { sent: 3, received: 0 } },
    // Two keys in, one out, for each peer on each host.
    peers: { perHost: 50, operations: 2 * 50 * 3 },
    through: { ping: { sent: 10, lost: 0 } },
    rotation: { ping: { lost: 0 }, xfrmErrors: {} },
    left: { states: 0, policies: 0, rulesets: 0 },
    cleartext: { packets: 0, dropped: 0 },
    problems: [],
  })
  expect(result.rotation.ping.sent).toBeGreaterThan(10)
  expect(await leftovers()).toEqual([])
})

it('the demo takes a cluster file, its first nodes the hosts and the others peers', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'xfrmesh-test-'))
  const file = join(directory, 'cluster.yaml')
  const nodes = ['2001:db8:a::1', '2001:db8:b::1', '2001:db8:c::1', '2001:db8:d::1'].map((address, i) => ({
    name: `node-${i}`,
    address,
  }))
  const keys = [{ tag: 7, value: 'a5'.repeat(32) }]
  await writeFile(join(directory, 'keys.yaml'), JSON.stringify(keys), { mode: 0o600 })
  const networks = [{ vni: 1 }, { vni: 16777215 }]
  const cluster = { port: 8472, suite: 'chacha20-poly1305', keys: 'keys.yaml', networks, nodes }
  await writeFile(file, JSON.stringify(cluster))
  try {
    const { status, stdout, stderr } = await demo([file, '--hosts', '3', '--exclusive', '--policies', 'per-peer'])
    expect(stderr).not.toContain('xfrmesh: ')
    expect(status).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({
      ok: true,
      port: 8472,
      suite: 'chacha20-poly1305',
      family: 6,
      exclusive: true,
      hosts: { count: 3 },
      peers: { perHost: 1 },
      through: { ping: { sent: 20, lost: 0 } },
    })
    expect(stderr).toContain('Rotating from key 7 to key 1')
    expect(`${stdout}${stderr}`).not.toContain('a5a5')
  } finally {
    await rm(directory, { recursive: true })
  }
})

it('the demo fails, and says so, if packets leave in the clear', async () => {
  let flushed: Promise<unknown> | undefined
  const { status, stdout, stderr } = await demo(['--peers', '0'], (said, child) => {
    if (!said.includes('Rotating')) return
    // The mark and the guard go, as when another tool loads its ruleset: what is sent then is not encrypted.
    flushed ??= new Namespace(`xm${child.pid}-1-1`).run('nft', ['flush', 'ruleset'])
  })
  await flushed
  expect(status).toBe(1)
  const { ok, cleartext } = JSON.parse(stdout) as DemoResult & { ok: boolean }
  expect(ok).toBe(false)
  expect(cleartext.packets).toBeGreaterThan(0)
  expect(stderr).toMatch(/^xfrmesh: demo: .* crossed the links in the clear$/m)
  expect(await leftovers()).toEqual([])
})

it.each(['SIGINT', 'SIGTERM'] as const)('%s ends the demo, and nothing of it is left', async (signal) => {
  let sent = false
  const { status } = await demo(['--peers', '0'], (said, child) => {
    if (sent || !said.includes('Encrypting')) return
    sent = child.kill(signal)
  })
  expect(sent).toBe(true)
  expect(status).toBe(signal === 'SIGINT' ? 130 : 143)
  expect(await leftovers()).toEqual([])
})
