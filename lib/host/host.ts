import { boolean, integer, namespace, options } from '../base/check.js'
import { DEFAULT } from '../kernel/device-switches.js'
import { errnoText } from '../kernel/netlink-errors.js'
import { Sysctls } from '../kernel/sysctl.js'
import { type Load, type Need, needs, switches } from './needs.js'

/** What a node has to do with, and where. */
export interface HostOptions {
  /** Peers, 0 to 2^24. Default: 0, which asks for what any node needs. */
  peers?: number
  /** Encrypted networks, 0 to 500,000: more are not changed in one send. Default: 0. */
  networks?: number
  /**
   * Neighbours that containers of this host have and the kernel learns: for each container those it talks to at a time, 0 to
   * 2^24. Those programmed as permanent do not count. Default: 0.
   */
  endpoints?: number
  /** Whether containers reach other networks through this host. Default: false. */
  forwarding?: boolean
  /** Network namespace: a path, as in /run/netns/a, or an open descriptor. Default: the process's own. */
  netns?: string | number
}

export interface TuneOptions extends HostOptions {
  /** Only say what would be changed. Default: false. */
  dryRun?: boolean
}

/** A sysctl that matters to a node. Plain JSON. */
export interface HostCheck {
  /** As sysctl(8) has it. */
  name: string
  /** One value for the whole host, or one for each network namespace. */
  scope: 'host' | 'namespace'
  /** null where it is not to be seen: this kernel has none, or it is the host's and this process is in a container. */
  has: number | null
  /** At least this; at most, where it is 0. null: whatever it is. */
  wants: number | null
  ok: boolean
  why: string
}

export interface HostChange {
  name: string
  scope: 'host' | 'namespace'
  from: number
  /** As it was read back. */
  to: number
}

/** A sysctl that is not as wanted, and was not made so. */
export interface HostRefusal {
  name: string
  scope: 'host' | 'namespace'
  has: number | null
  wants: number
  /** The kernel's, positive; 0 if it was not asked. */
  errno: number
  /** `EROFS` and the like, or an `ERR_XFRMESH_…` code if errno is 0. */
  code: string
  /** What it stands for, and what to do. */
  message: string
}

export interface HostTuning {
  dryRun: boolean
  /** What was set, or would be. */
  changed: HostChange[]
  refused: HostRefusal[]
}

/**
 * What this host's sysctls are and should be for a node of that size, and why; of single devices only those that are not
 * as they should be. Changes nothing. What concerns buffers holds
 * for this process with the privileges that it has.
 *
 * @throws InvalidArgument; Unsupported where the namespace may not be entered
 */
export async function checkHost(given: HostOptions = {}): Promise<HostCheck[]> {
  const { netns, ...load } = checked(options<HostOptions>(given, 'options', known))
  return Host.with(netns, (host) => host.check(load))
}

/**
 * Raises what {@link checkHost} finds too low, lowers nothing, and says what it set and what it could not. It holds until
 * the host starts anew: to keep it, write it to a file of /etc/sysctl.d.
 *
 * @throws InvalidArgument; Unsupported where the namespace may not be entered
 */
export async function tuneHost(given: TuneOptions = {}): Promise<HostTuning> {
  const { dryRun = false, ...rest } = options<TuneOptions>(given, 'options', [...known, 'dryRun'])
  boolean(dryRun, 'dryRun')
  const { netns, ...load } = checked(rest)
  return Host.with(netns, (host) => host.tune(load, dryRun))
}

const known = ['peers', 'networks', 'endpoints', 'forwarding', 'netns'] as const
const MOST = 2 ** 24
const MOST_NETWORKS = 500_000

function checked(given: HostOptions): Load & { netns: string | number | undefined } {
  const { peers = 0, networks = 0, endpoints = 0, forwarding = false, netns } = given
  return {
    peers: integer(peers, 'peers', 0, MOST),
    networks: integer(networks, 'networks', 0, MOST_NETWORKS),
    endpoints: integer(endpoints, 'endpoints', 0, MOST),
    forwarding: boolean(forwarding, 'forwarding'),
    netns: namespace(netns, 'netns'),
  }
}

/** Where the host's own sysctls are to be seen, unless this process is in a container or may not look. */
const FIRST_PROCESS = '/proc/1/ns/net'
/** Is there wherever IPv6 is. */
const IPV6 = 'net.ipv6.conf.all.forwarding'

/** A namespace, and the host that it is on. */
class Host {
  readonly #sysctls: Readonly<Record<Need['scope'], Sysctls>>

  private constructor(host: Sysctls, namespace: Sysctls) {
    this.#sysctls = { host, namespace }
  }

  static async with<T>(netns: string | number | undefined, work: (host: Host) => Promise<T>): Promise<T> {
    const named = await Sysctls.open(netns)
    try {
      const host = await Sysctls.open(FIRST_PROCESS).catch(() => Sysctls.open(undefined))
      try {
        return await work(new Host(host, named))
      } finally {
        await host.close()
      }
    } finally {
      await named.close()
    }
  }

  async check(load: Load): Promise<HostCheck[]> {
    const checks: HostCheck[] = []
    for (const need of await this.#needs(load)) {
      const { name, scope, wants, why } = need
      const has = await this.#sysctls[scope].read(name)
      checks.push({ name, scope, has, wants, ok: isMet(need, has), why })
    }
    return checks
  }

  async tune(load: Load, dryRun: boolean): Promise<HostTuning> {
    const tuning: HostTuning = { dryRun, changed: [], refused: [] }
    for (const need of await this.#needs(load)) {
      const { name, scope, wants } = need
      const sysctls = this.#sysctls[scope]
      const has = await sysctls.read(name)
      if (isMet(need, has)) continue
      const refusal = need.most ? LOWER : has === null ? ENOENT : dryRun ? 0 : await sysctls.write(name, wants!)
      if (refusal !== 0) tuning.refused.push(refused(need, has, refusal))
      else tuning.changed.push({ name, scope, from: has!, to: dryRun ? wants! : (await sysctls.read(name))! })
    }
    return tuning
  }

  async #needs(load: Load): Promise<Need[]> {
    const { namespace } = this.#sysctls
    const all = needs(load, namespace.granted)
    for (const device of [DEFAULT, ...(await namespace.devices())]) {
      // Only what is not as it should be; of IPv6, or of a device that went away meanwhile, there is none.
      for (const need of switches(device)) if (((await namespace.read(need.name)) ?? 0) !== 0) all.push(need)
    }
    return (await namespace.read(IPV6)) === null ? all.filter(({ name }) => !name.startsWith('net.ipv6.')) : all
  }
}

function isMet({ wants, most }: Need, has: number | null): boolean {
  if (wants === null) return true
  return has !== null && (most ? has <= wants : has >= wants)
}

const EPERM = 1
const ENOENT = 2
const EACCES = 13
const EROFS = 30
/** No errno: to be lowered, which is not for us to do. */
const LOWER = -1

function refused({ name, scope, wants }: Need, has: number | null, errno: number): HostRefusal {
  const where =
    scope === 'host' ? 'on the host, as root' : 'as root of the user namespace that owns the network namespace'
  const remedy = `${where}: sysctl -w ${name}=${wants!}`
  const about = { name, scope, has, wants: wants! }
  if (errno === LOWER) {
    const message = `it would have to be lowered, which is for you to do; ${remedy}`
    return { ...about, errno: 0, code: 'ERR_XFRMESH_NOT_RAISED', message }
  }
  const whys: Readonly<Record<number, string>> = {
    [EPERM]: 'not permitted to this process',
    [EACCES]: 'not permitted to this process',
    [ENOENT]: 'not to be seen from this network namespace, or not in this kernel',
    [EROFS]: '/proc/sys is read-only here, as in a container',
  }
  const [code, sentence] = errnoText(errno)
  return { ...about, errno, code, message: `${whys[errno] ?? sentence}; ${remedy}` }
}
