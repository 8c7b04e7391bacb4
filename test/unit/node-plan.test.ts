import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { identityKey, recordLength, startsOf } from '../../lib/kernel/record-identity.js'
import { Operation, Policy, RecordWriter, State } from '../../lib/kernel/records.js'
import { DIRECTION_OUT } from '../../lib/kernel/xfrm-names.js'
import { Belonging } from '../../lib/node/belonging.js'
import { parseKeys } from '../../lib/node/index.js'
import { NodeKeyring } from '../../lib/node/keyring.js'
import { ObjectWriter } from '../../lib/node/objects.js'
import { type Phase, type Plan, Planner } from '../../lib/node/plan.js'
import { remote, settings } from '../../lib/node/settings.js'

const keys = (id: number) =>
  parseKeys(`${id} rfc4106(gcm(aes)) 0123456789abcdef0123456789abcdef0123456${id.toString(16)} 128`)
const LOCAL_BOOT = '00000000-0000-4000-8000-000000000000'

interface Spec {
  number: number
  boots: number
  subnets: number[]
}

/** Writes what nodes should have. */
class World {
  readonly settings
  readonly keyring
  readonly writer
  readonly belonging
  readonly #marks: false | 'cilium'

  constructor(marks: false | 'cilium', ids: readonly number[], zeroOutputMark = false) {
    this.#marks = marks
    this.settings = settings({
      local: { addresses: ['192.0.2.1', '2001:db8::1'], subnets: ['10.1.0.0/24', 'fd00:1::/64'], bootId: LOCAL_BOOT },
      keys: keys(ids[0]!),
      marks,
      ...(zeroOutputMark && { zeroOutputMark }),
    }).settings
    this.keyring = new NodeKeyring(keys(ids[0]!))
    for (const id of ids.slice(1)) this.keyring.prepare(keys(id))
    this.writer = new ObjectWriter(this.settings, this.keyring)
    this.belonging = new Belonging(this.settings)
  }

  records({ number, boots, subnets }: Spec, outbound: readonly number[]): Uint8Array {
    const node = remote(
      {
        name: `node${number}`,
        addresses: [`192.0.2.${number}`, `2001:db8::${number}`],
        subnets: subnets.flatMap((n) => [`10.${n}.0.0/24`, `fd00:${n}::/64`]),
        bootId: LOCAL_BOOT,
        ...(this.#marks !== false && { id: number }),
      },
      'node',
      this.settings,
    )
    const into = new RecordWriter()
    this.writer.node(into, node, boots, outbound)
    return into.take()
  }

  plan(changes: readonly { owner: number; is: Uint8Array; should: Uint8Array }[], keeps = false): Plan {
    const planner = new Planner({
      isInbound: (records, at) => this.belonging.isInbound(records, at),
      keeps: () => keeps,
    })
    for (const { owner, is, should } of changes) planner.add(owner, is, should, keeps)
    return planner.finish()
  }
}

const NOTHING = new Uint8Array(0)

/** The objects in some records, by identity, each as its bytes without the operation. */
function objects(...lists: Uint8Array[]): Map<string, string> {
  const found = new Map<string, string>()
  for (const records of lists) {
    for (const at of startsOf(records)) {
      const record = Buffer.from(records.slice(at, at + recordLength(records, at)))
      record[State.operation] = 0
      found.set(identityKey(records, at), record.toString('hex'))
    }
  }
  return found
}

/** Does to the objects what the kernel would, and fails where it would refuse. */
function apply(phases: readonly Phase[], to: Map<string, string>): void {
  for (const { records } of phases) {
    for (const at of startsOf(records)) {
      const key = identityKey(records, at)
      const operation = records[at + State.operation]!
      const [[, object]] = [...objects(records.subarray(at, at + recordLength(records, at)))] as [[string, string]]
      const isAdded = operation === Operation.addState || operation === Operation.addPolicy
      expect(to.has(key), isAdded ? 'an object is added that is there' : 'an object is missing').toBe(!isAdded)
      if (operation === Operation.deleteState || operation === Operation.deletePolicy) to.delete(key)
      else to.set(key, object)
    }
  }
}

const names = (plan: Plan) =>
  plan.phases.filter(({ owners }) => owners.length > 0).map(({ name, owners }) => [name, owners.length])

describe.each([false, 'cilium'] as const)('marks: %s', (marks) => {
  const subnets = fc.array(fc.integer({ min: 0, max: 7 }), { maxLength: 8 })
  /** Who has each of eight ranges (0 to 3, 4: nobody), before and after; how often each of four nodes has booted. */
  const stories = fc.record({
    before: fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 8, maxLength: 8 }),
    after: fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 8, maxLength: 8 }),
    boots: fc.array(fc.integer({ min: 1, max: 2 }), { minLength: 4, maxLength: 4 }),
    gone: subnets,
    outboundBefore: fc.constantFrom([3], [4]),
    outboundAfter: fc.constantFrom([3], [4]),
  })

  test('any plan carried out in its order leaves what should be, and adds nothing that is there', () => {
    fc.assert(
      fc.property(stories, ({ before, after, boots, gone, outboundBefore, outboundAfter }) => {
        const world = new World(marks, [3, 4])
        const owned = (owners: readonly number[], node: number) =>
          owners.flatMap((owner, i) => (owner === node ? [i + 10] : []))
        const changes = [0, 1, 2, 3].map((node) => {
          const spec = (owners: readonly number[], count: number) => ({
            number: node + 2,
            boots: count,
            subnets: owned(owners, node),
          })
          return {
            owner: node,
            is: world.records(spec(before, 1), outboundBefore),
            should: gone.includes(node) ? NOTHING : world.records(spec(after, boots[node]!), outboundAfter),
          }
        })
        const kernel = objects(...changes.map(({ is }) => is))
        const plan = world.plan(changes)
        apply(plan.phases, kernel)
        const wanted = objects(...changes.map(({ should }) => should))
        expect([...kernel].sort()).toEqual([...wanted].sort())
        for (const { owner, should, is } of changes) {
          if (Buffer.compare(is, should) !== 0) expect(plan.after.get(owner)).toEqual(should)
        }
      }),
      { numRuns: 300 },
    )
  })

  test('what is right takes nothing', () => {
    const world = new World(marks, [3])
    const is = world.records({ number: 2, boots: 1, subnets: [2, 3] }, [3])
    expect(world.plan([{ owner: 2, is, should: is.slice() }]).operations).toBe(0)
  })

  test('a new node: what decrypts, then what encrypts, then what leads to it', () => {
    const world = new World(marks, [3])
    const plan = world.plan([
      { owner: 2, is: NOTHING, should: world.records({ number: 2, boots: 1, subnets: [2] }, [3]) },
    ])
    expect(names(plan)).toEqual([
      ['decrypt', 2],
      ['encrypt', 2],
      ['select', marks === false ? 6 : 2],
    ])
  })

  test('a removed node: what encrypts goes first, the policies last, and of them those that lead out', () => {
    const world = new World(marks, [3])
    const is = world.records({ number: 2, boots: 1, subnets: [2] }, [3])
    const plan = world.plan([{ owner: 2, is, should: NOTHING }])
    expect(names(plan).map(([name]) => name)).toEqual(['retire encryption', 'retire decryption', 'retire policies'])
    const { records } = plan.phases.find(({ name }) => name === 'retire policies')!
    const isOut = startsOf(records).map((at) => records[at + Policy.direction] === DIRECTION_OUT)
    expect(isOut).toEqual(marks === false ? [false, false, false, false, true, true] : [true, true])
  })

  test('a node that has booted anew: each SA is swapped in its place, and no policy touched', () => {
    const world = new World(marks, [3])
    const [is, should] = [1, 2].map((boots) => world.records({ number: 2, boots, subnets: [2] }, [3])) as [
      Uint8Array,
      Uint8Array,
    ]
    const plan = world.plan([{ owner: 2, is, should }])
    expect(names(plan)).toEqual([
      ['decrypt', 4],
      ['encrypt', 4],
    ])
    for (const { records } of plan.phases) {
      const operations = startsOf(records).map((at) => records[at + State.operation])
      expect(operations).toEqual(operations.map((_, i) => (i % 2 === 0 ? Operation.deleteState : Operation.addState)))
    }
  })
})

test('a rotation without marks: the new SAs, then the policies turn, then the old one out goes', () => {
  const world = new World(false, [3, 4])
  const spec = { number: 2, boots: 1, subnets: [2] }
  const [is, should] = [world.records(spec, [3]), world.records(spec, [4])]
  expect(names(world.plan([{ owner: 2, is, should }]))).toEqual([
    ['encrypt', 2],
    ['select', 2],
    ['retire encryption', 2],
  ])
})

test('another output mark alone is an update in place', () => {
  const [plain, zero] = [new World('cilium', [3]), new World('cilium', [3], true)]
  const spec = { number: 2, boots: 1, subnets: [2] }
  const plan = zero.plan([{ owner: 2, is: plain.records(spec, [3]), should: zero.records(spec, [3]) }])
  expect(names(plan)).toEqual([['decrypt', 2]])
  const { records } = plan.phases.find(({ name }) => name === 'decrypt')!
  expect(startsOf(records).map((at) => records[at + State.operation])).toEqual([
    Operation.updateState,
    Operation.updateState,
  ])
})

test('what nobody asks for stays where the judge says so, and is part of what is there then', () => {
  const world = new World(false, [3, 4])
  const spec = { number: 2, boots: 1, subnets: [2] }
  const is = world.records(spec, [3])
  const one = new World(false, [4])
  const should = one.records(spec, [4])
  const plan = world.plan([{ owner: 2, is, should }], true)
  expect(plan.phases.flatMap(({ name, owners }) => (name.startsWith('retire') ? owners : []))).toEqual([])
  expect(objects(plan.after.get(2)!).size).toBe(objects(is, should).size)
})
