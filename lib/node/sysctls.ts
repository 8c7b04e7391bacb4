import { AF_INET, AF_INET6, type Family } from '../base/address.js'
import { sysctlPath } from '../kernel/sysctl.js'

/** The kernel's switches that tunnels between nodes depend on. */

/** What a switch is and should be, and what goes wrong otherwise. Plain JSON. */
export interface SysctlCheck {
  /** As sysctl(8) has it: `net.ipv4.ip_forward`. */
  name: string
  /** null where this kernel has no such switch. */
  value: string | null
  wanted: string
  ok: boolean
  why: string
}

/** Reads a file as the namespace shows it; undefined where there is none. */
export type ReadFile = (path: string) => Promise<string | undefined>

interface Sysctl {
  readonly name: string
  readonly family?: Family
  readonly wanted: string
  readonly why: string
}

export const IPV6_FORWARDING = 'net.ipv6.conf.all.forwarding'

const sysctls: readonly Sysctl[] = [
  {
    name: 'net.ipv4.ip_forward',
    family: AF_INET,
    wanted: '1',
    why: 'else what comes for pods, or from them, goes no further',
  },
  {
    name: IPV6_FORWARDING,
    family: AF_INET6,
    wanted: '1',
    why: 'else what comes for pods, or from them, goes no further',
  },
  { name: 'net.ipv4.conf.all.disable_xfrm', family: AF_INET, wanted: '0', why: 'else nothing is encrypted' },
  {
    name: 'net.ipv4.conf.all.disable_policy',
    family: AF_INET,
    wanted: '0',
    why: 'else no policy is asked for what comes in',
  },
  {
    name: 'net.ipv6.conf.all.disable_policy',
    family: AF_INET6,
    wanted: '0',
    why: 'else no policy is asked for what comes in',
  },
  {
    name: 'net.core.xfrm_larval_drop',
    wanted: '1',
    why: 'else a program that sends where there is no SA yet is held up',
  },
]

/** Looks at the switches that matter to these families. */
export async function checkSysctls(families: ReadonlySet<Family>, read: ReadFile): Promise<SysctlCheck[]> {
  const relevant = sysctls.filter(({ family }) => family === undefined || families.has(family))
  return Promise.all(
    relevant.map(async ({ name, wanted, why }) => {
      const value = (await read(sysctlPath(name)))?.trim() ?? null
      return { name, value, wanted, ok: value === wanted, why }
    }),
  )
}
