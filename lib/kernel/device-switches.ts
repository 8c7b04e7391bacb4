import { AF_INET, AF_INET6, type Family } from '../base/address.js'

/**
 * A switch by which packets pass IPsec by. Each device has it, and `all` devices together: on in either place, it is on
 * (IN_DEV_ORCONF and its like of IPv6).
 */
export interface DeviceSwitch {
  readonly family: Family
  readonly what: 'disable_xfrm' | 'disable_policy'
}

export const deviceSwitches: readonly DeviceSwitch[] = [
  { family: AF_INET, what: 'disable_xfrm' },
  { family: AF_INET, what: 'disable_policy' },
  { family: AF_INET6, what: 'disable_policy' },
]

/** What stands in a device's place for those that are made from now on: they start with its switches. */
export const DEFAULT = 'default'

/** Its name as sysctl(8) has it, of a device, of `all`, or of {@link DEFAULT}. */
export function switchOf({ family, what }: DeviceSwitch, device: string): string {
  return `net.ipv${family === AF_INET ? 4 : 6}.conf.${device.replaceAll('.', '/')}.${what}`
}

/** The devices of /proc/net/dev, but for the loopback's, which nothing leaves by. */
export function devicesOf(text: string): string[] {
  const names = Array.from(text.matchAll(/^ *([^\s:]+):/gm), ([, name]) => name!)
  return names.filter((name) => name !== 'lo')
}
