import { cpus, loadavg, release, totalmem, version } from 'node:os'
import { run } from '#dist/demo/processes.js'

/** What the figures hold for. */
export interface Machine {
  kernel: string
  /** Whether RCU's grace periods were expedited when it began: where they always are, `boost` has nothing to gain. */
  rcuExpedited: boolean
  processors: string
  memoryGiB: number
  node: string
  commit: string
  /** Of the peers: what each says of itself. */
  versions: Record<string, string>
  /** Of one minute, when it began: above the number of processors somebody else was at work too. */
  load: number
  date: string
}

const tools: Record<string, readonly [string, ...string[]]> = {
  iproute2: ['ip', '-V'],
  nftables: ['nft', '--version'],
  go: ['go', 'version'],
  'vishvananda/netlink': ['dpkg-query', '-W', '-f', '${Version}', 'golang-github-vishvananda-netlink-dev'],
  'google/nftables': ['dpkg-query', '-W', '-f', '${Version}', 'golang-github-google-nftables-dev'],
  pyroute2: ['dpkg-query', '-W', '-f', '${Version}', 'python3-pyroute2'],
}

export async function describeMachine(): Promise<Machine> {
  const versions: Record<string, string> = {}
  for (const [name, command] of Object.entries(tools)) versions[name] = await says(command)
  const list = cpus()
  return {
    kernel: `${release()} ${version()}`,
    rcuExpedited: (await says(['cat', '/sys/kernel/rcu_expedited'])) === '1',
    processors: `${list.length} × ${list[0]?.model ?? 'unknown'}`,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    commit: await says(['git', 'describe', '--always', '--dirty']),
    versions,
    load: loadavg()[0]!,
    date: new Date().toISOString(),
  }
}

/** The lab, from inside. */
export function describeGuest(): string {
  return `kernel ${release()} ${version()}, ${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}, ${(totalmem() / 2 ** 30).toFixed(1)} GiB`
}

async function says([command, ...args]: readonly [string, ...string[]]): Promise<string> {
  try {
    return (await run(command, args)).trim().split('\n')[0]!
  } catch {
    return 'not there'
  }
}
