import { integer, oneOf, options } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import type { AttributeWriter } from './netlink-attributes.js'
import { listedElements, packedElements } from './nft-elements.js'
import { checkedCount } from './nft-expression-codec.js'
import {
  ChainAttribute,
  ChainTypes,
  checkedName,
  CounterAttribute,
  ElementsAttribute,
  familyNumber,
  HookAttribute,
  Hooks,
  Message,
  namesOf,
  ObjectAttribute,
  OBJECT_COUNTER,
  Policies,
  RuleAttribute,
  TableAttribute,
  type ChainName,
  type CounterName,
  type NftFamily,
  type RuleName,
  type SetName,
  type TableName,
} from './nft-names.js'
import type {
  BaseChain,
  ChainOptions,
  Comment,
  CounterOptions,
  ElementListOptions,
  ElementNamesOptions,
  ElementsOptions,
  RuleOptions,
  SetOptions,
  TableOptions,
} from './nft-options.js'
import { NLM_F_CREATE, TransactionKind, TransactionRecords, type RecordElements } from './nft-records.js'
import type { NativeDraft } from '../native.js'
import { writeNewSet, writeSetName } from './nft-sets.js'
import { RuleTemplate, writeRule } from './nft-template.js'
import { writeComment } from './nft-userdata.js'

const SET_OPTIONS = [
  'family',
  'table',
  'set',
  'type',
  'keyBytes',
  'typeof',
  'map',
  'flags',
  'timeoutMs',
  'size',
  'counters',
  'comment',
] as const
const PACKED = ['keyBytes', 'keys', 'verdict', 'comments'] as const
const ELEMENTS_OPTIONS = ['family', 'table', 'set', 'elements', ...PACKED] as const

/**
 * Changes to a ruleset that are made together or not at all. A value: fill it, then commit it once with `Nft.commit`.
 *
 * As in `nft`, adding a table, a chain, a set, a counter or an element that is there already changes nothing and is no
 * failure, and deleting what is not there fails. A rule is added each time. Its number is that of the change, from 0:
 * failures are named by it. What was listed can be named by what the list gave.
 */
export class NftTransaction {
  readonly #records = new TransactionRecords()
  #sets = 0
  /** What holds comments that are taken in their order where a change does without. @internal */
  readonly held: NativeDraft | undefined

  /** @param held is not for you */
  constructor(held?: NativeDraft) {
    this.held = held
  }

  /** Changes so far. */
  get size(): number {
    return this.#records.size
  }

  addTable(value: TableOptions): this {
    const table = options<TableOptions>(value, 'table', ['family', 'table', 'comment'])
    return this.#add(Message.newTable, 0, table.family, (w) => {
      writeTable(w, table, 'table')
      w.u32(TableAttribute.flags, 0)
      writeComment(w, TableAttribute.userdata, table.comment, 'table.comment')
    })
  }

  /** With all that is in it. */
  deleteTable(value: TableName): this {
    const { family, table } = named(value, 'table')
    return this.#add(Message.deleteTable, 0, family, (w) => writeTable(w, { family, table }, 'table'))
  }

  addChain(value: ChainOptions): this {
    const chain = options<ChainOptions>(value, 'chain', ['family', 'table', 'chain', 'base', 'comment'])
    return this.#add(Message.newChain, NLM_F_CREATE, chain.family, (w) => {
      writeChain(w, chain, 'chain')
      if (chain.base !== undefined) writeBase(w, chain.base)
      writeComment(w, ChainAttribute.userdata, chain.comment, 'chain.comment')
    })
  }

  /** Fails while it has rules, or others jump to it. */
  deleteChain(value: ChainName): this {
    const { family, table, chain } = named(value, 'chain')
    return this.#add(Message.deleteChain, 0, family, (w) => writeChain(w, { family, table, chain }, 'chain'))
  }

  /** Deletes all its rules. */
  flushChain(value: ChainName): this {
    const { family, table, chain } = named(value, 'chain')
    return this.#add(Message.deleteRule, 0, family, (w) => writeRulesChain(w, { family, table, chain }, 'chain'))
  }

  /** A set, or with `map` a map. */
  addSet(value: SetOptions): this {
    const set = options<SetOptions>(value, 'set', SET_OPTIONS)
    // The kernel wants a number for use in this transaction; we name sets by their names.
    return this.#add(Message.newSet, NLM_F_CREATE, set.family, (w) => writeNewSet(w, set, ++this.#sets))
  }

  /** Fails while a rule refers to it. */
  deleteSet(value: SetName): this {
    const { family, table, set } = named(value, 'set')
    return this.#add(Message.deleteSet, 0, family, (w) => writeSetName(w, { family, table, set }))
  }

  /** Deletes all its elements. */
  flushSet(value: SetName): this {
    const { family, table, set } = named(value, 'set')
    return this.#add(Message.deleteElements, 0, family, (w) => writeElementsSet(w, { family, table, set }, 'set'))
  }

  /**
   * As many as there are, 4,000 or 100,000: the kernel takes or refuses them all at once. None are no change. One that is
   * there already keeps its comment; with another verdict or data it is refused.
   */
  addElements(elements: ElementsOptions | ElementListOptions): this {
    return this.#elements(Message.newElements, NLM_F_CREATE, elements)
  }

  /** By their keys alone, and in a set of intervals by `intervalEnd`. */
  deleteElements(elements: ElementsOptions | ElementNamesOptions): this {
    return this.#elements(Message.deleteElements, 0, elements)
  }

  addRule(value: RuleOptions): this {
    const rule = options<RuleOptions>(value, 'rule', ['family', 'table', 'chain', 'expressions', 'at', 'comment'])
    const head = { type: Message.newRule, flags: 0, family: familyNumber(rule.family) }
    this.#records.add(head, (w) => {
      head.flags = writeRule(w, rule)
      writeComment(w, RuleAttribute.userdata, rule.comment, 'rule.comment')
    })
    return this
  }

  /**
   * A rule like others, with what differs: the fastest way to thousands.
   * @param values what fills the template's holes, by their names
   */
  addRuleFrom(template: RuleTemplate, values: Readonly<Record<string, Uint8Array>>, comment?: Comment): this {
    if (!((template as unknown) instanceof RuleTemplate)) {
      throw new InvalidArgument('template', 'a RuleTemplate', template)
    }
    const { flags, family } = template
    this.#records.add({ type: Message.newRule, flags, family }, (w) => {
      template.write(w, values)
      writeComment(w, RuleAttribute.userdata, comment, 'comment')
    })
    return this
  }

  /** Changes that were taken from another transaction: what is always the same need be encoded only once. @internal */
  append(records: Uint8Array, size: number): this {
    this.#records.append(records, size)
    return this
  }

  /** Elements whose comments are held. @internal */
  addElementsHeld(elements: ElementsOptions): this {
    return this.#elements(Message.newElements, NLM_F_CREATE, elements, true)
  }

  /**
   * Rules like others that differ in one hole and their comments, which are held: each counts as a change.
   * @param alike what fills the template's other holes, by their names: the same in all
   * @param values what fills the one that is left, one after the other without gaps
   * @internal
   */
  addRulesHeld(template: RuleTemplate, alike: Readonly<Record<string, Uint8Array>>, values: Uint8Array): this {
    const { flags, family } = template
    const hole = template.holes.find(({ name }) => !(name in alike))!
    const { name, at: keyAt, bytes: keyBytes } = hole
    const rules = {
      kind: TransactionKind.rules,
      keyBytes,
      keyAt,
      count: values.length / keyBytes,
      fill: (writer: AttributeWriter) => writer.raw(values),
    }
    const common = { ...alike, [name]: new Uint8Array(keyBytes) }
    this.#records.add({ type: Message.newRule, flags, family }, (w) => template.write(w, common), rules)
    return this
  }

  deleteRule(value: RuleName): this {
    const { family, table, chain, handle } = named(value, 'rule')
    const number = BigInt(integer(handle, 'rule.handle', 1, Number.MAX_SAFE_INTEGER))
    return this.#add(Message.deleteRule, 0, family, (w) => {
      writeRulesChain(w, { family, table, chain }, 'rule')
      w.u64(RuleAttribute.handle, number)
    })
  }

  addCounter(value: CounterOptions): this {
    const counter = options<CounterOptions>(value, 'counter', [
      'family',
      'table',
      'counter',
      'packets',
      'bytes',
      'comment',
    ])
    return this.#add(Message.newObject, NLM_F_CREATE, counter.family, (w) => {
      writeCounter(w, counter)
      const data = w.open(ObjectAttribute.data)
      w.u64(CounterAttribute.bytes, checkedCount(counter.bytes ?? 0n, 'counter.bytes'))
      w.u64(CounterAttribute.packets, checkedCount(counter.packets ?? 0n, 'counter.packets'))
      w.close(data)
      writeComment(w, ObjectAttribute.userdata, counter.comment, 'counter.comment')
    })
  }

  /** Fails while a rule refers to it. */
  deleteCounter(value: CounterName): this {
    const { family, table, counter } = named(value, 'counter')
    return this.#add(Message.deleteObject, 0, family, (w) => writeCounter(w, { family, table, counter }))
  }

  /**
   * Hands out what was filled in, as the records that the addon takes, and ends this transaction.
   * @internal
   */
  take(): Uint8Array {
    return this.#records.take()
  }

  #elements(type: number, flags: number, value: ElementsOptions | ElementNamesOptions, held = false): this {
    const given = options<ElementsOptions & ElementNamesOptions>(value, 'elements', ELEMENTS_OPTIONS)
    const { elements: list, ...packed } = given as Partial<typeof given>
    const named = type === Message.deleteElements
    if (list !== undefined && PACKED.some((name) => packed[name] !== undefined)) {
      throw new InvalidArgument('elements.elements', 'left out where there are keys')
    }
    const elements = list === undefined ? packedElements(packed, named, held) : listedElements(list, named)
    const { family, table, set } = given
    const names = { family, table: checkedName(table, 'elements.table'), set: checkedName(set, 'elements.set') }
    if (elements.count === 0) return this
    return this.#add(type, flags, family, (w) => writeElementsSet(w, names, 'elements'), elements)
  }

  #add(
    type: number,
    flags: number,
    family: NftFamily,
    fill: (writer: AttributeWriter) => void,
    elements?: RecordElements,
  ): this {
    this.#records.add({ type, flags, family: familyNumber(family) }, fill, elements)
    return this
  }
}

/** What may have more to it than a name, as what was listed has: whoever takes it reads each property once. */
function named<T extends object>(value: T, argument: string): T {
  if (typeof value !== 'object' || (value as unknown) === null) throw new InvalidArgument(argument, 'an object', value)
  return value
}

function writeTable(writer: AttributeWriter, { table }: TableName, argument: string): void {
  writer.text(TableAttribute.name, checkedName(table, `${argument}.table`))
}

function writeChain(writer: AttributeWriter, { table, chain }: ChainName, argument: string): void {
  writer
    .text(ChainAttribute.table, checkedName(table, `${argument}.table`))
    .text(ChainAttribute.name, checkedName(chain, `${argument}.chain`))
}

function writeBase(writer: AttributeWriter, value: BaseChain): void {
  const base = options<BaseChain>(value, 'chain.base', ['type', 'hook', 'priority', 'policy'])
  const hook = Hooks[oneOf(base.hook, 'chain.base.hook', namesOf(Hooks))]
  const priority = integer(base.priority, 'chain.base.priority', -0x80000000, 0x7fffffff)
  writer
    .text(ChainAttribute.type, oneOf(base.type, 'chain.base.type', ChainTypes))
    .nest(ChainAttribute.hook, (w) => w.u32(HookAttribute.number, hook).u32(HookAttribute.priority, priority))
  if (base.policy === undefined) return
  writer.u32(ChainAttribute.policy, Policies[oneOf(base.policy, 'chain.base.policy', namesOf(Policies))])
}

function writeRulesChain(writer: AttributeWriter, { table, chain }: ChainName, argument: string): void {
  writer
    .text(RuleAttribute.table, checkedName(table, `${argument}.table`))
    .text(RuleAttribute.chain, checkedName(chain, `${argument}.chain`))
}

function writeCounter(writer: AttributeWriter, { table, counter }: CounterName): void {
  writer
    .text(ObjectAttribute.table, checkedName(table, 'counter.table'))
    .text(ObjectAttribute.name, checkedName(counter, 'counter.counter'))
    .u32(ObjectAttribute.type, OBJECT_COUNTER)
}

function writeElementsSet(writer: AttributeWriter, { table, set }: SetName, argument: string): void {
  writer
    .text(ElementsAttribute.table, checkedName(table, `${argument}.table`))
    .text(ElementsAttribute.set, checkedName(set, `${argument}.set`))
}
