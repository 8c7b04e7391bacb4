import { KEY_WORDS, parseKey } from '../base/address-key.js'
import { AF_INET, AF_INET6, ADDRESS_BYTES, unusable, whyNot, type Family } from '../base/address.js'
import { object } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { Pace } from '../base/pace.js'
import { PackedIndex } from '../base/packed-index.js'
import { packHostMac } from '../base/packed-mac.js'
import { MAC_OFFSET, MAC_WORDS } from '../kernel/neighbour-records.js'
import type { Endpoint } from './endpoints.js'
import { sameWords } from './rows.js'

const MAC_BYTES = MAC_WORDS * 4
const PARTS = ['ip', 'mac', 'vtep'] as const

/** Endpoints as they were given, checked and packed: none twice. */
export class EndpointList {
  /** As many as were given; one that was given twice counts twice. */
  readonly given: number
  size = 0
  /** Inner addresses as keys. */
  readonly ips: Uint32Array
  readonly macs: Uint32Array
  /** As keys. */
  readonly vteps: Uint32Array
  readonly #index = new PackedIndex(KEY_WORDS)
  readonly #ipBytes: Uint8Array
  readonly #macBytes: Uint8Array
  readonly #vtepBytes: Uint8Array
  /** The family of all VTEPs, once there is one. */
  #family: Family | undefined

  private constructor(count: number, family: Family | undefined) {
    this.given = count
    this.#family = family
    const room = Math.max(1, count)
    this.ips = new Uint32Array(room * KEY_WORDS)
    this.macs = new Uint32Array(room * MAC_WORDS)
    this.vteps = new Uint32Array(room * KEY_WORDS)
    this.#ipBytes = new Uint8Array(this.ips.buffer)
    this.#macBytes = new Uint8Array(this.macs.buffer)
    this.#vtepBytes = new Uint8Array(this.vteps.buffer)
    this.#index.rebuild(this.ips, Math.max(2, room), [])
  }

  /**
   * @param family of the link's outer addresses, if it is known
   * @throws InvalidArgument naming `endpoints[2].mac`
   */
  static async of(list: readonly unknown[], family: Family | undefined): Promise<EndpointList> {
    const made = new EndpointList(list.length, family)
    const pace = new Pace()
    for (let i = 0; i < list.length; i++) {
      try {
        made.#add(list[i])
      } catch (error) {
        throw error instanceof InvalidArgument ? error.within(`endpoints[${i}]`) : error
      }
      if (pace.isDue) await pace.breathe()
    }
    return made
  }

  /** The endpoint of that address, or -1. */
  find(ips: Uint32Array, ip: number): number {
    return this.#index.find(ips, ip)
  }

  #add(value: unknown): void {
    const { ip, mac, vtep } = object<Endpoint>(value, '', PARTS)
    const row = this.size
    const at = row * ADDRESS_BYTES
    inner(ip, '.ip', this.#ipBytes, at)
    packHostMac(mac, '.mac', this.#macBytes, row * MAC_BYTES + MAC_OFFSET)
    const family = outer(vtep, '.vtep', this.#vtepBytes, at)
    this.#family ??= family
    if (family !== this.#family) {
      const name = this.#family === AF_INET ? 'IPv4' : 'IPv6'
      throw new InvalidArgument('.vtep', `an ${name} address: a VXLAN link carries one family`, vtep)
    }
    const same = this.#index.find(this.ips, row * KEY_WORDS)
    if (same < 0) {
      this.#index.add(row)
      this.size++
      return
    }
    const isSame =
      sameWords(this.macs, same * MAC_WORDS, this.macs, row * MAC_WORDS, MAC_WORDS) &&
      sameWords(this.vteps, same * KEY_WORDS, this.vteps, row * KEY_WORDS, KEY_WORDS)
    if (!isSame) {
      throw new InvalidArgument('.ip', `listed once: ${ip} is with another mac or vtep before it`)
    }
  }
}

/** The address of a container: of either family, link-local ones too. */
function inner(value: unknown, argument: string, into: Uint8Array, at: number): void {
  const family = typeof value === 'string' ? parseKey(value, into, at) : 0
  if (family === 0) throw new InvalidArgument(argument, whyNot(value), value)
  const isLinkLocal = family === AF_INET6 && into[at] === 0xfe && (into[at + 1]! & 0xc0) === 0x80
  const why = isLinkLocal ? undefined : unusable(into, family === AF_INET ? at + 12 : at, family)
  if (why !== undefined) throw new InvalidArgument(argument, `the address of a host; ${String(value)} is ${why}`)
}

function outer(value: unknown, argument: string, into: Uint8Array, at: number): Family {
  const family = typeof value === 'string' ? parseKey(value, into, at) : 0
  if (family === 0) throw new InvalidArgument(argument, whyNot(value), value)
  const why = unusable(into, family === AF_INET ? at + 12 : at, family)
  if (why !== undefined) throw new InvalidArgument(argument, `the address of a host; ${String(value)} is ${why}`)
  return family
}
