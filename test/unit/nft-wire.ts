import { readFileSync } from 'node:fs'
import { eachAttribute, viewOf } from '../../lib/kernel/attributes.js'
import { Message as Kind } from '../../lib/kernel/nft-names.js'
import type { NftTransaction } from '../../lib/kernel/nft-transaction.js'
import { LITTLE_ENDIAN } from '../../lib/kernel/records.js'
import { native } from '../../lib/native.js'

/** nftables messages as trees that can be compared: what nft sent (test/data/nft.json) and what a transaction holds. */

export interface Capture {
  readonly name: string
  readonly sent: string[]
  readonly received: string[]
}

const all = JSON.parse(readFileSync(new URL('../data/nft.json', import.meta.url), 'utf8')) as Capture[]

export const captures: readonly Capture[] = all.filter((capture) => 'sent' in capture)

export function capture(name: string): Capture {
  const found = captures.find((one) => one.name === name)
  if (found === undefined) throw new Error(`no capture is named '${name}'`)
  return found
}

/** An attribute's type and its payload, in hex or as the attributes nested in it. Those of one nest are in order of type. */
export type Tree = [type: number, payload: string | Tree[]]

export interface Message {
  type: number
  flags: number
  family: number
  attributes: Tree[]
}

const NLM_F_REQUEST = 1
const NLM_F_ACK = 4
const NESTED = 0x8000

function tree(bytes: Uint8Array): Tree[] {
  const view = viewOf(bytes)
  const found: Tree[] = []
  for (const [type, payload] of eachAttribute(bytes)) {
    const header = payload.byteOffset - bytes.byteOffset - 4
    const nested = (view.getUint16(header + 2, LITTLE_ENDIAN) & NESTED) !== 0
    found.push([type, nested ? tree(payload) : Buffer.from(payload).toString('hex')])
  }
  return found.sort(([a], [b]) => a - b)
}

/** The messages between BATCH_BEGIN and BATCH_END. */
export function sentBy({ sent }: Capture): Message[] {
  return sent.slice(1, -1).map((hex) => messageOf(Buffer.from(hex, 'hex')))
}

/** The same of a transaction of ours, as it goes to the kernel. Spends it. */
export function heldBy(transaction: NftTransaction): Message[] {
  return wholeMessages(native.encodeTransaction(transaction.take(), 0, transaction.held))
    .slice(1, -1)
    .map(messageOf)
}

function messageOf(bytes: Uint8Array): Message {
  return {
    type: bytes[4]!,
    flags: viewOf(bytes).getUint16(6, LITTLE_ENDIAN) & ~(NLM_F_REQUEST | NLM_F_ACK),
    family: bytes[16]!,
    attributes: tree(bytes.subarray(20)),
  }
}

/** The messages in what came back, whole. */
export function receivedBy({ received }: Capture): Uint8Array[] {
  return received.flatMap((hex) => wholeMessages(Buffer.from(hex, 'hex')))
}

const NFTABLES = 10
/** Headers of netlink and of netfilter: what has no more has no attributes. */
const HEADERS = 20

/** Whether a message is one that the kernel describes something with, of that kind. */
export function isAnswer(message: Uint8Array, type: number): boolean {
  return message[4] === type && message[5] === NFTABLES && message.length > HEADERS
}

/** Messages as they come in one buffer, each from a multiple of four bytes on. */
export function joined(messages: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(messages.flatMap((message) => [message, new Uint8Array(-message.length & 3)])))
}

function wholeMessages(bytes: Uint8Array): Uint8Array[] {
  const messages: Uint8Array[] = []
  for (let at = 0; at < bytes.length;) {
    const length = viewOf(bytes).getUint32(at, LITTLE_ENDIAN)
    messages.push(bytes.subarray(at, at + length))
    at += (length + 3) & ~3
  }
  return messages
}

const SET_NUMBER_OF_ELEMENTS = 4
const SET_NUMBER_OF_LOOKUP = 4
const LOOKUP = Buffer.from('lookup\0').toString('hex')
const BITWISE = Buffer.from('bitwise\0').toString('hex')
const BITWISE_OPERATION = 6
const EXPRESSIONS = 4
const ELEMENTS = 3

/**
 * nft names the sets of a transaction by number as well as by name, numbers elements where the kernel looks for no
 * number, and sometimes says that a bitwise operation is the usual one. We do none of it.
 */
function asWeDo(message: Message): Message {
  const attributes = message.attributes.map(([type, value]): Tree => {
    if (typeof value === 'string') return [type, value]
    if (message.type === Kind.newRule && type === EXPRESSIONS) return [type, value.map(withoutDefaults)]
    if (isElements(message) && type === ELEMENTS) return [type, value.map(([, element]): Tree => [1, element])]
    return [type, value]
  })
  return {
    ...message,
    attributes: isElements(message) ? attributes.filter(([type]) => type !== SET_NUMBER_OF_ELEMENTS) : attributes,
  }
}

function isElements({ type }: Message): boolean {
  return type === Kind.newElements || type === Kind.deleteElements
}

function withoutDefaults(element: Tree): Tree {
  const [type, expression] = element
  const [name, data] = expression as Tree[]
  const without = (drop: (attribute: Tree) => boolean): Tree => [
    type,
    [name!, [data![0], (data![1] as Tree[]).filter((attribute) => !drop(attribute))]],
  ]
  if (name![1] === LOOKUP) return without(([number]) => number === SET_NUMBER_OF_LOOKUP)
  if (name![1] === BITWISE) return without(([number, value]) => number === BITWISE_OPERATION && value === '00000000')
  return element
}

/** What nft sent, as we would have sent it. */
export function nft(name: string): Message[] {
  return sentBy(capture(name)).map(asWeDo)
}
