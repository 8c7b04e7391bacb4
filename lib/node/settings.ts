import { type Address, AF_INET, AF_INET6, type Family, hostAddress } from '../base/address.js'
import { array, boolean, integer, namespace, oneOf, options, U16 } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { type Prefix, prefix, widthOf } from '../base/prefix.js'
import { bootId as ownBootId, bootIdBytes } from './boot-id.js'
import type { NodeKeys } from './keyfile.js'
import { intervalOf, outside } from './ranges.js'

/** What this node and the others are, as callers say it and as it was checked. */

/** What this node is in the mesh. */
export interface LocalNode {
  /**
   * Its end of the tunnels: an IPv4 address, an IPv6 one, or both. Without marks in none of its `subnets`; with them, before
   * this node's own change, `close({ flush: true })`.
   */
  addresses: readonly string[]
  /**
   * The ranges that its pods have. Default: none. Those that this node had before, and has no more, have no tunnels, and
   * nothing goes between them and other nodes until `release()` gives them up.
   */
  subnets?: readonly string[]
  /** Its underlay addresses, others than `addresses`, where overlay traffic between nodes is to be encrypted. Default: none. */
  overlay?: readonly string[]
  /** Default: what /proc/sys/kernel/random/boot_id says. */
  bootId?: string
}

/** What another node is. */
export interface RemoteNode extends LocalNode {
  /** What it goes by: a node of the same name is the same node. */
  name: string
  bootId: string
  /** With `marks: 'cilium'`: the number that this node's datapath has for it, 1 to 65535. */
  id?: number
}

export interface NodeEncryptionOptions {
  local: LocalNode
  /** What `loadKeysFile` or `parseKeys` gave. Its current key is the one to encrypt with. */
  keys: NodeKeys
  /**
   * What chooses the packets to be encrypted. `false`: the ranges of both ends, under a guard in nftables that drops what
   * is not. 'cilium': marks that a datapath sets, as Cilium's does. Default: false.
   */
  marks?: false | 'cilium'
  /** With `marks: 'cilium'`: also let in what goes to a proxy of the datapath (mark 0x200). Default: false. */
  proxy?: boolean
  /** With `marks: 'cilium'`: leave decrypted packets without a mark, for a stack that routes them itself. Default: false. */
  zeroOutputMark?: boolean
  /** With `marks: false`: the UDP port of overlay traffic, 1 to 65535. Default: 8472. */
  overlayPort?: number
  /** Network namespace: a path, as in /run/netns/a, or an open descriptor. Default: the process's own. */
  netns?: string | number
  /** Time that one exchange with the kernel may take, 1 to 2^31 - 1 ms. Default: 10,000. */
  timeoutMs?: number
}

/** A node, checked. */
export interface Ends {
  readonly addresses: ReadonlyMap<Family, Address>
  readonly overlay: ReadonlyMap<Family, Address>
  readonly subnets: readonly Prefix[]
  readonly bootId: Uint8Array
}

/** Another node, checked. */
export interface Remote extends Ends {
  readonly name: string
  /** 0 without marks. */
  readonly id: number
}

/** Options, checked, but for the keys. */
export interface Settings {
  readonly local: Ends
  readonly marks: false | 'cilium'
  readonly proxy: boolean
  readonly zeroOutputMark: boolean
  readonly overlayPort: number
  readonly netns: string | number | undefined
  readonly timeoutMs: number
}

export const FAMILIES = [AF_INET, AF_INET6] as const

/** Cilium's marks have sixteen bits for it. */
const LAST_NODE_ID = 0xffff

/** Checks the options of `NodeEncryption.open`. @throws InvalidArgument */
export function settings(given: unknown): { settings: Settings; keys: unknown } {
  const o = options<NodeEncryptionOptions>(given, 'options', [
    'local',
    'keys',
    'marks',
    'proxy',
    'zeroOutputMark',
    'overlayPort',
    'netns',
    'timeoutMs',
  ])
  const marks = o.marks === undefined || o.marks === false ? false : oneOf(o.marks, 'options.marks', ['cilium'])
  for (const name of ['proxy', 'zeroOutputMark'] as const) {
    if (boolean(o[name] ?? false, `options.${name}`) && marks === false) {
      throw new InvalidArgument(`options.${name}`, "left out without marks: 'cilium'")
    }
  }
  if (o.overlayPort !== undefined && marks !== false) {
    throw new InvalidArgument('options.overlayPort', 'left out with marks: they choose the packets')
  }
  const local = options<LocalNode>(o.local, 'options.local', ['addresses', 'subnets', 'overlay', 'bootId'])
  return {
    settings: {
      local: ends({ ...local, bootId: local.bootId ?? ownBootId() }, 'options.local', marks),
      marks,
      proxy: o.proxy ?? false,
      zeroOutputMark: o.zeroOutputMark ?? false,
      overlayPort: integer(o.overlayPort ?? 8472, 'options.overlayPort', 1, U16),
      netns: namespace(o.netns, 'options.netns'),
      timeoutMs: integer(o.timeoutMs ?? 10_000, 'options.timeoutMs', 1, 0x7fffffff),
    },
    keys: o.keys,
  }
}

/** Checks another node. @throws InvalidArgument */
export function remote(given: unknown, argument: string, { marks }: Settings): Remote {
  const node = options<RemoteNode>(given, argument, ['name', 'addresses', 'subnets', 'overlay', 'bootId', 'id'])
  const id = marks === false ? 0 : integer(node.id, `${argument}.id`, 1, LAST_NODE_ID)
  if (marks === false && node.id !== undefined) {
    throw new InvalidArgument(`${argument}.id`, "left out without marks: 'cilium'", node.id)
  }
  return { ...ends(node, argument, marks), name: nodeName(node.name, `${argument}.name`), id }
}

/** @throws InvalidArgument */
export function nodeName(value: unknown, argument: string): string {
  if (typeof value === 'string' && value !== '') return value
  throw new InvalidArgument(argument, "a node's name", value)
}

function ends(
  given: Omit<LocalNode, 'bootId'> & { bootId: unknown },
  argument: string,
  marks: Settings['marks'],
): Ends {
  const addresses = addressesOf(given.addresses, `${argument}.addresses`)
  if (addresses.size === 0) throw new InvalidArgument(`${argument}.addresses`, 'an array of an address of each family')
  const overlay = addressesOf(given.overlay ?? [], `${argument}.overlay`)
  for (const [family, address] of overlay) {
    if (addresses.get(family)?.text !== address.text) continue
    throw new InvalidArgument(`${argument}.overlay`, `other addresses than its end of the tunnels: ${address.text} is`)
  }
  const subnets = array(given.subnets ?? [], `${argument}.subnets`).map((range, i) =>
    prefix(range, `${argument}.subnets[${i}]`),
  )
  for (const [i, { family, text }] of subnets.entries()) {
    if (addresses.has(family)) continue
    throw new InvalidArgument(`${argument}.subnets[${i}]`, `of the family of an address of the node, not ${text}`)
  }
  // What carries the tunnels would itself be taken for what goes between pods.
  if (marks === false) {
    outsideOf(subnets, addresses, `${argument}.addresses`)
    outsideOf(subnets, overlay, `${argument}.overlay`)
  }
  return { addresses, overlay, subnets, bootId: bootIdBytes(given.bootId, `${argument}.bootId`) }
}

function outsideOf(subnets: readonly Prefix[], addresses: ReadonlyMap<Family, Address>, argument: string): void {
  for (const [i, address] of [...addresses.values()].entries()) {
    const { family, text } = address
    const host = intervalOf({ ...address, length: widthOf(family) })
    const around = subnets.find((range) => range.family === family && outside([host], [intervalOf(range)]).length === 0)
    if (around === undefined) continue
    const expected = `an address outside of the node's own subnets (${around.text} has it: the guard would drop the tunnels' own packets)`
    throw new InvalidArgument(`${argument}[${i}]`, expected, text)
  }
}

function addressesOf(value: unknown, argument: string): Map<Family, Address> {
  const found = new Map<Family, Address>()
  for (const [i, text] of array(value, argument).entries()) {
    const address = hostAddress(text, `${argument}[${i}]`)
    if (found.has(address.family)) {
      throw new InvalidArgument(`${argument}[${i}]`, 'of another family than the one before', text)
    }
    found.set(address.family, address)
  }
  return found
}
