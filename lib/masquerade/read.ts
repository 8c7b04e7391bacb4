import { formatAddress, type Family } from '../base/address.js'
import { commentSlots, type Nft, type NftElement } from '../kernel/nft.js'
import { Kind, type Entry } from './holdings.js'
import { Ledger } from './ledger.js'
import { cut, ownerIn, OWNER_WORDS, readComment, writeOwner, type AttachmentName } from './owner.js'
import { checks, Families, families, mappingOf, postrouting, prefixOfChain, table } from './rules.js'
import { checkShape, otherShape } from './shape.js'
import { ADDRESS_WORDS, bytesOf, mappingText, Subnets, writeAddress, type Mapping, type Subnet } from './subnet.js'

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
  const ledger = new Ledger()
  const sets = await readMaps(nft)
  for (const family of sets) ledger.maps.add(family)
  const entry: Entry = {
    kind: Kind.element,
    owners: new Uint32Array(OWNER_WORDS),
    owner: 0,
    addresses: new Uint32Array(ADDRESS_WORDS),
    address: 0,
    subnet: undefined,
    comments: undefined,
    comment: 0,
  }
  const elements = await readElements(nft, sets)
  // What was read of a cut character may be longer than it was.
  const comments = elements.map(({ comment }) => (comment === undefined ? undefined : cut(comment)))
  entry.comments = commentSlots(comments, 'comments')
  ledger.reserve(elements.length)
  for (const { address, subnet, comment } of elements) {
    takeOwner(comment, entry.owners)
    writeAddress(address, entry.addresses, 0)
    entry.subnet = subnet
    ledger.add(entry)
    entry.comment++
  }
  const rule: Entry = { ...entry, kind: Kind.rule, subnet: undefined, comments: undefined }
  rule.addresses.fill(0)
  const rules = await nft.rules(checks)
  ledger.reserve(rules.length)
  for (const { handle, comment } of rules) {
    const family = families.find((one) => Families[one].comment === comment)
    if (family !== undefined) ledger.mapRules.set(family, handle)
    if (takeOwner(comment, rule.owners)) ledger.handles[ledger.add(rule)] = handle
  }
  return ledger
}

/** Writes who a comment says; nobody, and false, if it says none. */
function takeOwner(comment: string | undefined, into: Uint32Array): boolean {
  const said = comment === undefined ? undefined : ownerIn(comment)
  if (said === undefined) into.fill(0)
  else writeOwner(said, into, 0)
  return said !== undefined
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
