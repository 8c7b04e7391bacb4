import { array, integer, oneOf, options, U16 } from '../base/check.js'
import { InvalidArgument, InvalidState } from '../base/errors.js'
import { AttributeWriter, textBytes } from './nft-attributes.js'
import { writeExpression, type Expression } from './nft-expressions.js'
import {
  ChainAttribute,
  ChainTypes,
  checkedName,
  ElementsAttribute,
  familyNumber,
  HookAttribute,
  Hooks,
  KEY_TYPE_INTEGER,
  LIST_ELEMENT,
  Message,
  namesOf,
  Policies,
  RuleAttribute,
  SetAttribute,
  TableAttribute,
  type ChainName,
  type ChainType,
  type Hook,
  type NftFamily,
  type Policy,
  type RuleName,
  type SetName,
  type TableName,
} from './nft-names.js'
import { commentUserdata, LONGEST_COMMENT, setUserdata, type TransportField } from './nft-userdata.js'
import { align4, align8, LITTLE_ENDIAN } from './records.js'

/** A comment is what `nft list` shows: up to 127 bytes. */
export interface TableOptions extends TableName {
  readonly comment?: string
}
export interface BaseChain {
  readonly type: ChainType
  readonly hook: Hook
  /** The lower the earlier: raw is -300, mangle -150, filter 0, the source NAT 100. */
  readonly priority: number
  /** What happens to packets that reach its end. Default: accept. */
  readonly policy?: Policy
}
export interface ChainOptions extends ChainName {
  /** Left out: a chain that packets enter only by a jump or goto. */
  readonly base?: BaseChain
  readonly comment?: string
}
export interface SetOptions extends SetName {
  readonly keyBytes: number
  /** The field that keys are compared with, so that `nft list` prints them as such. Its length is that of the keys. */
  readonly typeof?: TransportField
  readonly comment?: string
}
export interface RuleOptions extends ChainName {
  readonly expressions: readonly Expression[]
  /** Where: at the chain's end, which is the default, or at its head. */
  readonly at?: 'end' | 'head'
  readonly comment?: string
}
export interface ElementsOptions extends SetName {
  readonly keyBytes: number
  /** Keys in network byte order, one after the other without gaps. */
  readonly keys: Uint8Array
}

const NLM_F_CREATE = 0x400
const NLM_F_APPEND = 0x800

/** Offsets of struct TransactionRecord (native/nft/transaction.h). */
export const TransactionRecord = {
  length: 0,
  type: 4,
  flags: 6,
  family: 8,
  kind: 9,
  keyBytes: 10,
  attributeBytes: 12,
  keyCount: 16,
  reserved: 20,
} as const
const HEAD_BYTES = 24
const KIND_ELEMENTS = 1

/** NFT_DATA_VALUE_MAXLEN */
const LONGEST_KEY = 64

/**
 * Changes to a ruleset that are made together or not at all. A value: fill it, then commit it once with `Nft.commit`.
 *
 * As in `nft`, adding a table, a chain, a set or an element that is there already changes nothing and is no failure, and
 * deleting what is not there fails. A rule is added each time. Its number is that of the change, from 0: failures
 * are named by it. What was listed can be named by what the list gave.
 */
export class NftTransaction {
  #records: Uint8Array[] = []
  #subjects: string[] = []
  #sets = 0
  #spent = false

  /** Changes so far. */
  get size(): number {
    return this.#subjects.length
  }

  addTable(value: TableOptions): this {
    const table = options<TableOptions>(value, 'table', ['family', 'table', 'comment'])
    const attributes = tableAttributes(table, 'table').u32(TableAttribute.flags, 0)
    if (table.comment !== undefined) {
      attributes.bytes(TableAttribute.userdata, commentUserdata(checkedComment(table.comment, 'table.comment')))
    }
    return this.#add(Message.newTable, 0, table.family, `table ${table.table}`, attributes)
  }

  /** With all that is in it. */
  deleteTable(value: TableName): this {
    const table = taken(value, 'table', ['family', 'table'])
    const attributes = tableAttributes(table, 'table')
    return this.#add(Message.deleteTable, 0, table.family, `table ${table.table}`, attributes)
  }

  addChain(value: ChainOptions): this {
    const chain = options<ChainOptions>(value, 'chain', ['family', 'table', 'chain', 'base', 'comment'])
    const attributes = chainAttributes(chain, 'chain')
    if (chain.base !== undefined) writeBase(attributes, chain.base)
    if (chain.comment !== undefined) {
      attributes.bytes(ChainAttribute.userdata, commentUserdata(checkedComment(chain.comment, 'chain.comment')))
    }
    return this.#add(Message.newChain, NLM_F_CREATE, chain.family, `chain ${chain.chain}`, attributes)
  }

  /** Fails while it has rules, or others jump to it. */
  deleteChain(value: ChainName): this {
    const chain = taken(value, 'chain', ['family', 'table', 'chain'])
    const attributes = chainAttributes(chain, 'chain')
    return this.#add(Message.deleteChain, 0, chain.family, `chain ${chain.chain}`, attributes)
  }

  /** Deletes all its rules. */
  flushChain(value: ChainName): this {
    const chain = taken(value, 'chain', ['family', 'table', 'chain'])
    const attributes = ruleAttributes(chain, 'chain')
    return this.#add(Message.deleteRule, 0, chain.family, `rules of chain ${chain.chain}`, attributes)
  }

  addSet(value: SetOptions): this {
    const set = options<SetOptions>(value, 'set', ['family', 'table', 'set', 'keyBytes', 'typeof', 'comment'])
    const keyBytes = integer(set.keyBytes, 'set.keyBytes', 1, LONGEST_KEY)
    const comment = set.comment === undefined ? undefined : checkedComment(set.comment, 'set.comment')
    const attributes = setAttributes(set, 'set')
      .u32(SetAttribute.flags, 0)
      .u32(SetAttribute.keyType, KEY_TYPE_INTEGER)
      .u32(SetAttribute.keyBytes, keyBytes)
      // The kernel wants a number for use in this transaction; we name sets by their names.
      .u32(SetAttribute.id, ++this.#sets)
    const userdata = setUserdata(set.typeof && checkedField(set.typeof, keyBytes), comment)
    if (userdata.length > 0) attributes.bytes(SetAttribute.userdata, userdata)
    return this.#add(Message.newSet, NLM_F_CREATE, set.family, `set ${set.set}`, attributes)
  }

  /** Fails while a rule refers to it. */
  deleteSet(value: SetName): this {
    const set = taken(value, 'set', ['family', 'table', 'set'])
    const attributes = setAttributes(set, 'set')
    return this.#add(Message.deleteSet, 0, set.family, `set ${set.set}`, attributes)
  }

  /** Deletes all its elements. */
  flushSet(value: SetName): this {
    const set = taken(value, 'set', ['family', 'table', 'set'])
    const attributes = elementsAttributes(set, 'set')
    return this.#add(Message.deleteElements, 0, set.family, `elements of set ${set.set}`, attributes)
  }

  /** As many as there are, 4,000 or 100,000: the kernel takes or refuses them all at once. None are no change. */
  addElements(elements: ElementsOptions): this {
    return this.#elements(Message.newElements, NLM_F_CREATE, elements)
  }

  deleteElements(elements: ElementsOptions): this {
    return this.#elements(Message.deleteElements, 0, elements)
  }

  addRule(value: RuleOptions): this {
    const rule = options<RuleOptions>(value, 'rule', ['family', 'table', 'chain', 'expressions', 'at', 'comment'])
    const at = rule.at === undefined ? 'end' : oneOf(rule.at, 'rule.at', ['end', 'head'])
    const expressions = array(rule.expressions, 'rule.expressions') as readonly Expression[]
    const attributes = ruleAttributes(rule, 'rule')
    try {
      attributes.nest(RuleAttribute.expressions, (list) => {
        for (const [i, expression] of expressions.entries()) {
          list.nest(LIST_ELEMENT, () => writeExpression(list, expression, `rule.expressions[${i}]`))
        }
      })
    } catch (error) {
      if (error instanceof RangeError) throw new InvalidArgument('rule.expressions', 'less than 64 KiB once encoded')
      throw error
    }
    if (rule.comment !== undefined) {
      attributes.bytes(RuleAttribute.userdata, commentUserdata(checkedComment(rule.comment, 'rule.comment')))
    }
    const flags = at === 'end' ? NLM_F_CREATE | NLM_F_APPEND : NLM_F_CREATE
    return this.#add(Message.newRule, flags, rule.family, `rule of chain ${rule.chain}`, attributes)
  }

  deleteRule(value: RuleName): this {
    const rule = taken(value, 'rule', ['family', 'table', 'chain', 'handle'])
    const handle = integer(rule.handle, 'rule.handle', 1, Number.MAX_SAFE_INTEGER)
    const attributes = ruleAttributes(rule, 'rule').u64(RuleAttribute.handle, BigInt(handle))
    return this.#add(Message.deleteRule, 0, rule.family, `rule ${handle} of chain ${rule.chain}`, attributes)
  }

  /**
   * Hands out what was filled in, as the records that the addon takes, and ends this transaction.
   * @internal
   */
  take(): { records: Uint8Array; subjects: readonly string[] } {
    this.#checkOpen()
    this.#spent = true
    const taken = { records: Buffer.concat(this.#records), subjects: this.#subjects }
    this.#records = []
    return taken
  }

  #elements(type: number, flags: number, value: ElementsOptions): this {
    const elements = options<ElementsOptions>(value, 'elements', ['family', 'table', 'set', 'keyBytes', 'keys'])
    const keyBytes = integer(elements.keyBytes, 'elements.keyBytes', 1, LONGEST_KEY)
    const { keys } = elements
    if (!((keys as unknown) instanceof Uint8Array) || keys.length % keyBytes !== 0) {
      throw new InvalidArgument('elements.keys', `a Uint8Array of keys of ${keyBytes} bytes each`, keys)
    }
    const attributes = elementsAttributes(elements, 'elements')
    if (keys.length === 0) return this
    const subject = `elements of set ${elements.set}`
    return this.#add(type, flags, elements.family, subject, attributes, { keyBytes, keys })
  }

  #add(
    type: number,
    flags: number,
    family: NftFamily,
    subject: string,
    attributes: AttributeWriter,
    packed?: { readonly keyBytes: number; readonly keys: Uint8Array },
  ): this {
    this.#checkOpen()
    const body = attributes.written
    const keysAt = HEAD_BYTES + align4(body.length)
    const record = new Uint8Array(align8(keysAt + (packed?.keys.length ?? 0)))
    const view = new DataView(record.buffer)
    view.setUint32(TransactionRecord.length, record.length, LITTLE_ENDIAN)
    view.setUint16(TransactionRecord.type, type, LITTLE_ENDIAN)
    view.setUint16(TransactionRecord.flags, flags, LITTLE_ENDIAN)
    record[TransactionRecord.family] = familyNumber(family)
    view.setUint32(TransactionRecord.attributeBytes, body.length, LITTLE_ENDIAN)
    record.set(body, HEAD_BYTES)
    if (packed !== undefined) {
      record[TransactionRecord.kind] = KIND_ELEMENTS
      view.setUint16(TransactionRecord.keyBytes, packed.keyBytes, LITTLE_ENDIAN)
      view.setUint32(TransactionRecord.keyCount, packed.keys.length / packed.keyBytes, LITTLE_ENDIAN)
      record.set(packed.keys, keysAt)
    }
    this.#records.push(record)
    this.#subjects.push(subject)
    return this
  }

  #checkOpen(): void {
    if (this.#spent) throw new InvalidState('this transaction was committed: fill a new one')
  }
}

function checkedComment(value: unknown, argument: string): string {
  if (typeof value !== 'string' || value.includes('\0') || textBytes(value) > LONGEST_COMMENT) {
    throw new InvalidArgument(argument, `a string of up to ${LONGEST_COMMENT - 1} bytes`, value)
  }
  return value
}

function checkedField(value: unknown, keyBytes: number): TransportField {
  const field = options<TransportField>(value, 'set.typeof', ['offset', 'length'])
  integer(field.offset, 'set.typeof.offset', 0, U16)
  if (field.length !== keyBytes * 8) {
    throw new InvalidArgument('set.typeof.length', `the ${keyBytes * 8} bits of the keys`, field.length)
  }
  return field
}

function writeBase(attributes: AttributeWriter, value: BaseChain): void {
  const base = options<BaseChain>(value, 'chain.base', ['type', 'hook', 'priority', 'policy'])
  const hook = Hooks[oneOf(base.hook, 'chain.base.hook', namesOf(Hooks))]
  const priority = integer(base.priority, 'chain.base.priority', -0x80000000, 0x7fffffff)
  attributes
    .text(ChainAttribute.type, oneOf(base.type, 'chain.base.type', ChainTypes))
    .nest(ChainAttribute.hook, (w) => w.u32(HookAttribute.number, hook).u32(HookAttribute.priority, priority))
  if (base.policy === undefined) return
  attributes.u32(ChainAttribute.policy, Policies[oneOf(base.policy, 'chain.base.policy', namesOf(Policies))])
}

/** What names an object, taken once from what may have more to it, as what was listed has. */
function taken<T extends object>(value: T, argument: string, names: readonly (keyof T)[]): T {
  if (typeof value !== 'object' || (value as unknown) === null) throw new InvalidArgument(argument, 'an object', value)
  return Object.fromEntries(names.map((name) => [name, value[name]])) as T
}

function tableAttributes(table: TableName, argument: string): AttributeWriter {
  return new AttributeWriter().text(TableAttribute.name, checkedName(table.table, `${argument}.table`))
}

function chainAttributes(chain: ChainName, argument: string): AttributeWriter {
  return new AttributeWriter()
    .text(ChainAttribute.table, checkedName(chain.table, `${argument}.table`))
    .text(ChainAttribute.name, checkedName(chain.chain, `${argument}.chain`))
}

function ruleAttributes(rule: ChainName, argument: string): AttributeWriter {
  return new AttributeWriter()
    .text(RuleAttribute.table, checkedName(rule.table, `${argument}.table`))
    .text(RuleAttribute.chain, checkedName(rule.chain, `${argument}.chain`))
}

function setAttributes(set: SetName, argument: string): AttributeWriter {
  return new AttributeWriter()
    .text(SetAttribute.table, checkedName(set.table, `${argument}.table`))
    .text(SetAttribute.name, checkedName(set.set, `${argument}.set`))
}

function elementsAttributes(set: SetName, argument: string): AttributeWriter {
  return new AttributeWriter()
    .text(ElementsAttribute.table, checkedName(set.table, `${argument}.table`))
    .text(ElementsAttribute.set, checkedName(set.set, `${argument}.set`))
}
