import { AF_INET, AF_INET6, type Family } from '../base/address.js'
import { Unsupported } from '../base/errors.js'
import { DEFAULT, deviceSwitches, type DeviceSwitch, devicesOf, switchOf } from '../kernel/device-switches.js'
import { errnoText } from '../kernel/netlink-errors.js'
import { sysctlPath } from '../kernel/sysctl.js'

/** The kernel's switches that tunnels between nodes depend on. */

/** What a switch is and should be, and what goes wrong otherwise. Plain JSON. */
export interface SysctlCheck {
  /** As sysctl(8) has it: `net.ipv4.ip_forward`; a dot in a device's name is a slash there. */
  name: string
  /** null where this kernel has no such switch. */
  value: string | null
  wanted: string
  ok: boolean
  why: string
}

/** The files of a namespace. */
export interface Files {
  /** undefined where there is none. */
  readFile(path: string): Promise<string | undefined>
  readNetFile(name: string): Promise<string | undefined>
  /** 0 or an errno. */
  writeFile(path: string, text: string): Promise<number>
}

interface Sysctl {
  readonly name: string
  readonly family?: Family
  readonly wanted: string
  readonly why: string
}

const NO_WAY = 'else what comes for pods, or from them, goes no further'
const ipv6Forwarding: Sysctl = { name: 'net.ipv6.conf.all.forwarding', family: AF_INET6, wanted: '1', why: NO_WAY }

/** Switches of the namespace. */
const sysctls: readonly Sysctl[] = [
  { name: 'net.ipv4.ip_forward', family: AF_INET, wanted: '1', why: NO_WAY },
  ipv6Forwarding,
  {
    name: 'net.core.xfrm_larval_drop',
    wanted: '1',
    why: 'else a program that sends where there is no SA yet is held up',
  },
]

/** Of those that each device has. */
const PASSED_BY: Readonly<Record<DeviceSwitch['what'], string>> = {
  disable_xfrm: 'else what is sent there is not encrypted, nor does a policy drop it',
  disable_policy: 'else no policy is asked for what comes in there',
}

/**
 * Looks at the switches that matter to these families: of a device, and of devices to come, only those that are not as they
 * should be are told.
 */
export async function checkSysctls(families: ReadonlySet<Family>, files: Files): Promise<SysctlCheck[]> {
  const wanted = [...sysctls, ...devicesSwitches('all')]
  const checks = await Promise.all(
    wanted.filter(({ family }) => family === undefined || families.has(family)).map((sysctl) => check(sysctl, files)),
  )
  for (const device of [DEFAULT, ...devicesOf((await files.readNetFile('dev')) ?? '')]) {
    for (const sysctl of [...devicesSwitches(device), forwardingFrom(device)]) {
      if (!families.has(sysctl.family!)) continue
      const found = await check(sysctl, files)
      // One that went away meanwhile has none.
      if (found.value !== null && !found.ok) checks.push(found)
    }
  }
  return checks
}

/**
 * Turns on the forwarding of IPv6 between all devices.
 * @throws Unsupported where /proc/sys is read-only, or there is no IPv6
 */
export async function turnOnIPv6Forwarding(files: Files): Promise<void> {
  const { name, wanted } = ipv6Forwarding
  const errno = await files.writeFile(sysctlPath(name), wanted)
  if (errno === 0) return
  throw new Unsupported(name, `${name} can't be set: ${unwritable[errno] ?? errnoText(errno)[1]}`)
}

/** By errno: ENOENT, EACCES, EROFS. */
const unwritable: Readonly<Record<number, string>> = {
  2: 'this kernel has no IPv6 (CONFIG_IPV6; ipv6.disable on its command line)',
  13: 'it takes root in the user namespace that this network namespace belongs to',
  30: '/proc/sys is read-only here, as in most containers: set it from outside, or have /proc/sys mounted to be written',
}

/** IPv4 forwards what came in by a device if that device's own switch is on; `ip_forward` only sets them all. */
function forwardingFrom(device: string): Sysctl {
  const name = `net.ipv4.conf.${device.replaceAll('.', '/')}.forwarding`
  return { name, family: AF_INET, wanted: '1', why: 'else what comes in there for pods, or from them, goes no further' }
}

function devicesSwitches(device: string): Sysctl[] {
  return deviceSwitches.map((each) => ({
    name: switchOf(each, device),
    family: each.family,
    wanted: '0',
    why: PASSED_BY[each.what],
  }))
}

async function check({ name, wanted, why }: Sysctl, files: Files): Promise<SysctlCheck> {
  const value = (await files.readFile(sysctlPath(name)))?.trim() ?? null
  return { name, value, wanted, ok: value === wanted, why }
}
