import { readFileSync } from 'node:fs'
import { InvalidArgument } from '../base/errors.js'

const FILE = '/proc/sys/kernel/random/boot_id'

/** This machine's boot id: 36 characters, others after each boot. */
export function bootId(): string {
  return readFileSync(FILE, 'latin1').trim()
}

/**
 * A boot id as bytes. One that is missing must not pass for one: keys derived of it fit no other node's.
 * @throws InvalidArgument
 */
export function bootIdBytes(value: unknown, argument: string): Uint8Array {
  if (typeof value !== 'string' || !/^[!-~]{36}$/.test(value)) {
    throw new InvalidArgument(argument, `a boot id, 36 characters as in ${FILE}`)
  }
  return new Uint8Array(Buffer.from(value, 'latin1'))
}
