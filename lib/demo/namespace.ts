import { run, start, type Running, type RunOptions } from './processes.js'

/** A named network namespace, and tools run in it. */
export class Namespace {
  readonly name: string
  /** Its path, as `Overlay.open` takes it. */
  readonly netns: string

  constructor(name: string) {
    this.name = name
    this.netns = `/run/netns/${name}`
  }

  /** Runs a tool in it to its end and returns what it printed. @throws CommandError */
  run(command: string, args: readonly string[], options?: RunOptions): Promise<string> {
    return run('nsenter', [`--net=${this.netns}`, command, ...args], options)
  }

  /** Starts a tool in it. */
  start(command: string, args: readonly string[]): Running {
    return start('nsenter', [`--net=${this.netns}`, command, ...args])
  }

  /** Runs `ip` commands in it, all by one process. */
  async ip(commands: readonly (readonly string[])[]): Promise<void> {
    await this.run('ip', ['-batch', '-'], { input: commands.map((words) => `${words.join(' ')}\n`).join('') })
  }

  /** Packets dropped by XFRM and the like: the counters of /proc/net/xfrm_stat that are not zero. */
  async xfrmErrors(): Promise<Record<string, number>> {
    // /proc/net is that of whoever reads it.
    const text = await this.run('cat', ['/proc/net/xfrm_stat'])
    const counters = Array.from(text.matchAll(/^(\w+)\s+(\d+)$/gm), ([, name, count]): [string, number] => [
      name!,
      Number(count),
    ])
    return Object.fromEntries(counters.filter(([, count]) => count !== 0))
  }

  /** SAs in it, as `ip` counts them. */
  async states(): Promise<number> {
    return sum(await this.run('ip', ['xfrm', 'state', 'count']), /SAD count (\d+)/g)
  }

  /** Policies in it, of all directions, as `ip` counts them. */
  async policies(): Promise<number> {
    return sum(await this.run('ip', ['xfrm', 'policy', 'count']), /(?:IN|OUT|FWD)\s+(\d+)/g)
  }

  /** Its nftables ruleset as `nft` prints it; empty if there is none. */
  ruleset(): Promise<string> {
    return this.run('nft', ['list', 'ruleset'])
  }
}

function sum(text: string, pattern: RegExp): number {
  const counts = Array.from(text.matchAll(pattern), ([, count]) => Number(count))
  if (counts.length === 0) throw new Error(`ip xfrm count: no count in ${JSON.stringify(text)}`)
  return counts.reduce((total, count) => total + count, 0)
}
