import { ADDRESS_BYTES, formatAddress, type Family } from '../base/address.js'
import type { Nft, NftElement } from '../kernel/nft.js'
import { commentSlots } from '../kernel/nft-userdata.js'
import { newLedger } from '../kernel/mappings.js'
import type { Ledger } from './ledger.js'
import { cut, ownerIn, OWNER_BYTES, readComment, writeOwner, type AttachmentName } from './owner.js'
import { checks, Families, families, mappingOf, postrouting, prefixOfChain, table } from './rules.js'
import { checkShape, otherShape } from './shape.js'
import {
  bytesOf,
  mappingText,
  SUBNET_BYTES,
  Subnets,
  writeAddress,
  writeSubnet,
  type Mapping,
  type Subnet,
} from './subnet.js'

/** What the kernel has, read. What several requests told is of one state only if the ruleset did not change meanwhile. */

/** What the kernel has of one attachment. */
export interface ListedAttachment extends Partial<AttachmentName> {
  /** What identifies it: `H(network)-H(interfaceName:containerId)`, H being the first 16 hexadecimal digits of SHA-512. */
  readonly owner: string
  /** As they were given, IPv4 first, in ascending order. A rule that says something else than the plugins' has none. */
  readonly addresses: readonly string[]
}

/**
 * All that changes whenever the table does: handles, which the kernel counts up as it makes chains and rules, and how often
 * each chain is used. An addition makes the rules of `postrouting` anew; a removal leaves some chain used less. undefined
 * if there is no table.
 */
export async function readMark(nft: Nft): Promise<string | undefined> {
  const [found, chains, rules] = await Promise.all([
    nft.table(table),
    nft.chains(table),
    nft.rules(postrouting, { comments: false }),
  ])
  return (
    found &&
    JSON.stringify([
      found.handle,
      found.flags,
      chains.map(({ chain, handle, base, use }) => [chain, handle, base, use]),
      rules.map(({ handle }) => handle),
    ])
  )
}

/** @throws InvalidState ERR_XFRMESH_OTHER_SHAPE */
export async function readLedger(nft: Nft): Promise<Ledger> {
  const maps = await readMaps(nft)
  const elements = await readElements(nft, maps)
  const owners = new Uint8Array(elements.length * OWNER_BYTES)
  const addresses = new Uint8Array(elements.length * ADDRESS_BYTES)
  const subnets = new Uint8Array(elements.length * SUBNET_BYTES)
  for (const [i, { address, subnet, comment }] of elements.entries()) {
    const owner = comment === undefined ? undefined : ownerIn(comment)
    if (owner !== undefined) writeOwner(owner, owners, i * OWNER_BYTES)
    writeAddress(address, addresses, i * ADDRESS_BYTES)
    writeSubnet(subnet, subnets, i * SUBNET_BYTES)
  }
  // What was read of a cut character may be longer than it was.
  const comments = elements.map(({ comment }) => (comment === undefined ? undefined : cut(comment)))
  const mapRules = new Map<Family, number>()
  const rules = await nft.rules(checks)
  const ruleOwners = new Uint8Array(rules.length * OWNER_BYTES)
  const handles = new Float64Array(rules.length)
  let owned = 0
  for (const { handle, comment } of rules) {
    if (comment === undefined) continue
    const family = families.find((one) => Families[one].comment === comment)
    if (family !== undefined) mapRules.set(family, handle)
    const owner = ownerIn(comment)
    if (owner === undefined) continue
    writeOwner(owner, ruleOwners, owned * OWNER_BYTES)
    handles[owned++] = handle
  }
  const slots = commentSlots(comments, 'comments')
  const ofRules = [ruleOwners.subarray(0, owned * OWNER_BYTES), handles.subarray(0, owned)] as const
  return { mappings: newLedger(owners, addresses, subnets, slots, ...ofRules), maps: new Set(maps), mapRules }
}

interface ReadElement {
  readonly address: Uint8Array
  readonly subnet: Subnet
  readonly comment: string | undefined
}

/** In the order of their owners. @throws InvalidState ERR_XFRMESH_OTHER_SHAPE */
export async function readAttachments(nft: Nft): Promise<ListedAttachment[]> {
  const found = new Map<string, { names: Partial<AttachmentName>; mappings: Mapping[] }>()
  const add = (comment: string | undefined, mapping: Mapping | undefined) => {
    const read = comment === undefined ? undefined : readComment(comment)
    if (read === undefined) return
    const one = found.get(read.owner) ?? { names: read.name ?? {}, mappings: [] }
    if (mapping !== undefined) one.mappings.push(mapping)
    found.set(read.owner, one)
  }
  const subnets = new Subnets()
  for (const { comment, address, subnet } of await readElements(nft, await readMaps(nft))) {
    add(comment, { text: formatAddress(address, 0, subnet.family), subnet })
  }
  for (const { comment, expressions } of await nft.rules(checks, { expressions: true })) {
    add(comment, mappingOf(expressions, subnets))
  }
  return Array.from(found, ([owner, { names, mappings }]) => ({
    owner,
    ...names,
    addresses: mappings.sort(inOrder).map(mappingText),
  })).sort((a, b) => (a.owner < b.owner ? -1 : 1))
}

function inOrder(a: Mapping, b: Mapping): number {
  return a.subnet.family - b.subnet.family || Buffer.compare(bytesOf(a), bytesOf(b))
}

/** The families whose map is there, in a table that is as it should be. @throws InvalidState ERR_XFRMESH_OTHER_SHAPE */
async function readMaps(nft: Nft): Promise<Family[]> {
  const [found, chains, sets] = await Promise.all([nft.table(table), nft.chains(table), nft.sets(table)])
  if (found === undefined) return []
  checkShape({ table: found, chains, sets })
  return families.filter((family) => sets.some(({ set }) => set === Families[family].map))
}

async function readElements(nft: Nft, maps: readonly Family[]): Promise<ReadElement[]> {
  const lists = await Promise.all(maps.map((family) => nft.elements({ ...table, set: Families[family].map })))
  return lists.flatMap((elements, i) => heldIn(maps[i]!, elements))
}

function heldIn(family: Family, elements: readonly NftElement[]): ReadElement[] {
  const subnets = new Subnets()
  const prefixes = new Map<NftElement['verdict'], number>()
  return elements.map(({ key, verdict, comment }) => {
    let prefix = prefixes.get(verdict)
    if (prefix === undefined) {
      prefix = verdict?.verdict === 'jump' ? prefixOfChain(verdict.chain) : undefined
      if (prefix === undefined || prefix > Families[family].bytes * 8) {
        throw otherShape(`map ${Families[family].map} has an element that does not lead to a subnet's chain`)
      }
      prefixes.set(verdict, prefix)
    }
    return { address: key, subnet: subnets.of(family, key, 0, prefix), comment }
  })
}
