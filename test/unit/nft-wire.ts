import { readFileSync } from 'node:fs'
import { eachAttribute, viewOf } from '../../lib/kernel/attributes.js'
import { TransactionRecord, type NftTransaction } from '../../lib/kernel/nft-transaction.js'
import { LITTLE_ENDIAN } from '../../lib/kernel/records.js'

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
  return sent.slice(1, -1).map((hex) => {
    const bytes = Buffer.from(hex, 'hex')
    return {
      type: bytes[4]!,
      flags: viewOf(bytes).getUint16(6, LITTLE_ENDIAN) & ~(NLM_F_REQUEST | NLM_F_ACK),
      family: bytes[16]!,
      attributes: tree(bytes.subarray(20)),
    }
  })
}

/** The messages in what came back, whole. */
export function receivedBy({ received }: Capture): Uint8Array[] {
  const messages: Uint8Array[] = []
  for (const hex of received) {
    const bytes = Buffer.from(hex, 'hex')
    for (let at = 0; at < bytes.length;) {
      const length = viewOf(bytes).getUint32(at, LITTLE_ENDIAN)
      messages.push(bytes.subarray(at, at + length))
      at += (length + 3) & ~3
    }
  }
  return messages
}

const HEAD_BYTES = 24
const ELEMENTS = 3
const LIST_ELEMENT = 1
const ELEMENT_KEY = 1
const DATA_VALUE = 1

/** What C++ will make of a transaction, each record as one message; native/test shows that it does. Spends the transaction. */
export function heldBy(transaction: NftTransaction): Message[] {
  const { records } = transaction.take()
  const view = viewOf(records)
  const messages: Message[] = []
  for (let at = 0; at < records.length; at += view.getUint32(at + TransactionRecord.length, LITTLE_ENDIAN)) {
    const attributeBytes = view.getUint32(at + TransactionRecord.attributeBytes, LITTLE_ENDIAN)
    const keyBytes = view.getUint16(at + TransactionRecord.keyBytes, LITTLE_ENDIAN)
    const keyCount = view.getUint32(at + TransactionRecord.keyCount, LITTLE_ENDIAN)
    const attributes = tree(records.subarray(at + HEAD_BYTES, at + HEAD_BYTES + attributeBytes))
    if (records[at + TransactionRecord.kind] === 1) {
      const keysAt = at + HEAD_BYTES + ((attributeBytes + 3) & ~3)
      const keys = Array.from({ length: keyCount }, (_, i): Tree => {
        const key = records.subarray(keysAt + i * keyBytes, keysAt + (i + 1) * keyBytes)
        return [LIST_ELEMENT, [[ELEMENT_KEY, [[DATA_VALUE, Buffer.from(key).toString('hex')]]]]]
      })
      attributes.push([ELEMENTS, keys])
    }
    messages.push({
      type: view.getUint16(at + TransactionRecord.type, LITTLE_ENDIAN),
      flags: view.getUint16(at + TransactionRecord.flags, LITTLE_ENDIAN),
      family: records[at + TransactionRecord.family]!,
      attributes,
    })
  }
  return messages
}
