import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Family } from '../../lib/base/address.js'
import { commentSlots } from '../../lib/kernel/nft-userdata.js'
import { emptyLedger, type Ledger } from '../../lib/masquerade/ledger.js'
import { networkHash, ownerOf, writeOwner } from '../../lib/masquerade/owner.js'
import {
  apply,
  type Change,
  type Layout,
  type MadeHandles,
  type Mappings,
  type Plan,
} from '../../lib/masquerade/plan.js'
import { Families, families } from '../../lib/masquerade/rules.js'
import { bytesOf, writeAddress, writeSubnet, type Subnet } from '../../lib/masquerade/subnet.js'
import { native } from '../../lib/native.js'
import { heldUserdata, planned, withAddon, type Addon, type Name } from './masquerade-addon.js'
import { mappingAt } from './masquerade-mapping.js'

const networks = ['one', 'two'] as const
const names = networks.flatMap((network) => ['a', 'b', 'c'].map((container): Name => [network, 'eth0', container]))
const addresses = [
  ...['10.0.0.1/24', '10.0.0.1/16', '10.0.0.2/24', '10.0.1.1/24'],
  ...['fd00::1/64', 'fd00::1/48', 'fd00::2/64'],
]

const NOBODY = 'by hand'
const owner = ([network, interfaceName, containerId]: Name) => ownerOf(networkHash(network), interfaceName, containerId)

/** Whose, as its comment says; the address as packets have it. */
interface Made {
  readonly owner: string
  readonly address: string
  readonly subnet: Subnet
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const told = ({ owner, address, subnet }: Made) => `${owner} ${address}/${subnet.prefix}`

/** As a text says it. */
function made(owner: string, text: string): string {
  const mapping = mappingAt(text)
  return told({ owner, address: hex(bytesOf(mapping)), subnet: mapping.subnet })
}

type Step =
  | { kind: 'add'; layout: Layout; given: { name: Name; addresses: string[] }[] }
  | { kind: 'remove'; layout: Layout; given: Name[] }
  | { kind: 'collect'; layout: Layout; network: string; valid: Name[] }

const layout = fc.constantFrom<Layout>('rules', 'set')
const aName = fc.constantFrom(...names)
/** An attachment has an address once. */
const some = fc.uniqueArray(fc.constantFrom(...addresses), { selector: (text) => text.split('/')[0], maxLength: 4 })
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constant('add' as const),
    layout,
    given: fc.array(fc.record({ name: aName, addresses: some }), { maxLength: 3 }),
  }),
  fc.record({ kind: fc.constant('remove' as const), layout, given: fc.array(aName, { maxLength: 3 }) }),
  fc.record({
    kind: fc.constant('collect' as const),
    layout,
    network: fc.constantFrom(...networks),
    valid: fc.array(aName, { maxLength: 4 }),
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
    const handles: number[] = []
    const maps = new Map<Family, number>()
    for (const handle of plan.deleteRules) expect(this.rules.delete(handle)).toBe(true)
    for (const family of families) {
      for (const address of cut(plan.deleteElements[family], Families[family].bytes)) {
        expect(this.elements.delete(address)).toBe(true)
      }
    }
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
    const { elements, rules } = madeBy(plan, ledger)
    expect([elements.length + rules.length, rules.length]).toEqual([plan.added, plan.rules])
    for (const one of elements) {
      expect(this.elements.has(one.address)).toBe(false)
      this.subnets.add(one.subnet.text)
      expect(this.maps.has(one.subnet.family)).toBe(true)
      this.elements.set(one.address, one)
    }
    for (const one of rules) {
      handles.push(this.#handle)
      this.rules.set(this.#handle++, one)
    }
    return { mappings: Float64Array.from(handles), maps }
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

function cut(keys: Uint8Array, bytes: number): string[] {
  return Array.from({ length: keys.length / bytes }, (_, i) => hex(keys.subarray(i * bytes, (i + 1) * bytes)))
}

/** What a plan makes, each with the owner that its comment says. */
function madeBy(plan: Plan, ledger: Ledger): { elements: Made[]; rules: Made[] } {
  const userdata = heldUserdata(plan, ledger)
  let next = 0
  const all = (groups: readonly Mappings[]) =>
    groups.flatMap(({ subnet, keys }) =>
      cut(keys, subnet.first.length).map((address) => {
        const comment = userdata[next++]!.toString('utf8', 2).replace('\0', '')
        return { owner: comment === NOBODY ? NOBODY : comment.slice(0, 33), address, subnet }
      }),
    )
  return { elements: all(plan.addElements), rules: all(plan.addRules) }
}

function planOf(addon: Addon, ledger: Ledger, step: Step): Promise<Plan | undefined> {
  const draft = (change: Change, all: readonly (readonly [Name, readonly string[]])[]) =>
    planned(
      addon,
      ledger,
      change,
      step.layout,
      all.map(([name, addresses]) => [...name, addresses]),
    )
  if (step.kind === 'add') {
    return draft(
      { what: 'add' },
      step.given.map(({ name, addresses }) => [name, addresses]),
    )
  }
  if (step.kind === 'remove')
    return draft(
      { what: 'remove' },
      step.given.map((name) => [name, []]),
    )
  return draft(
    { what: 'collect', network: step.network },
    step.valid.map((name) => [name, []]),
  )
}

/** Carries a step out on both. */
async function carryOut(addon: Addon, ledger: Ledger, table: Table, step: Step): Promise<void> {
  const plan = await planOf(addon, ledger, step)
  if (plan === undefined) return
  const before = table.held.length
  const made = table.commit(plan, ledger)
  expect(table.held.length - before).toBe(plan.added - plan.removed)
  await apply(addon, plan, ledger, made)
}

/** What it is to come to: owners and what they have, by the plain meaning of the calls. */
function expected(held: Map<Name, string[]>, step: Step): void {
  if (step.kind === 'add') for (const { name, addresses } of step.given) held.set(name, addresses)
  else if (step.kind === 'remove') for (const name of step.given) held.delete(name)
  else {
    for (const name of held.keys()) if (name[0] === step.network && !step.valid.includes(name)) held.delete(name)
  }
}

/** A ledger with an element and a rule, with the handle 7, of that owner. */
function ledgerOf(who: string, text: string, of: 'element' | 'rule'): Ledger {
  const mapping = mappingAt(text)
  const owners = new Uint8Array(16)
  if (who !== NOBODY) writeOwner(who, owners, 0)
  const none = new Uint8Array()
  if (of === 'rule') {
    const mappings = native.newLedger(none, none, none, none, owners, Float64Array.of(7))
    return { ...emptyLedger(), mappings }
  }
  const [address, subnet] = [new Uint8Array(16), new Uint8Array(18)]
  writeAddress(bytesOf(mapping), address, 0)
  writeSubnet(mapping.subnet, subnet, 0)
  const slots = commentSlots([who], 'x')
  const mappings = native.newLedger(owners, address, subnet, slots, none, new Float64Array())
  return { mappings, maps: new Set([mapping.subnet.family]), mapRules: new Map([[mapping.subnet.family, 1]]) }
}

describe('plans', () => {
  test('come to what the calls mean, whatever the layouts, and keep chains and maps as long as they are used', () =>
    withAddon((addon) =>
      fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
          const [ledger, table, model] = [emptyLedger(), new Table(), new Map<Name, string[]>()]
          for (const step of steps) {
            await carryOut(addon, ledger, table, step)
            expected(model, step)
            expect(table.held).toEqual([...model].flatMap(([o, all]) => all.map((text) => made(owner(o), text))).sort())
            table.checkKept()
            expect(ledger.maps).toEqual(table.maps)
            expect(new Set(ledger.mapRules.keys())).toEqual(table.maps)
          }
        }),
        { numRuns: 400 },
      ),
    ))

  test('in rules make no map', () =>
    withAddon((addon) =>
      fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 8 }), async (steps) => {
          const [ledger, table] = [emptyLedger(), new Table()]
          for (const step of steps) await carryOut(addon, ledger, table, { ...step, layout: 'rules' })
          expect(table.elements.size + table.maps.size).toBe(0)
        }),
      ),
    ))

  const [a, b] = names as [Name, Name]
  const add = (name: Name, ...addresses: string[]) =>
    ({ kind: 'add', layout: 'set', given: [{ name, addresses }] }) satisfies Step

  /** Rules and elements, each as owner and mapping, after steps in 'set'. */
  const after = (...steps: Step[]): Promise<{ rules: string[]; elements: string[] }> =>
    withAddon(async (addon) => {
      const [ledger, table] = [emptyLedger(), new Table()]
      for (const step of steps) await carryOut(addon, ledger, table, step)
      return { rules: [...table.rules.values()].map(told), elements: [...table.elements.values()].map(told) }
    })

  test('give an address in a set to the newest, and a rule to who had it', async () => {
    const both = { rules: [made(owner(a), '10.0.0.1/24')], elements: [made(owner(b), '10.0.0.1/16')] }
    expect(await after(add(a, '10.0.0.1/24'), add(b, '10.0.0.1/16'))).toEqual(both)
    const together = [...add(a, '10.0.0.1/24').given, ...add(b, '10.0.0.1/16').given]
    expect(await after({ kind: 'add', layout: 'set', given: together })).toEqual(both)
    const remove = (name: Name): Step => ({ kind: 'remove', layout: 'set', given: [name] })
    expect(await after(add(a, '10.0.0.1/24'), add(b, '10.0.0.1/16'), remove(a))).toEqual({ ...both, rules: [] })
    expect(await after(add(a, '10.0.0.1/24'), add(b, '10.0.0.1/16'), remove(b))).toEqual({ ...both, elements: [] })
    // Added again it is the newest.
    expect(await after(add(a, '10.0.0.1/24'), add(b, '10.0.0.1/16'), add(a, '10.0.0.1/24'))).toEqual({
      rules: [made(owner(b), '10.0.0.1/16')],
      elements: [made(owner(a), '10.0.0.1/24')],
    })
  })

  test("leave an element that is nobody's until its address is wanted", () =>
    withAddon(async (addon) => {
      const ledger = ledgerOf(NOBODY, '10.0.0.1/24', 'element')
      const collect = { kind: 'collect', layout: 'set', network: networks[0], valid: [] } satisfies Step
      expect(await planOf(addon, ledger, collect)).toBeUndefined()
      const plan = await planOf(addon, ledger, add(a, '10.0.0.1/24'))
      expect(hex(plan!.deleteElements[2])).toBe('0a000001')
      expect(madeBy(plan!, ledger).rules.map(told)).toEqual([made(NOBODY, '10.0.0.1/24')])
    }))

  test('of thousands find each of them', () =>
    withAddon(async (addon) => {
      const [ledger, table] = [emptyLedger(), new Table()]
      const all = Array.from({ length: 2000 }, (_, i) => ({
        name: [networks[i % 2]!, 'eth0', String(i)] as const,
        addresses: [`10.1.${i >> 8}.${i & 255}/16`, `fd00::${i.toString(16)}/64`],
      }))
      await carryOut(addon, ledger, table, { kind: 'add', layout: 'set', given: all })
      const odd = all.filter((_, i) => i % 2 === 1).map((one) => one.name)
      await carryOut(addon, ledger, table, { kind: 'remove', layout: 'set', given: odd })
      const even = all.filter((_, i) => i % 2 === 0)
      expect(table.held).toEqual(even.flatMap((one) => one.addresses.map((text) => made(owner(one.name), text))).sort())
      await carryOut(addon, ledger, table, {
        kind: 'collect',
        layout: 'set',
        network: networks[0],
        valid: even.slice(7).map((one) => one.name),
      })
      expect(table.elements.size).toBe(2 * (even.length - 7))
    }))

  test('of nothing are none', () =>
    withAddon(async (addon) => {
      const ledger = ledgerOf(owner(a), '10.0.0.1/24', 'rule')
      expect(await planOf(addon, ledger, { kind: 'add', layout: 'set', given: [] })).toBeUndefined()
      expect(await planOf(addon, ledger, { kind: 'remove', layout: 'rules', given: [b] })).toBeUndefined()
      const plan = await planOf(addon, ledger, { kind: 'remove', layout: 'rules', given: [a, a] })
      expect(plan?.deleteRules).toEqual(Float64Array.of(7))
    }))
})
