import { InvalidState } from '../base/errors.js'
import { AttributeWriter } from './netlink-attributes.js'
import { align8, LITTLE_ENDIAN } from './records.js'

/** The records that a transaction's changes become: what the addon takes. */

/** Offsets of struct TransactionRecord (native/nft/transaction.h). */
export const TransactionRecord = {
  length: 0,
  type: 4,
  flags: 6,
  family: 8,
  kind: 9,
  keyBytes: 10,
  attributeBytes: 12,
  elementCount: 16,
  keyAt: 20,
} as const
export const TRANSACTION_HEAD_BYTES = 24
export const TransactionKind = { plain: 0, keys: 1, elements: 2, alike: 3, rules: 4 } as const

export const NLM_F_CREATE = 0x400
export const NLM_F_APPEND = 0x800

export interface RecordHead {
  readonly type: number
  readonly flags: number
  readonly family: number
}

/** What follows a record's attributes: `count` elements of a set, or what differs in so many rules, written by `fill`. */
export interface RecordElements {
  readonly kind: number
  /** Of one packed key; 0 for elements that are encoded already. */
  readonly keyBytes: number
  /** Where a key goes in what they have in common, if that is written once. */
  readonly keyAt?: number
  readonly count: number
  fill(writer: AttributeWriter): void
}

/** One growing buffer of them. */
export class TransactionRecords {
  readonly #writer = new AttributeWriter()
  #size = 0
  #spent = false

  /** How many changes there are: a record is one, or as many as it has rules. */
  get size(): number {
    return this.#size
  }

  /** Appends a record, whole or, if something throws, not at all. */
  add(head: RecordHead, fill: (writer: AttributeWriter) => void, elements?: RecordElements): void {
    if (this.#spent) throw spentError()
    const writer = this.#writer
    const start = writer.position
    try {
      const attributesAt = writer.skip(TRANSACTION_HEAD_BYTES) + TRANSACTION_HEAD_BYTES
      fill(writer)
      const attributeBytes = writer.position - attributesAt
      elements?.fill(writer)
      writer.skip(align8(writer.position) - writer.position)
      const { view } = writer
      view.setUint32(start + TransactionRecord.length, writer.position - start, LITTLE_ENDIAN)
      view.setUint16(start + TransactionRecord.type, head.type, LITTLE_ENDIAN)
      view.setUint16(start + TransactionRecord.flags, head.flags, LITTLE_ENDIAN)
      view.setUint8(start + TransactionRecord.family, head.family)
      view.setUint32(start + TransactionRecord.attributeBytes, attributeBytes, LITTLE_ENDIAN)
      if (elements !== undefined) {
        view.setUint8(start + TransactionRecord.kind, elements.kind)
        view.setUint16(start + TransactionRecord.keyBytes, elements.keyBytes, LITTLE_ENDIAN)
        view.setUint32(start + TransactionRecord.elementCount, elements.count, LITTLE_ENDIAN)
        view.setUint32(start + TransactionRecord.keyAt, elements.keyAt ?? 0, LITTLE_ENDIAN)
      }
    } catch (error) {
      writer.truncate(start)
      throw error
    }
    this.#size += elements?.kind === TransactionKind.rules ? elements.count : 1
  }

  /** Appends so many that were taken from others. */
  append(records: Uint8Array, size: number): void {
    if (this.#spent) throw spentError()
    this.#writer.raw(records)
    this.#size += size
  }

  /** All of them; nothing can be added any more. */
  take(): Uint8Array {
    if (this.#spent) throw spentError()
    this.#spent = true
    return this.#writer.written
  }
}

function spentError(): InvalidState {
  return new InvalidState('this transaction was committed: fill a new one')
}
