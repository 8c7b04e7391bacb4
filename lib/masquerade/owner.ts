import { hash } from 'node:crypto'
import { hexDigit } from '../base/address.js'
import { InvalidArgument } from '../base/errors.js'
import type { Comment } from '../kernel/nft.js'

/**
 * Whose a mapping is, and the comment that says so: as the CNI plugins write it (pkg/ip/ipmasq_nftables_linux.go of
 * github.com/containernetworking/plugins), so that they find ours and we theirs.
 */

/** One interface of one container in one network, as CNI names it. */
export interface AttachmentName {
  /** 1 to 255 bytes. */
  readonly network: string
  /** In the container: what the kernel takes as a device's name, 1 to 15 bytes. */
  readonly interfaceName: string
  /** 1 to 255 bytes. */
  readonly containerId: string
}

/** What a comment tells. */
export interface ReadComment {
  readonly owner: string
  /** Only if the comment has them whole: it is cut at 128 bytes, and bears no quotes. */
  readonly name: AttachmentName | undefined
}

/** CNI's file for the result of an attachment is named by all three, and a file's name has 255 bytes. */
const LONGEST_NAME = 255
/** IFNAMSIZ, without its NUL. */
const LONGEST_INTERFACE = 15
/** Longest comment that `nft` takes, in bytes, without its NUL. */
const LONGEST_COMMENT = 128
/** Hexadecimal digits of each half. */
const HALF = 16

/** A character is a byte. */
const plain = /^[ -~]*$/
const ownerPattern = /^[\da-f]{16}-[\da-f]{16}/
const namesPattern = /^.{33}, net: (.+), if: (\S+), id: (.+)$/

let latest: { readonly network: string; readonly half: string } | undefined

/** The half that tells the network, which all its owners begin with. They come by the thousand: the latest is kept. */
export function networkHash(network: string): string {
  if (latest?.network !== network) latest = { network, half: hash('sha512', network).slice(0, HALF) }
  return latest.half
}

/** What identifies an attachment, in 33 characters: `H(network)-H(interfaceName:containerId)`. */
export function ownerOf(networkHalf: string, interfaceName: string, containerId: string): string {
  // Joined, it is a string of its own: a part of the digest's would keep that whole in memory.
  return [networkHalf, hash('sha512', `${interfaceName}:${containerId}`).slice(0, HALF)].join('-')
}

/** As much of a comment as the plugins write, and `nft` takes. */
export function cut(comment: string): Comment {
  const bytes = Buffer.byteLength(comment)
  if (bytes <= LONGEST_COMMENT) return comment
  return Buffer.from(comment).subarray(0, LONGEST_COMMENT)
}

/** An owner as C++ has it: two halves of hash. Zeroes are nobody's. */
export const OWNER_BYTES = HALF

/** Writes an owner. */
export function writeOwner(text: string, into: Uint8Array, at: number): void {
  for (let i = 0; i < OWNER_BYTES; i++) {
    // Two digits a byte, and the dash between the halves.
    const digit = i * 2 + (i < OWNER_BYTES / 2 ? 0 : 1)
    into[at + i] = (hexDigit(text.charCodeAt(digit)) << 4) | hexDigit(text.charCodeAt(digit + 1))
  }
}

/** What all owners of a network begin with. */
export function networkBytes(network: string): Uint8Array {
  return Buffer.from(networkHash(network), 'hex')
}

/** Whose a comment says that something is; undefined if it is no attachment's. */
export function ownerIn(comment: string): string | undefined {
  return ownerPattern.test(comment) ? comment.slice(0, 2 * HALF + 1) : undefined
}

/** undefined for a comment that is no attachment's. */
export function readComment(comment: string): ReadComment | undefined {
  const owner = ownerIn(comment)
  if (owner === undefined) return undefined
  const [, network, interfaceName, containerId] = namesPattern.exec(comment) ?? []
  if (network === undefined || interfaceName === undefined || containerId === undefined)
    return { owner, name: undefined }
  // What was cut, or had quotes, or reads in more than one way, gives another hash.
  const whole = ownerOf(networkHash(network), interfaceName, containerId) === owner
  return { owner, name: whole ? { network, interfaceName, containerId } : undefined }
}

/** @throws InvalidArgument */
export function checkedInterface(value: unknown, argument: string): string {
  // What the kernel refuses in a device's name (dev_valid_name).
  if (isText(value, LONGEST_INTERFACE) && !/[\s/:]/.test(value) && value !== '.' && value !== '..') return value
  throw new InvalidArgument(
    argument,
    `a network device's name: 1 to ${LONGEST_INTERFACE} bytes, no space, '/' or ':'`,
    value,
  )
}

/** @throws InvalidArgument */
export function checkedText(value: unknown, argument: string): string {
  if (isText(value, LONGEST_NAME)) return value
  throw new InvalidArgument(argument, `a string of 1 to ${LONGEST_NAME} bytes without control characters`, value)
}

/** Half a surrogate pair has no bytes of its own: two such names would have one hash. */
const unfit = /[\p{Cc}\p{Cs}]/u

function isText(value: unknown, longest: number): value is string {
  if (typeof value !== 'string' || value === '' || value.length > longest) return false
  return plain.test(value) || (!unfit.test(value) && Buffer.byteLength(value) <= longest)
}
