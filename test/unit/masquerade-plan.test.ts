import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Family } from '../../lib/base/address.js'
import { Ledger, type HeldElement, type HeldRule } from '../../lib/masquerade/ledger.js'
import { apply, Draft, type Layout, type Made, type MadeHandles, type Plan } from '../../lib/masquerade/plan.js'
import { families } from '../../lib/masquerade/rules.js'
import { checkedMapping, mappingText, Subnets, type Mapping } from '../../lib/masquerade/subnet.js'

const networks = ['aaaaaaaaaaaaaaaa', 'bbbbbbbbbbbbbbbb'] as const
const owners = networks.flatMap((network) => ['1', '2', '3'].map((c) => `${network}-${c.repeat(16)}`))
const addresses = [
  ...['10.0.0.1/24', '10.0.0.1/16', '10.0.0.2/24', '10.0.1.1/24'],
  ...['fd00::1/64', 'fd00::1/48', 'fd00::2/64'],
]

const mappingAt = (text: string): Mapping => checkedMapping(text, 'x', new Subnets())

type Step =
  | { kind: 'add'; layout: Layout; given: { owner: string; addresses: string[] }[] }
  | { kind: 'remove'; layout: Layout; given: string[] }
  | { kind: 'collect'; layout: Layout; network: string; valid: string[] }

const layout = fc.constantFrom<Layout>('rules', 'set')
const anOwner = fc.constantFrom(...owners)
/** An attachment has an address once. */
const some = fc.uniqueArray(fc.constantFrom(...addresses), { selector: (text) => text.split('/')[0], maxLength: 4 })
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constant('add' as const),
    layout,
    given: fc.array(fc.record({ owner: anOwner, addresses: some }), { maxLength: 3 }),
  }),
  fc.record({ kind: fc.constant('remove' as const), layout, given: fc.array(anOwner, { maxLength: 3 }) }),
  fc.record({
    kind: fc.constant('collect' as const),
    layout,
    network: fc.constantFrom(...networks),
    valid: fc.array(anOwner, { maxLength: 4 }),
  }),
)

/** What a table holds, without the plans' own bookkeeping: rules by handle, elements by address, chains and maps. */
class Table {
  readonly rules = new Map<number, Made>()
  readonly elements = new Map<string, Made>()
  readonly subnets = new Set<string>()
  readonly maps = new Set<Family>()
  #handle = 1

  /** As the kernel would: what is deleted must be there, what is added must not. */
  commit(plan: Plan): MadeHandles {
    const mappings: number[] = []
    const maps = new Map<Family, number>()
    for (const { handle } of plan.deleteRules) expect(this.rules.delete(handle)).toBe(true)
    for (const { mapping } of plan.deleteElements) expect(this.elements.delete(mapping.text)).toBe(true)
    for (const { text: subnet } of plan.oldSubnets) {
      expect(this.#leadingTo(subnet)).toBe(0)
      expect(this.subnets.delete(subnet)).toBe(true)
    }
    for (const family of plan.oldFamilies) {
      expect([...this.elements.values()].filter(({ mapping }) => mapping.subnet.family === family)).toEqual([])
      expect(this.maps.delete(family)).toBe(true)
    }
    for (const family of plan.newFamilies) {
      this.maps.add(family)
      maps.set(family, this.#handle++)
    }
    for (const { text } of plan.newSubnets) this.subnets.add(text)
    for (const made of plan.addElements) {
      expect(this.elements.has(made.mapping.text)).toBe(false)
      expect(this.subnets.has(made.mapping.subnet.text)).toBe(true)
      expect(this.maps.has(made.mapping.subnet.family)).toBe(true)
      this.elements.set(made.mapping.text, made)
    }
    for (const made of plan.addRules) {
      mappings.push(this.#handle)
      this.rules.set(this.#handle++, made)
    }
    return { mappings, maps }
  }

  /** Who has which mappings, whatever holds them. */
  get held(): string[] {
    const all = [...this.rules.values(), ...this.elements.values()]
    return all.map(({ owner, mapping }) => `${owner} ${mappingText(mapping)}`).sort()
  }

  #leadingTo(subnet: string): number {
    return [...this.elements.values()].filter(({ mapping }) => mapping.subnet.text === subnet).length
  }

  /** No chain and no map without an element, and none missing. */
  checkKept(): void {
    const made = [...this.elements.values()]
    expect(this.subnets).toEqual(new Set(made.map(({ mapping }) => mapping.subnet.text)))
    expect(this.maps).toEqual(new Set(made.map(({ mapping }) => mapping.subnet.family)))
  }
}

function draftOf(ledger: Ledger, step: Step): Draft {
  const draft = new Draft(ledger, step.layout)
  if (step.kind === 'add') {
    for (const { owner, addresses } of step.given) {
      draft.add(
        owner,
        owner,
        addresses.map((text) => mappingAt(text)),
      )
    }
  } else if (step.kind === 'remove') for (const owner of step.given) draft.remove(owner)
  else draft.collect(step.network, new Set(step.valid))
  return draft
}

/** What it is to come to: owners and what they have, by the plain meaning of the calls. */
function expected(held: Map<string, string[]>, step: Step): void {
  if (step.kind === 'add') for (const { owner, addresses } of step.given) held.set(owner, addresses)
  else if (step.kind === 'remove') for (const owner of step.given) held.delete(owner)
  else {
    for (const owner of held.keys()) {
      if (owner.startsWith(step.network) && !step.valid.includes(owner)) held.delete(owner)
    }
  }
}

describe('plans', () => {
  test('come to what the calls mean, whatever the layouts, and keep chains and maps as long as they are used', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        const [ledger, table, model] = [new Ledger(), new Table(), new Map<string, string[]>()]
        for (const step of steps) {
          const plan = draftOf(ledger, step).plan()
          expected(model, step)
          if (plan !== undefined) apply(plan, ledger, table.commit(plan))
          expect(table.held).toEqual([...model].flatMap(([o, all]) => all.map((text) => `${o} ${text}`)).sort())
          table.checkKept()
          // What is remembered is what a fresh look would find.
          expect([...ledger.owners].sort()).toEqual(
            [...model].flatMap(([o, all]) => (all.length > 0 ? [o] : [])).sort(),
          )
          for (const family of families) expect(ledger.maps.has(family)).toBe(table.maps.has(family))
        }
      }),
      { numRuns: 400 },
    )
  })

  test('in rules make no map', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 8 }), (steps) => {
        const [ledger, table] = [new Ledger(), new Table()]
        for (const step of steps) {
          const plan = draftOf(ledger, { ...step, layout: 'rules' }).plan()
          if (plan !== undefined) apply(plan, ledger, table.commit(plan))
        }
        expect(table.elements.size + table.maps.size).toBe(0)
      }),
    )
  })

  const [a, b] = owners as [string, string]
  const add = (owner: string, ...addresses: string[]) =>
    ({ kind: 'add', layout: 'set', given: [{ owner, addresses }] }) satisfies Step

  /** Rules and elements, each as owner and mapping, after steps in 'set'. */
  function after(...steps: Step[]): { rules: string[]; elements: string[] } {
    const [ledger, table] = [new Ledger(), new Table()]
    for (const step of steps) {
      const plan = draftOf(ledger, step).plan()
      if (plan !== undefined) apply(plan, ledger, table.commit(plan))
    }
    const text = ({ owner, mapping }: Made) => `${owner} ${mappingText(mapping)}`
    return { rules: [...table.rules.values()].map(text), elements: [...table.elements.values()].map(text) }
  }

  test('give an address in a set to the newest, and a rule to who had it', () => {
    const both = { rules: [`${a} 10.0.0.1/24`], elements: [`${b} 10.0.0.1/16`] }
    expect(after(add(a, '10.0.0.1/24'), add(b, '10.0.0.1/16'))).toEqual(both)
    const together = [...add(a, '10.0.0.1/24').given, ...add(b, '10.0.0.1/16').given]
    expect(after({ kind: 'add', layout: 'set', given: together })).toEqual(both)
    const remove = (owner: string): Step => ({ kind: 'remove', layout: 'set', given: [owner] })
    expect(after(add(a, '10.0.0.1/24'), add(b, '10.0.0.1/16'), remove(a))).toEqual({ ...both, rules: [] })
    expect(after(add(a, '10.0.0.1/24'), add(b, '10.0.0.1/16'), remove(b))).toEqual({ ...both, elements: [] })
    // Added again it is the newest.
    expect(after(add(a, '10.0.0.1/24'), add(b, '10.0.0.1/16'), add(a, '10.0.0.1/24'))).toEqual({
      rules: [`${b} 10.0.0.1/16`],
      elements: [`${a} 10.0.0.1/24`],
    })
  })

  test("leave an element that is nobody's until its address is wanted", () => {
    const ledger = new Ledger()
    const mapping = mappingAt('10.0.0.1/24')
    const stray: HeldElement = { kind: 'element', mapping, owner: undefined, comment: 'by hand' }
    ledger.add(stray)
    ledger.maps.add(mapping.subnet.family)
    expect(draftOf(ledger, { kind: 'collect', layout: 'set', network: '', valid: [] }).plan()).toBeUndefined()
    const plan = draftOf(ledger, add(a, '10.0.0.1/24')).plan()
    expect(plan?.deleteElements).toEqual([stray])
    expect(plan?.addRules).toEqual([{ owner: undefined, comment: 'by hand', mapping, kind: 'rule' }])
  })

  test('of nothing are none', () => {
    const ledger = new Ledger()
    const rule: HeldRule = { kind: 'rule', handle: 7, owner: a }
    ledger.add(rule)
    expect(new Draft(ledger, 'set').plan()).toBeUndefined()
    expect(draftOf(ledger, { kind: 'remove', layout: 'rules', given: [b] }).plan()).toBeUndefined()
    expect(draftOf(ledger, { kind: 'remove', layout: 'rules', given: [a, a] }).plan()?.deleteRules).toEqual([rule])
  })
})
