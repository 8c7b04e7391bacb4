import { viewOf } from './attributes.js'
import { Attributes } from './netlink-attributes.js'
import { Cursor } from './netlink-cursor.js'
import {
  ChainAttribute,
  DataAttribute,
  ElementAttribute,
  ElementsAttribute,
  Families,
  Message,
  nameOf,
  ObjectAttribute,
  RuleAttribute,
  SetAttribute,
  TableAttribute,
} from './nft-names.js'
import { TRANSACTION_HEAD_BYTES, TransactionKind, TransactionRecord } from './nft-records.js'
import { align4, LITTLE_ENDIAN } from './records.js'

/** What a transaction's records are about, in words: read from them when something was refused, which is seldom. */
export class Subjects {
  readonly #records: Uint8Array
  readonly #view: DataView
  #starts: number[] | undefined
  #numbers: Map<number, number> | undefined

  constructor(records: Uint8Array) {
    this.#records = records
    this.#view = viewOf(records)
  }

  /**
   * As in `rule 2 for chain input of table inet filter`: the second that the transaction adds to it.
   * @param element which of the record's elements it is about, if it is about one
   */
  of(index: number, element: number): string {
    const type = this.#type(index)
    const attributes = this.#attributes(index)
    const text = (attribute: number) => attributes.text(attribute)
    const within = (attribute: number) => `of table ${this.#family(index)} ${text(attribute)}`
    switch (type) {
      case Message.newTable:
      case Message.deleteTable:
        return `table ${this.#family(index)} ${text(TableAttribute.name)}`
      case Message.newChain:
      case Message.deleteChain:
        return `chain ${text(ChainAttribute.name)} ${within(ChainAttribute.table)}`
      case Message.newRule:
        return `rule ${this.#ruleNumbers().get(index)} for chain ${text(RuleAttribute.chain)} ${within(RuleAttribute.table)}`
      case Message.deleteRule: {
        const which = attributes.has(RuleAttribute.handle)
          ? `rule with handle ${attributes.u64(RuleAttribute.handle)}`
          : 'rules'
        return `${which} of chain ${text(RuleAttribute.chain)} ${within(RuleAttribute.table)}`
      }
      case Message.newSet:
      case Message.deleteSet:
        return `set ${text(SetAttribute.name)} ${within(SetAttribute.table)}`
      case Message.newElements:
      case Message.deleteElements:
        return `${this.#elements(index, element)} of set ${text(ElementsAttribute.set)} ${within(ElementsAttribute.table)}`
      default:
        return `counter ${text(ObjectAttribute.name)} ${within(ObjectAttribute.table)}`
    }
  }

  /** By its key, in hex. */
  #elements(index: number, element: number): string {
    const start = this.#start(index)
    const u32 = (at: number) => this.#view.getUint32(start + at, LITTLE_ENDIAN)
    if (element >= u32(TransactionRecord.elementCount)) return 'elements'
    const at = start + TRANSACTION_HEAD_BYTES + align4(u32(TransactionRecord.attributeBytes))
    const keyBytes = this.#view.getUint16(start + TransactionRecord.keyBytes, LITTLE_ENDIAN)
    const all = this.#records.subarray(at, start + u32(TransactionRecord.length))
    const alike = this.#kind(start) === TransactionKind.alike
    const rest = alike ? all.subarray(align4(viewOf(all).getUint16(0, LITTLE_ENDIAN))) : all
    const key = keyBytes === 0 ? keyOf(rest, element) : rest.subarray(element * keyBytes, (element + 1) * keyBytes)
    return `element 0x${Buffer.from(key).toString('hex')}`
  }

  #type(index: number): number {
    return this.#view.getUint16(this.#start(index) + TransactionRecord.type, LITTLE_ENDIAN)
  }

  #family(index: number): string {
    return nameOf(Families, this.#view.getUint8(this.#start(index) + TransactionRecord.family))!
  }

  #attributes(index: number): Attributes {
    const start = this.#start(index)
    const at = start + TRANSACTION_HEAD_BYTES
    return new Attributes(
      this.#records.subarray(at, at + this.#view.getUint32(start + TransactionRecord.attributeBytes, LITTLE_ENDIAN)),
    )
  }

  /** Of each record that adds a rule: which of those for its chain it is, from 1. */
  #ruleNumbers(): Map<number, number> {
    if (this.#numbers !== undefined) return this.#numbers
    this.#numbers = new Map<number, number>()
    const counts = new Map<string, number>()
    for (const index of this.#allStarts().keys()) {
      if (this.#type(index) !== Message.newRule) continue
      const attributes = this.#attributes(index)
      const names = [this.#family(index), attributes.text(RuleAttribute.table), attributes.text(RuleAttribute.chain)]
      const chain = names.join('\0')
      const number = (counts.get(chain) ?? 0) + 1
      counts.set(chain, number)
      this.#numbers.set(index, number)
    }
    return this.#numbers
  }

  #start(index: number): number {
    return this.#allStarts()[index]!
  }

  #kind(start: number): number {
    return this.#view.getUint8(start + TransactionRecord.kind)
  }

  /** Where the record of each change starts: rules that are alike are a change each. */
  #allStarts(): readonly number[] {
    if (this.#starts !== undefined) return this.#starts
    this.#starts = []
    for (let at = 0; at < this.#records.length; at += this.#view.getUint32(at, LITTLE_ENDIAN)) {
      const rules = this.#kind(at) === TransactionKind.rules
      const changes = rules ? this.#view.getUint32(at + TransactionRecord.elementCount, LITTLE_ENDIAN) : 1
      for (let i = 0; i < changes; i++) this.#starts.push(at)
    }
    return this.#starts
  }
}

/** The key of one of the elements that follow each other. */
function keyOf(elements: Uint8Array, index: number): Uint8Array {
  const cursor = new Cursor(elements)
  for (let i = 0; i <= index; i++) cursor.next()
  return new Attributes(cursor.payload).nest(ElementAttribute.key).bytes(DataAttribute.value)
}
