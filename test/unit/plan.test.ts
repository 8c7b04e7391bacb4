import { describe, expect, test } from 'vitest'
import { Operation, RecordWriter, State } from '../../lib/kernel/records.js'
import { SharedPolicy } from '../../lib/overlay/form.js'
import { POLICY_DIFFERS } from '../../lib/overlay/peers.js'
import { describe as describePlan } from '../../lib/overlay/describe.js'
import { NO_PEER, Op, opHead, Ops, type Phase } from '../../lib/overlay/ops.js'
import { plan, Planner } from '../../lib/overlay/plan.js'
import { settle, without } from '../../lib/overlay/settle.js'
import { deriveSpi } from '../../lib/overlay/spi.js'
import { converge, form, key, LOCAL, operationsOf, phasesOf, told, wish, world } from './model.js'
import { VniSet } from '../../lib/overlay/vni-set.js'

// Peers whose inbound SPIs at 10.0.0.1 collide, found by search.
const TWINS = ['47.214.176.99', '3.143.180.106'] as const
const UNDER_1 = '35.132.163.212'
const UNDER_2 = '186.17.180.244'
const RESERVED_INBOUND_1 = '85.193.104.44'
const RESERVED_OUTBOUND_1 = '16.224.192.46'
const PEER = '10.0.0.2'
const SAME_OUTBOUND = [1945408251, 522167948] as const
const SAME_INBOUND = [2810626684, 2714519443] as const

test('the peers that these tests rest on collide indeed', () => {
  expect(deriveSpi(TWINS[0], LOCAL, 1)).toBe(deriveSpi(TWINS[1], LOCAL, 1))
  expect(deriveSpi(UNDER_1, LOCAL, 1)).toBe(deriveSpi(UNDER_2, LOCAL, 2))
  expect(deriveSpi(RESERVED_INBOUND_1, LOCAL, 1)).toBeLessThanOrEqual(255)
  expect(deriveSpi(LOCAL, RESERVED_OUTBOUND_1, 1)).toBeLessThanOrEqual(255)
  expect(deriveSpi(LOCAL, PEER, SAME_OUTBOUND[0])).toBe(deriveSpi(LOCAL, PEER, SAME_OUTBOUND[1]))
  expect(deriveSpi(PEER, LOCAL, SAME_INBOUND[0])).toBe(deriveSpi(PEER, LOCAL, SAME_INBOUND[1]))
})

describe('order', () => {
  test('nothing wanted is nothing to do', () => {
    const made = plan(...both(world(form(), [1])))
    expect(made).toMatchObject({
      operations: 0,
      shares: 0,
      failures: [],
      networks: { add: VniSet.none, remove: VniSet.none },
    })
  })

  test('a first peer: the shared policy, what decrypts, what encrypts', () => {
    const w = world(form(), [7, 3])
    wish(w, PEER)
    const made = plan(w.is, w.should)
    expect(phasesOf(w, made)).toEqual({
      guard: [`add policy ${SharedPolicy.out}`],
      decrypt: [`add inbound SA 7 ${PEER}`, `add inbound SA 3 ${PEER}`],
      encrypt: [`add outbound SA 7 ${PEER}`],
    })
    expect(made).toMatchObject({ operations: 4, failures: [] })
  })

  test('a first network: the shared policies alone, and no key needed', () => {
    const w = world(form({ exclusive: true }))
    w.should = { ...w.should, networks: new VniSet([4096, 5000]) }
    const made = plan(w.is, w.should)
    expect(made.networks).toEqual({ add: new VniSet([4096, 5000]), remove: VniSet.none })
    expect(phasesOf(w, made)).toEqual({
      guard: [SharedPolicy.out, SharedPolicy.in, SharedPolicy.through].map((policy) => `add policy ${policy}`),
    })
  })

  test.each([
    [{ policies: 'shared', exclusive: false }, [SharedPolicy.out]],
    [{ policies: 'shared', exclusive: true }, [SharedPolicy.out, SharedPolicy.in, SharedPolicy.through]],
    [{ policies: 'per-peer', exclusive: false }, []],
    [{ policies: 'per-peer', exclusive: true }, [SharedPolicy.in, SharedPolicy.rest, SharedPolicy.through]],
  ] as const)('%j has its shared policies', (options, policies) => {
    const w = world(form(options), [1])
    wish(w, PEER)
    expect(phasesOf(w, plan(w.is, w.should))['guard'] ?? []).toEqual(policies.map((policy) => `add policy ${policy}`))
  })

  test('a rotation adds before it removes, what encrypts going first', () => {
    const w = world(form({ policies: 'per-peer' }), [1, 2])
    wish(w, PEER, '10.0.0.3')
    converge(w)
    w.should = { ...w.should, keyring: w.should.keyring.update({ add: key(3), primary: 2, prune: 1 }) }
    expect(phasesOf(w, plan(w.is, w.should))).toEqual({
      decrypt: [`add inbound SA 3 ${PEER}`, 'add inbound SA 3 10.0.0.3'],
      encrypt: [`add outbound SA 2 ${PEER}`, 'add outbound SA 2 10.0.0.3'],
      select: [`update policy 2 ${PEER}`, 'update policy 2 10.0.0.3'],
      'retire encryption': [`delete outbound SA 1 ${PEER}`, 'delete outbound SA 1 10.0.0.3'],
      'retire decryption': [`delete inbound SA 1 ${PEER}`, 'delete inbound SA 1 10.0.0.3'],
    })
  })

  test('a peer removed: its outbound SA, its inbound SAs, its policy', () => {
    const w = world(form({ policies: 'per-peer', exclusive: true }), [1, 2])
    const [slot] = wish(w, PEER)
    converge(w)
    w.is.peers.drop(slot!)
    expect(phasesOf(w, plan(w.is, w.should))).toEqual({
      'retire encryption': [`delete outbound SA 1 ${PEER}`],
      'retire decryption': [`delete inbound SA 1 ${PEER}`, `delete inbound SA 2 ${PEER}`],
      'retire policies': [
        `delete policy ${PEER}`,
        `delete policy ${SharedPolicy.in}`,
        `delete policy ${SharedPolicy.rest}`,
        `delete policy ${SharedPolicy.through}`,
      ],
    })
  })

  test('shared policies stay while there is a network, or another peer', () => {
    const w = world(form(), [1])
    const [first] = wish(w, PEER, '10.0.0.3')
    converge(w)
    w.is.peers.drop(first!)
    expect(phasesOf(w, plan(w.is, w.should))).not.toHaveProperty('retire policies')
    w.is.peers.drop(w.is.peers.lookup('10.0.0.3'))
    expect(phasesOf(w, plan(w.is, w.should))).toHaveProperty('retire policies', [`delete policy ${SharedPolicy.out}`])
    w.should = { ...w.should, networks: new VniSet([1]) }
    expect(phasesOf(w, plan(w.is, w.should))).not.toHaveProperty('retire policies')
  })

  test('shared policies stay while a peer out of scope has anything left', () => {
    const w = world(form(), [1])
    const [left, other] = wish(w, PEER, '10.0.0.3')
    converge(w)
    w.is.peers.drop(left!)
    w.is.peers.drop(other!)
    expect(phasesOf(w, plan(w.is, w.should, { peers: [other!] }))).not.toHaveProperty('retire policies')
    expect(phasesOf(w, plan(w.is, w.should, { peers: [other!, left!] }))).toHaveProperty('retire policies')
  })

  test('an entirely different keyring leaves no moment without an SA', () => {
    const w = world(form(), [1, 2])
    wish(w, PEER)
    converge(w)
    w.should = { ...w.should, keyring: w.should.keyring.set([key(8), key(9)]) }
    const { steps } = converge(w)
    expect(told(w, steps)).toEqual([
      `add inbound SA 8 ${PEER}`,
      `add inbound SA 9 ${PEER}`,
      `add outbound SA 8 ${PEER}`,
      `delete outbound SA 1 ${PEER}`,
      `delete inbound SA 1 ${PEER}`,
      `delete inbound SA 2 ${PEER}`,
    ])
  })

  test('what was carried out is nothing to do again', () => {
    const w = world(form({ policies: 'per-peer', exclusive: true }), [1, 2, 3])
    wish(w, PEER, ...TWINS, '10.9.9.9')
    w.should = { ...w.should, networks: new VniSet([4096]) }
    converge(w)
    expect(plan(w.is, w.should)).toMatchObject({
      operations: 0,
      failures: [],
      networks: { add: VniSet.none, remove: VniSet.none },
    })
  })
})

describe('scope', () => {
  test('a plan for some peers leaves the others alone', () => {
    const w = world(form(), [1])
    const [first, second] = wish(w, '10.0.0.2', '10.0.0.3', '10.0.0.4')
    const made = plan(w.is, w.should, { peers: [second!] })
    expect(phasesOf(w, made)['decrypt']).toEqual(['add inbound SA 1 10.0.0.3'])
    const both = plan(w.is, w.should, { peers: Uint32Array.of(first!, second!) })
    expect(phasesOf(w, both)['decrypt']).toEqual(['add inbound SA 1 10.0.0.2', 'add inbound SA 1 10.0.0.3'])
  })

  test('steps make the same plan', () => {
    const w = world(form({ policies: 'per-peer' }), [1, 2])
    const slots = wish(w, ...Array.from({ length: 50 }, (_, i) => `10.1.0.${i}`), ...TWINS)
    w.is.peers.drop(slots[3]!)
    w.is.peers.sweep()
    const planner = new Planner(w.is, w.should)
    let steps = 1
    while (!planner.step(7)) steps++
    expect(steps).toBeGreaterThan(7)
    expect(planner.finish()).toEqual(plan(w.is, w.should))
  })
})

describe('damage', () => {
  test('an SA that differs is deleted right before it is added, its kind in its phase', () => {
    const w = world(form(), [1, 2])
    const [slot] = wish(w, PEER)
    converge(w)
    w.is.peers.inbound[slot!] = 0b10
    w.is.peers.outbound[slot!] = 0
    w.is.claims.remove(deriveSpi(PEER, LOCAL, 1), slot!, 0)
    const states = new Map([[slot!, { inbound: 0b01, outbound: 0b01 }]])
    expect(phasesOf(w, plan(w.is, w.should, { damage: { states } }))).toEqual({
      decrypt: [`delete inbound SA 1 ${PEER}`, `add inbound SA 1 ${PEER}`],
      encrypt: [`delete outbound SA 1 ${PEER}`, `add outbound SA 1 ${PEER}`],
    })
  })

  test('policies that differ are updated in place, or removed where not wanted', () => {
    const w = world(form({ policies: 'per-peer', exclusive: true }), [1])
    const [slot] = wish(w, PEER)
    converge(w)
    w.is.peers.policy[slot!] = POLICY_DIFFERS
    w.is.sharedPolicies = SharedPolicy.rest | SharedPolicy.through
    const damage = { sharedPolicies: SharedPolicy.in }
    expect(phasesOf(w, plan(w.is, w.should, { damage }))).toEqual({
      guard: [`update policy ${SharedPolicy.in}`],
      select: [`update policy 1 ${PEER}`],
    })
    w.is.peers.drop(slot!)
    expect(phasesOf(w, plan(w.is, w.should, { damage }))['retire policies']).toEqual([
      `delete policy ${PEER}`,
      `delete policy ${SharedPolicy.in}`,
      `delete policy ${SharedPolicy.rest}`,
      `delete policy ${SharedPolicy.through}`,
    ])
  })

  test.each([
    // A shared policy takes over at once; peers' own policies name SAs that must be there as long as they are.
    ['shared', ['guard', 'decrypt', 'encrypt', 'select', 'retire decryption'], 'select'],
    ['per-peer', ['decrypt', 'encrypt', 'select', 'retire decryption', 'retire policies'], 'retire policies'],
  ] as const)('what is stale goes last, policies as %s ones allow', (policies, names, last) => {
    const w = world(form({ policies }), [1])
    wish(w, PEER)
    const none = new Uint8Array(0)
    const stale = { states: { records: none, at: [144, 0] }, policies: { records: none, at: [72] } }
    const phases = phasesOf(w, plan(w.is, w.should, { damage: { stale } }))
    expect(Object.keys(phases)).toEqual(names)
    expect(phases['retire decryption']).toEqual(['delete stale SA 144', 'delete stale SA 0'])
    expect(phases[last]).toContain('delete stale policy 72')
  })
})

describe('collisions', () => {
  test('two peers with one SPI and key share an SA, to be deleted with the last of them', () => {
    const w = world(form(), [1])
    const [first, second] = wish(w, ...TWINS)
    const made = converge(w)
    expect(made.plan).toMatchObject({ shares: 1, operations: 4, failures: [] })
    expect(told(w, made.steps)).toContain(`share inbound SA 1 ${TWINS[1]}`)
    expect(w.kernel.states.size).toBe(3)

    w.is.peers.drop(first!)
    const one = converge(w)
    expect(told(w, one.steps)).toEqual([`delete outbound SA 1 ${TWINS[0]}`, `unshare inbound SA 1 ${TWINS[0]}`])
    expect(one.plan).toMatchObject({ shares: 1, operations: 1 })
    expect(w.kernel.states.size).toBe(2)

    w.is.peers.drop(second!)
    expect(told(w, converge(w).steps)).toContain(`delete inbound SA 1 ${TWINS[1]}`)
    expect(w.kernel.states.size).toBe(0)
  })

  test('both sharers removed at once: one deletes', () => {
    const w = world(form(), [1])
    wish(w, ...TWINS)
    converge(w)
    for (const slot of w.is.peers.slots()) w.is.peers.drop(slot)
    const steps = told(w, converge(w).steps)
    expect(steps.filter((step) => step.includes('inbound'))).toEqual([
      `unshare inbound SA 1 ${TWINS[0]}`,
      `delete inbound SA 1 ${TWINS[1]}`,
    ])
    expect(w.kernel.states.size).toBe(0)
  })

  test('one sharer goes as the other comes: the SA stays', () => {
    const w = world(form(), [1])
    // The newcomer has the later slot, so that the removal is planned before the adding.
    const [first, second] = wish(w, TWINS[0], TWINS[1])
    w.is.peers.drop(second!)
    converge(w)
    w.is.peers.drop(first!)
    w.is.peers.retain(second!)
    const { steps } = converge(w)
    expect(told(w, steps)).toEqual([
      `share inbound SA 1 ${TWINS[1]}`,
      `add outbound SA 1 ${TWINS[1]}`,
      `delete outbound SA 1 ${TWINS[0]}`,
      `unshare inbound SA 1 ${TWINS[0]}`,
    ])
    expect([...w.kernel.states.values()].map(({ spi }) => spi)).toContain(deriveSpi(TWINS[1], LOCAL, 1))
  })

  test('who was to share an SA whose adding failed failed too', () => {
    const w = world(form(), [1])
    const [first, second] = wish(w, ...TWINS)
    let message = 0
    const { failed } = converge(w, {}, () => message++ === 1)
    expect(failed).toEqual(new Set([first, second]))
    expect(w.kernel.states.size).toBe(0)
    expect(converge(w).failed.size).toBe(0)
    expect(w.kernel.states.size).toBe(3)
  })

  test('a sharer that failed before keeps the SA that the other would have deleted', () => {
    const w = world(form(), [1])
    const [first, second] = wish(w, ...TWINS)
    converge(w)
    w.is.peers.drop(first!)
    w.is.peers.drop(second!)
    let message = 0
    // The second one's outbound SA is not deleted.
    const { failed, steps } = converge(w, {}, () => message++ === 1)
    expect(failed).toEqual(new Set([second]))
    expect(told(w, steps).at(-1)).toBe(`unshare inbound SA 1 ${TWINS[0]}`)
    expect(w.kernel.states.size).toBe(2)
    converge(w)
    expect(w.kernel.states.size).toBe(0)
  })

  test('the same under different keys is refused, naming both', () => {
    const w = world(form(), [1, 2])
    const [, second] = wish(w, UNDER_1, UNDER_2)
    const made = plan(w.is, w.should)
    // Tags that differ in their last bits swap: each one's SPI under one key is the other's under the other.
    expect(made.failures).toEqual(
      [
        [1, 2, '0x1fbe84c2'],
        [2, 1, '0x40775fff'],
      ].map(([tag, other, spi]) => ({
        peer: second,
        subject: UNDER_2,
        operation: 'add inbound SA',
        errno: 0,
        code: 'ERR_XFRMESH_SPI_COLLISION',
        message: `SPI ${spi} is also that of peer ${UNDER_1} under key ${other}, and their keys differ; under key ${tag} this peer cannot be had: rotate to a key with another tag`,
      })),
    )
    expect(phasesOf(w, made)['encrypt']).toEqual([`add outbound SA 1 ${UNDER_1}`])
  })

  test('different tags with one value share', () => {
    const w = world(form(), [])
    w.should = { ...w.should, keyring: w.should.keyring.set([key(1), key(2, 1)]) }
    wish(w, UNDER_1, UNDER_2)
    expect(plan(w.is, w.should)).toMatchObject({ shares: 2, failures: [] })
  })

  test.each([{ replayWindow: 32 }, { replayWindow: 64, esn: true }])('nobody shares with %j', (options) => {
    const w = world(form(options), [1])
    wish(w, ...TWINS)
    const { failures } = plan(w.is, w.should)
    expect(failures).toHaveLength(1)
    expect(failures[0]!.message).toContain(
      `is also that of peer ${TWINS[0]} under key 1, and replay protection cannot tell the two apart`,
    )
  })

  test('a reserved SPI is refused, inbound and outbound, and the other keys are not', () => {
    const w = world(form(), [1, 2])
    wish(w, RESERVED_INBOUND_1, RESERVED_OUTBOUND_1, PEER)
    const made = plan(w.is, w.should)
    expect(made.failures.map(({ subject, operation, code }) => [subject, operation, code])).toEqual([
      [RESERVED_INBOUND_1, 'add inbound SA', 'ERR_XFRMESH_SPI_RESERVED'],
      [RESERVED_OUTBOUND_1, 'add outbound SA', 'ERR_XFRMESH_SPI_RESERVED'],
    ])
    expect(made.failures[0]!.message).toBe(
      'SPI 0x000000a5 is reserved; under key 1 this peer cannot be had: rotate to a key with another tag',
    )
    expect(phasesOf(w, made)).toMatchObject({
      decrypt: [
        `add inbound SA 2 ${RESERVED_INBOUND_1}`,
        `add inbound SA 1 ${RESERVED_OUTBOUND_1}`,
        `add inbound SA 2 ${RESERVED_OUTBOUND_1}`,
        `add inbound SA 1 ${PEER}`,
        `add inbound SA 2 ${PEER}`,
      ],
      encrypt: [`add outbound SA 1 ${PEER}`],
    })
  })

  test('a peer that cannot have the new primary keeps the old SAs and policy', () => {
    const w = world(form({ policies: 'per-peer' }), [2])
    wish(w, RESERVED_OUTBOUND_1, PEER)
    converge(w)
    w.should = { ...w.should, keyring: w.should.keyring.set([key(1)]) }
    const { plan: made } = converge(w)
    expect(made.failures).toHaveLength(1)
    const phases = phasesOf(w, made)
    expect(phases['retire encryption']).toEqual([`delete outbound SA 2 ${PEER}`])
    expect(phases['select']).toEqual([`update policy 1 ${PEER}`])
    expect(w.kernel.outboundTo(RESERVED_OUTBOUND_1).map(({ spi }) => spi)).toEqual([
      deriveSpi(LOCAL, RESERVED_OUTBOUND_1, 2),
    ])
  })

  test('two tags of one peer with one SPI are refused, outbound and inbound', () => {
    const out = world(form(), [SAME_OUTBOUND[0], SAME_OUTBOUND[1]])
    wish(out, PEER)
    expect(converge(out).plan.failures).toEqual([])
    out.should = { ...out.should, keyring: out.should.keyring.update({ primary: SAME_OUTBOUND[1] }) }
    expect(plan(out.is, out.should).failures).toMatchObject([
      { operation: 'add outbound SA', code: 'ERR_XFRMESH_SPI_COLLISION', subject: PEER },
    ])
    const into = world(form(), [SAME_INBOUND[0], SAME_INBOUND[1]])
    wish(into, PEER)
    expect(plan(into.is, into.should).failures).toMatchObject([
      { operation: 'add inbound SA', code: 'ERR_XFRMESH_SPI_COLLISION', subject: PEER },
    ])
  })
})

describe('without', () => {
  const w = world(form(), [1])
  const [first, second] = wish(w, PEER, '10.0.0.3')
  const ops = new Ops()
  ops.push(opHead(Op.deletePolicy, 0), first!, 0)
  ops.push(opHead(Op.deletePolicy, 0), second!, 0)
  ops.push(Op.deleteShared, 1, 0)
  ops.push(Op.deleteStalePolicy, 0, 0)
  const phase: Phase = { name: 'retire policies', ops: ops.ops() }

  test('nobody is the same phase', () => {
    expect(without(phase, new Set(), w.is)).toBe(phase)
  })
  test('a peer keeps what is its own and what is shared', () => {
    expect(told(w, operationsOf(without(phase, new Set([first!]), w.is)))).toEqual([
      'delete policy 10.0.0.3',
      'delete stale policy 0',
    ])
  })
  test('a failure that is about no peer keeps what is shared', () => {
    expect(told(w, operationsOf(without(phase, new Set([NO_PEER]), w.is)))).toEqual([
      `delete policy ${PEER}`,
      'delete policy 10.0.0.3',
      'delete stale policy 0',
    ])
  })
})

test('settle notes nothing of what failed', () => {
  const w = world(form(), [1])
  const [slot] = wish(w, PEER)
  for (const code of Object.values(Op)) expect(settle(w.is, opHead(code, 0), slot!, 4711, false)).toBe(false)
  expect([w.is.peers.inbound[slot!], w.is.peers.outbound[slot!], w.is.peers.policy[slot!]]).toEqual([0, 0, 0])
  expect([w.is.sharedPolicies, w.is.claims.size]).toEqual([0, 0])
})

test('a plan is told as plain JSON', () => {
  const w = world(form({ policies: 'per-peer', exclusive: true }), [7])
  wish(w, PEER)
  w.is.networks = new VniSet([9])
  w.should = { ...w.should, networks: new VniSet([4096]) }
  const stale = new RecordWriter()
  stale.begin(Operation.addState)
  stale.u8(State.family, 2)
  stale.bytes(State.source, Uint8Array.of(192, 0, 2, 1))
  stale.bytes(State.destination, Uint8Array.of(192, 0, 2, 2))
  stale.u32(State.spi, 0xabcdef01)
  const records = new Uint8Array([...new Array<number>(8).fill(0), ...stale.take()]).subarray(8)
  const damage = { stale: { states: { records, at: [0] }, policies: { records, at: [0] } } }
  const made = plan(w.is, w.should, { damage })
  const out = [...describePlan(made, w.is, w.should, damage)]
  expect(JSON.parse(JSON.stringify(out))).toEqual([
    { phase: 'guard', operation: 'add network', subject: 'vni 4096', network: 4096 },
    { phase: 'guard', operation: 'add policy', subject: 'in, any to any' },
    { phase: 'guard', operation: 'add policy', subject: 'out, any to any' },
    { phase: 'guard', operation: 'add policy', subject: 'through, any to any' },
    { phase: 'decrypt', operation: 'add inbound SA', subject: PEER, spi: deriveSpi(PEER, LOCAL, 7), tag: 7 },
    { phase: 'encrypt', operation: 'add outbound SA', subject: PEER, spi: deriveSpi(LOCAL, PEER, 7), tag: 7 },
    { phase: 'select', operation: 'add policy', subject: PEER, spi: deriveSpi(LOCAL, PEER, 7), tag: 7 },
    { phase: 'retire decryption', operation: 'delete stale SA', subject: '192.0.2.1 to 192.0.2.2', spi: 0xabcdef01 },
    { phase: 'retire policies', operation: 'delete stale policy', subject: '192.0.2.1 to 192.0.2.2' },
    { phase: 'unguard', operation: 'remove network', subject: 'vni 9', network: 9 },
  ])
})

function both(w: ReturnType<typeof world>): [typeof w.is, typeof w.should] {
  return [w.is, w.should]
}
