import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { basename } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Debian's own: what a version manager puts before it in the path is a script, which takes seconds under emulation. */
export const python = '/usr/bin/python3'

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
      await join(
        { netns: one, device: 'eth0', addresses: ['192.0.2.1/24', '2001:db8::1/64'] },
        { netns: other, device: 'eth0', addresses: ['192.0.2.2/24', '2001:db8::2/64'] },
      )
      return work(one, other)
    }),
  )
}

/** One end of a link. */
export interface End {
  readonly netns: string
  readonly device: string
  /** With their prefixes. */
  readonly addresses: readonly string[]
  /** What else `ip` should do there, once the link is up. */
  readonly more?: readonly string[]
}

/** Joins two namespaces by a veth pair; waits until it carries packets. */
export async function join(one: End, other: End): Promise<void> {
  // Of a device whose number is its peer's too the kernel tells a second late that it is up.
  const number = 100
  const { netns, device } = one
  const link = `link add ${device} netns ${basename(netns)} index ${number} type veth`
  await ip(undefined, [`${link} peer name ${other.device} netns ${basename(other.netns)}`])
  for (const [i, { netns, device, addresses, more = [] }] of [one, other].entries()) {
    await ip(netns, [
      `link set ${device} addrgenmode none`,
      ...[`fe80::${i + 1}/64`, ...addresses].map(
        (address) => `address add ${address} dev ${device}${address.includes(':') ? ' nodad' : ''}`,
      ),
      `link set ${device} up`,
      ...more,
    ])
  }
  for (const end of [one, other]) await settled(end.netns, end.device)
}

/** Runs commands of `ip` in a namespace, or in the test's own, all by one process. */
export async function ip(netns: string | undefined, commands: readonly string[]): Promise<void> {
  const running = run('ip', [...(netns === undefined ? [] : ['-n', basename(netns)]), '-batch', '-'])
  running.child.stdin?.end(commands.map((command) => `${command}\n`).join(''))
  await running
}

/** Waits until a device is up: the kernel looks at a new link's carrier up to seconds later. */
async function settled(path: string, device: string): Promise<void> {
  for (;;) {
    const { stdout } = await run('ip', ['-n', basename(path), '-j', 'link', 'show', 'dev', device])
    const [link] = JSON.parse(stdout) as [{ operstate: string }]
    if (link.operstate === 'UP') return
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
