import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Family } from '../../lib/base/address.js'
import { commentSlots, COMMENT_SLOT_BYTES } from '../../lib/kernel/nft.js'
import { readComment } from '../../lib/kernel/nft-userdata.js'
import { Kind, type Entry, type Holdings } from '../../lib/masquerade/holdings.js'
import { Ledger } from '../../lib/masquerade/ledger.js'
import { writeOwner } from '../../lib/masquerade/owner.js'
import {
  apply,
  Draft,
  type Addresses,
  type Attachment,
  type Layout,
  type MadeHandles,
  type Plan,
} from '../../lib/masquerade/plan.js'
import { families } from '../../lib/masquerade/rules.js'
import { Subnets, takeAddress, type Subnet } from '../../lib/masquerade/subnet.js'

const networks = ['aaaaaaaaaaaaaaaa', 'bbbbbbbbbbbbbbbb'] as const
const owners = networks.flatMap((network) => ['1', '2', '3'].map((c) => `${network}-${c.repeat(16)}`))
const addresses = [
  ...['10.0.0.1/24', '10.0.0.1/16', '10.0.0.2/24', '10.0.1.1/24'],
  ...['fd00::1/64', 'fd00::1/48', 'fd00::2/64'],
]

const NOBODY = ''

/** Owners as plans take them; a comment says whose it is. */
function attachment(owner: string): Attachment {
  const words = new Uint32Array(4)
  if (owner !== NOBODY) writeOwner(owner, words, 0)
  return { owners: words, owner: 0, comments: commentSlots([owner || 'by hand'], 'x'), comment: 0 }
}

function addressesOf(texts: readonly string[]): Addresses {
  const words = new Uint32Array(4 * texts.length)
  return { words, subnets: texts.map((text, i) => takeAddress(text, 'x', new Subnets(), words, 4 * i)) }
}

/** A row of a plan or a ledger, in words. */
interface Made {
  readonly owner: string
  readonly address: string
  readonly subnet: Subnet
}

const hex = (words: Uint32Array) => Buffer.from(words.slice().buffer).toString('hex')

function madeAt(holdings: Holdings, row: number): Made {
  const { owners, addresses, subnets, comments, slots } = holdings
  const slot = comments[row]?.subarray(slots[row]! * COMMENT_SLOT_BYTES)
  const digits = hex(owners.subarray(row * 4, row * 4 + 4))
  const owner = /^0+$/.test(digits) ? NOBODY : `${digits.slice(0, 16)}-${digits.slice(16)}`
  expect(readComment(slot!)).toBe(owner === NOBODY ? 'by hand' : owner)
  return { owner, address: hex(addresses.subarray(row * 4, row * 4 + 4)), subnet: subnets[row]! }
}

/** As a text says it. */
function made(owner: string, text: string): string {
  const { words, subnets } = addressesOf([text])
  return told({ owner, address: hex(words), subnet: subnets[0]! })
}

const told = ({ owner, address, subnet }: Made) => `${owner} ${address}/${subnet.prefix}`

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
  commit(plan: Plan, ledger: Ledger): MadeHandles {
    const mappings: number[] = []
    const maps = new Map<Family, number>()
    for (const row of plan.deleteRules) expect(this.rules.delete(ledger.handles[row]!)).toBe(true)
    for (const row of plan.deleteElements) expect(this.elements.delete(madeAt(ledger, row).address)).toBe(true)
    for (const { text: subnet } of plan.oldSubnets) {
      expect(this.#leadingTo(subnet)).toBe(0)
      expect(this.subnets.delete(subnet)).toBe(true)
    }
    for (const family of plan.oldFamilies) {
      expect([...this.elements.values()].filter(({ subnet }) => subnet.family === family)).toEqual([])
      expect(this.maps.delete(family)).toBe(true)
    }
    for (const family of plan.newFamilies) {
      this.maps.add(family)
      maps.set(family, this.#handle++)
    }
    for (const { text } of plan.newSubnets) this.subnets.add(text)
    for (const row of plan.addElements) {
      const one = madeAt(plan.made, row)
      expect(this.elements.has(one.address)).toBe(false)
      expect(this.subnets.has(one.subnet.text)).toBe(true)
      expect(this.maps.has(one.subnet.family)).toBe(true)
      this.elements.set(one.address, one)
    }
    for (const row of plan.addRules) {
      mappings.push(this.#handle)
      this.rules.set(this.#handle++, madeAt(plan.made, row))
    }
    return { mappings, maps }
  }

  /** Who has which mappings, whatever holds them. */
  get held(): string[] {
    return [...this.rules.values(), ...this.elements.values()].map(told).sort()
  }

  #leadingTo(subnet: string): number {
    return [...this.elements.values()].filter((one) => one.subnet.text === subnet).length
  }

  /** No chain and no map without an element, and none missing. */
  checkKept(): void {
    const subnets = Array.from(this.elements.values(), ({ subnet }) => subnet)
    expect(this.subnets).toEqual(new Set(subnets.map(({ text }) => text)))
    expect(this.maps).toEqual(new Set(subnets.map(({ family }) => family)))
  }
}

function draftOf(ledger: Ledger, step: Step): Draft {
  const draft = new Draft(ledger, step.layout)
  if (step.kind === 'add') {
    for (const { owner, addresses } of step.given) {
      draft.add(attachment(owner), addressesOf(addresses), 0, addresses.length)
    }
  } else if (step.kind === 'remove') {
    for (const owner of step.given) {
      const { owners, owner: at } = attachment(owner)
      draft.remove(owners, at)
    }
  } else {
    const valid = step.valid.map(attachment)
    draft.collect(attachment(`${step.network}-${'0'.repeat(16)}`).owners, { each: (take) => valid.forEach(take) })
  }
  return draft
}

/** Carries a step out on both. */
function carryOut(ledger: Ledger, table: Table, step: Step): void {
  const plan = draftOf(ledger, step).plan()
  if (plan !== undefined) apply(plan, ledger, table.commit(plan, ledger))
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

/** An element that is nobody's. */
function strayAt(text: string): Entry {
  const { words, subnets } = addressesOf([text])
  return { kind: Kind.element, ...attachment(NOBODY), addresses: words, address: 0, subnet: subnets[0] }
}

/** Whose the mappings are that the ledger finds by their owners. */
function owning(ledger: Ledger, table: Table): string[] {
  const found: string[] = []
  for (const owner of new Set([...table.rules.values(), ...table.elements.values()].map((one) => one.owner))) {
    const { owners: words, owner: at } = attachment(owner)
    for (let row = ledger.of(words, at); row >= 0; row = ledger.next(row)) found.push(owner)
  }
  expect(found).toHaveLength([...ledger.rows()].length)
  return found.sort()
}

describe('plans', () => {
  test('come to what the calls mean, whatever the layouts, and keep chains and maps as long as they are used', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        const [ledger, table, model] = [new Ledger(), new Table(), new Map<string, string[]>()]
        for (const step of steps) {
          carryOut(ledger, table, step)
          expected(model, step)
          expect(table.held).toEqual([...model].flatMap(([o, all]) => all.map((text) => made(o, text))).sort())
          table.checkKept()
          // What is remembered is what a fresh look would find.
          expect(owning(ledger, table)).toEqual([...model].flatMap(([o, all]) => all.map(() => o)).sort())
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
          carryOut(ledger, table, { ...step, layout: 'rules' })
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
    for (const step of steps) carryOut(ledger, table, step)
    return { rules: [...table.rules.values()].map(told), elements: [...table.elements.values()].map(told) }
  }

  test('give an address in a set to the newest, and a rule to who had it', () => {
    const both = { rules: [made(a, '10.0.0.1/24')], elements: [made(b, '10.0.0.1/16')] }
    expect(after(add(a, '10.0.0.1/24'), add(b, '10.0.0.1/16'))).toEqual(both)
    const together = [...add(a, '10.0.0.1/24').given, ...add(b, '10.0.0.1/16').given]
    expect(after({ kind: 'add', layout: 'set', given: together })).toEqual(both)
    const remove = (owner: string): Step => ({ kind: 'remove', layout: 'set', given: [owner] })
    expect(after(add(a, '10.0.0.1/24'), add(b, '10.0.0.1/16'), remove(a))).toEqual({ ...both, rules: [] })
    expect(after(add(a, '10.0.0.1/24'), add(b, '10.0.0.1/16'), remove(b))).toEqual({ ...both, elements: [] })
    // Added again it is the newest.
    expect(after(add(a, '10.0.0.1/24'), add(b, '10.0.0.1/16'), add(a, '10.0.0.1/24'))).toEqual({
      rules: [made(b, '10.0.0.1/16')],
      elements: [made(a, '10.0.0.1/24')],
    })
  })

  test("leave an element that is nobody's until its address is wanted", () => {
    const ledger = new Ledger()
    const stray = strayAt('10.0.0.1/24')
    const row = ledger.add(stray)
    ledger.maps.add(stray.subnet!.family)
    expect(draftOf(ledger, { kind: 'collect', layout: 'set', network: networks[0], valid: [] }).plan()).toBeUndefined()
    const plan = draftOf(ledger, add(a, '10.0.0.1/24')).plan()!
    expect(plan.deleteElements).toEqual([row])
    expect(plan.addRules.map((one) => told(madeAt(plan.made, one)))).toEqual([made(NOBODY, '10.0.0.1/24')])
  })

  test('that make and take away for ever take no more room', () => {
    const [ledger, table] = [new Ledger(), new Table()]
    for (let i = 0; i < 500; i++) {
      carryOut(ledger, table, add(a, `10.0.${i}.1/24`.replace(/\.(\d{3})\./, '.9.')))
      carryOut(ledger, table, add(b, '10.0.0.1/16'))
    }
    expect([...ledger.rows()]).toHaveLength(2)
    expect(ledger.kinds.length).toBe(64)
  })

  test('of thousands find each of them', () => {
    const [ledger, table] = [new Ledger(), new Table()]
    const owner = (i: number) => `${networks[i % 2]!}-${i.toString(16).padStart(16, '0')}`
    const all = Array.from({ length: 2000 }, (_, i) => ({
      owner: owner(i),
      addresses: [`10.1.${i >> 8}.${i & 255}/16`, `fd00::${i.toString(16)}/64`],
    }))
    carryOut(ledger, table, { kind: 'add', layout: 'set', given: all })
    const odd = all.filter((_, i) => i % 2 === 1).map((one) => one.owner)
    carryOut(ledger, table, { kind: 'remove', layout: 'set', given: odd })
    const even = all.filter((_, i) => i % 2 === 0)
    expect(table.held).toEqual(even.flatMap((one) => one.addresses.map((text) => made(one.owner, text))).sort())
    carryOut(ledger, table, {
      kind: 'collect',
      layout: 'set',
      network: networks[0],
      valid: even.slice(7).map((one) => one.owner),
    })
    expect(table.elements.size).toBe(2 * (even.length - 7))
  })

  test('of nothing are none', () => {
    const ledger = new Ledger()
    const row = ledger.add({ ...strayAt('10.0.0.1/24'), kind: Kind.rule, ...attachment(a) })
    expect(new Draft(ledger, 'set').plan()).toBeUndefined()
    expect(draftOf(ledger, { kind: 'remove', layout: 'rules', given: [b] }).plan()).toBeUndefined()
    expect(draftOf(ledger, { kind: 'remove', layout: 'rules', given: [a, a] }).plan()?.deleteRules).toEqual([row])
  })
})
