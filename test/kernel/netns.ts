import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { basename } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)

/**
 * Runs `work` with a network namespace of its own, by its path in /run/netns, its loopback up, and removes it, whatever
 * came of it.
 */
export async function withNetns<T>(work: (path: string) => Promise<T>): Promise<T> {
  const name = `xfrmesh-test-${randomUUID().slice(0, 8)}`
  await run('ip', ['netns', 'add', name])
  try {
    await run('ip', ['-n', name, 'link', 'set', 'lo', 'up'])
    return await work(`/run/netns/${name}`)
  } finally {
    await run('ip', ['netns', 'delete', name])
  }
}

/** Two namespaces joined by a veth pair, `eth0` in each: 192.0.2.1 and 2001:db8::1 in the first, .2 and ::2 in the second. */
export async function withLink<T>(work: (one: string, other: string) => Promise<T>): Promise<T> {
  return withNetns((one) =>
    withNetns(async (other) => {
      // No waiting for another host to claim the link-local addresses.
      for (const path of [one, other]) {
        await inNetns(path, 'sysctl', '-qw', 'net.ipv6.conf.all.accept_dad=0', 'net.ipv6.conf.default.accept_dad=0')
      }
      const link = ['link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', basename(other)]
      await run('ip', ['-n', basename(one), ...link])
      for (const [i, path] of [one, other].entries()) {
        for (const words of [
          ['address', 'add', `192.0.2.${i + 1}/24`, 'dev', 'eth0'],
          ['address', 'add', `2001:db8::${i + 1}/64`, 'dev', 'eth0', 'nodad'],
          ['link', 'set', 'eth0', 'up'],
        ]) {
          await run('ip', ['-n', basename(path), ...words])
        }
      }
      await settled(one)
      await settled(other)
      return work(one, other)
    }),
  )
}

/** Waits until `eth0` carries IPv6: the kernel looks at a new link's carrier, and at its addresses, up to seconds later. */
export async function settled(path: string): Promise<void> {
  for (;;) {
    const { stdout } = await run('ip', ['-n', basename(path), '-j', 'address', 'show', 'dev', 'eth0'])
    const [link] = JSON.parse(stdout) as [{ operstate: string; addr_info: { scope: string; tentative?: boolean }[] }]
    const ready = link.addr_info.filter(({ tentative }) => tentative !== true)
    if (link.operstate === 'UP' && ready.length === 3) return
    await setTimeout(50)
  }
}

/** Runs a command in a namespace and returns what it prints. Rejects, with `code` and `stderr`, if it fails. */
export async function inNetns(path: string, command: string, ...words: string[]): Promise<string> {
  const { stdout } = await run('nsenter', [`--net=${path}`, command, ...words], { maxBuffer: 1 << 28 })
  return stdout
}

/** The same, with text on its standard input. */
export async function feedNetns(path: string, input: string, command: string, ...words: string[]): Promise<string> {
  const running = run('nsenter', [`--net=${path}`, command, ...words], { maxBuffer: 1 << 28 })
  running.child.stdin?.end(input)
  return (await running).stdout
}

/** Starts a command in a namespace that runs until `stop`, which waits for its end and returns what it printed. */
export function startInNetns(
  path: string,
  command: string,
  ...words: string[]
): { child: ChildProcess; stop: (signal?: NodeJS.Signals) => Promise<string> } {
  const child = spawn('nsenter', [`--net=${path}`, command, ...words], { stdio: ['ignore', 'pipe', 'inherit'] })
  let printed = ''
  child.stdout.on('data', (chunk: Buffer) => (printed += chunk.toString()))
  const ended = once(child, 'close')
  const stop = async (signal: NodeJS.Signals = 'SIGTERM') => {
    child.kill(signal)
    await ended
    return printed
  }
  return { child, stop }
}
