import fc from 'fast-check'
import { expect, test } from 'vitest'
import { InvalidArgument, InvalidState } from '../../lib/base/errors.js'
import { Operation, Policy, RecordWriter, State } from '../../lib/kernel/records.js'
import { mayShare, sharedPolicies, SharedPolicy } from '../../lib/overlay/form.js'
import type { Keyring } from '../../lib/overlay/keyring.js'
import { codeOf, Op } from '../../lib/overlay/ops.js'
import { deriveSpi } from '../../lib/overlay/spi.js'
import { PortSource } from '../../lib/overlay/peers.js'
import { Encap, OpWriter } from '../../lib/overlay/writer.js'
import {
  converge,
  form,
  key,
  LOCAL,
  policyId,
  portsOf,
  type Run,
  type Step,
  survey,
  type World,
  wish,
  world,
} from './model.js'
import { VniSet } from '../../lib/overlay/vni-set.js'

/**
 * Whatever is called in whatever order, whatever the kernel refuses, whatever others do to the SAD and SPD: nothing that
 * works is broken on the way, and once the kernel refuses nothing it has what it should.
 */

/** Peers, among them pairs whose SPIs collide under tags 1 and 2, and two that derive reserved ones under tag 1. */
const PEERS = [
  '10.0.0.2',
  '10.0.0.3',
  '192.0.2.200',
  '47.214.176.99',
  '3.143.180.106',
  '35.132.163.212',
  '186.17.180.244',
  '85.193.104.44',
  '16.224.192.46',
]
/** Tags; the last two pairs give 10.0.0.2 equal SPIs, outbound and inbound. */
const TAGS = [1, 2, 3, 4, 5, 1945408251, 522167948, 2810626684, 2714519443]
/** Tag 4 has the value of tag 3. */
const given = (tag: number) => key(tag, tag === 4 ? 3 : tag)

const tag = fc.constantFrom(...TAGS)
const somePeers = fc.array(fc.constantFrom(...PEERS), { minLength: 1, maxLength: 5 })
const networks = fc.array(fc.constantFrom<number[]>(4096, 4097, 5000), { minLength: 1, maxLength: 2 })
const call = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      call: fc.constant('setKeys' as const),
      tags: fc.uniqueArray(tag, { minLength: 1, maxLength: 4 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      call: fc.constant('updateKeys' as const),
      update: fc.record({ add: tag.map(given), primary: tag, prune: tag }, { requiredKeys: [] }),
    }),
  },
  { weight: 6, arbitrary: fc.record({ call: fc.constant('addPeers' as const), peers: somePeers }) },
  { weight: 4, arbitrary: fc.record({ call: fc.constant('removePeers' as const), peers: somePeers }) },
  {
    weight: 2,
    arbitrary: fc.record({
      call: fc.constant('learn' as const),
      peer: fc.constantFrom(...PEERS),
      port: fc.integer({ min: 1, max: 0xffff }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ call: fc.constant('addNetworks' as const), networks }) },
  { weight: 1, arbitrary: fc.record({ call: fc.constant('removeNetworks' as const), networks }) },
  {
    weight: 3,
    arbitrary: fc.record({
      call: fc.constant('reconcile' as const),
      damage: fc.array(fc.tuple(fc.constantFrom('delete', 'change', 'turn', 'stranger'), fc.nat(1000)), {
        maxLength: 6,
      }),
    }),
  },
)
/** Chance in 256 that the kernel refuses a message, and bytes to draw by. */
const weather = fc.record({
  refusals: fc.constantFrom(0, 0, 20, 120),
  draws: fc.uint8Array({ minLength: 64, maxLength: 64 }),
})
const story = fc.array(fc.tuple(call, weather), { minLength: 1, maxLength: 25 })
const options = fc.record({
  policies: fc.constantFrom('shared' as const, 'per-peer' as const),
  exclusive: fc.boolean(),
  replayWindow: fc.constantFrom(0, 0, 32, 128),
  natPort: fc.constantFrom(0, 4500),
})

test('random calls, refusals and damage', { timeout: 600_000 }, () => {
  fc.assert(
    fc.property(options, fc.boolean(), story, (of, keepsThreshold, calls) => {
      const w = { ...world(form({ ...of, esn: of.replayWindow === 128 })), ...TRUSTING }
      w.kernel.keepsThreshold = keepsThreshold
      for (const [each, { refusals, draws }] of calls) {
        let draw = 0
        play(w, each, () => draws[draw++ % draws.length]! < refusals)
        forgetKeys(w)
      }
      // Fair weather, twice: what could not be at once (an SPI of a key that was still to go) can be then. What nobody
      // damaged needs no look at the kernel.
      const again = () => watched(w, () => false, w.damaged ? { damage: survey(w) } : {})
      again()
      forgetKeys(w)
      const { failed, plan } = again()
      expect(failed.size).toBe(0)
      expectAll(w, new Set(plan.failures.map(({ subject }) => subject)))
      forgetKeys(w)
      expect(w.should.keyring.retired & ~retainedBy(w)).toBe(0)
      // Of what is right, a look finds nothing to do, but once an SA that bears the source of a sharer that is gone.
      const look = () => watched(w, () => false, { damage: survey(w) })
      look()
      const { steps } = look()
      if (plan.failures.length === 0) expect(steps).toEqual([])
    }),
    { numRuns: 150000 },
  )
})

/** A world in which others meddle: after a failure nobody knows what is there, as after a failure to delete what differs. */
interface Story extends World {
  damaged: boolean
  doubt: boolean
}
const TRUSTING = { damaged: false, doubt: false }

type Call = typeof call extends fc.Arbitrary<infer T> ? T : never

function play(w: Story, each: Call, refuse: () => boolean): void {
  const { peers } = w.is
  switch (each.call) {
    case 'setKeys':
    case 'updateKeys': {
      const { keyring } = w.should
      try {
        const next = each.call === 'setKeys' ? keyring.set(each.tags.map(given)) : keyring.update(each.update)
        w.should = { ...w.should, keyring: next }
      } catch (error) {
        if (error instanceof InvalidArgument || error instanceof InvalidState) return
        throw error
      }
      return void watched(w, refuse, {}, keyring)
    }
    case 'addPeers':
      if (w.should.keyring.size === 0) return
      return void watched(w, refuse, { peers: [...new Set(wish(w, ...each.peers))] })
    case 'removePeers': {
      const slots = each.peers.map((peer) => peers.lookup(peer)).filter((slot) => slot >= 0 && peers.drop(slot) > 0)
      return void watched(w, refuse, { peers: [...new Set(slots)] })
    }
    case 'learn': {
      const slot = peers.lookup(each.peer)
      if (slot < 0 || peers.references[slot] === 0 || w.should.form.natPort === 0) return
      peers.port[slot] = each.port
      peers.portSource[slot] = PortSource.learned
      return void watched(w, refuse, { peers: [slot] })
    }
    case 'addNetworks':
      w.should = { ...w.should, networks: w.should.networks.union(new VniSet(each.networks)) }
      return void watched(w, refuse, { peers: [] })
    case 'removeNetworks': {
      const left = [...w.should.networks].filter((network) => !each.networks.includes(network))
      w.should = { ...w.should, networks: new VniSet(left) }
      return void watched(w, refuse, { peers: [] })
    }
    case 'reconcile': {
      for (const [kind, which] of each.damage) damage(w, kind, which)
      const found = survey(w)
      // What differs is in no mask until it is replaced: if that fails, another look is needed.
      w.damaged ||= each.damage.length > 0 || found.states!.size > 0
      return void watched(w, refuse, { damage: found })
    }
  }
}

/**
 * What somebody else does to our objects: deletes one, changes one under its identity, turns one to other ports, adds one
 * that bears our reqid.
 */
function damage({ kernel, should }: World, kind: string, which: number): void {
  const objects: Map<string, unknown> = which % 3 === 0 ? kernel.policies : kernel.states
  const id = [...objects.keys()][which % (objects.size || 1)]
  if (kind === 'stranger') stranger(kernel, should.form.mark, which)
  else if (id === undefined) return
  else if (kind === 'delete') objects.delete(id)
  else if (objects === kernel.policies) {
    const changed = kernel.policies.get(id)!.slice()
    changed[Policy.priority]! ^= 4
    kernel.policies.set(id, changed)
  } else {
    const state = kernel.states.get(id)!
    if (kind === 'turn') {
      const record = state.record.slice()
      if (portsOf(state) !== undefined) record[Encap.sourcePort + (which % 4)]! ^= 4
      kernel.states.set(id, { ...state, record })
    } else if (which % 2 === 0) kernel.states.set(id, { ...state, key: 'ff'.repeat(16) })
    else {
      const record = state.record.slice()
      record[State.replayWindow]! ^= 8
      kernel.states.set(id, { ...state, record })
    }
  }
}

function stranger(kernel: World['kernel'], mark: number, which: number): void {
  const writer = new RecordWriter()
  writer.begin(which % 2 === 0 ? Operation.addState : Operation.addPolicy)
  writer.u8(State.family, 2)
  writer.bytes(State.source, Uint8Array.of(198, 51, 100, which & 255))
  writer.bytes(State.destination, Uint8Array.of(...(which % 4 === 0 ? [10, 0, 0, 1] : [203, 0, 113, which & 255])))
  if (which % 2 === 0) {
    writer.u32(State.spi, 70_000 + which)
    writer.u32(State.reqid, mark)
  } else {
    writer.u8(Policy.direction, which % 3)
    writer.attribute(5, new Uint8Array(64))
  }
  kernel.take(writer.take(), [new Uint8Array(16)])
}

/** Plans and carries out, and looks after each operation that nothing was broken which need not be. */
function watched(w: Story, refuse: () => boolean, scope: Parameters<typeof converge>[1], before?: Keyring): Run {
  if (w.damaged && w.doubt) scope = { damage: survey(w) }
  const { is, should, kernel } = w
  const { keyring } = should
  const { peers } = is
  const wanted = [...peers.slots()].filter((slot) => peers.references[slot]! > 0)
  const encrypted = keyring.size === 0 ? [] : wanted.filter((slot) => peers.outbound[slot] !== 0)
  const kept = (keyring.all & (before ?? keyring).all) >>> 0
  const decrypting = wanted.flatMap((slot) =>
    keyring.slots
      .filter((each) => ((peers.inbound[slot]! & kept) >>> each) & 1)
      .map((each) => inboundId(w, slot, each)),
  )
  // Between deleting an SA that differs and adding it there is nothing, which those with an SA that is right do not see.
  const watch = (step: Step) => {
    for (const slot of encrypted) expect(kernel.outboundTo(peers.text(slot)), peers.text(slot)).not.toHaveLength(0)
    for (const id of decrypting) expect(kernel.states.has(id), id).toBe(true)
    if (step.result !== 'ok') return
    if (codeOf(step.head) === Op.deletePolicy) {
      const peer = peers.text(step.subject)
      const own = [...kernel.states.values()].filter(
        ({ source, destination, spi }) =>
          destination === peer ||
          (source === peer && is.claims.claims(spi).some((claim) => claim >>> 5 === step.subject)),
      )
      expect(own, `SAs of ${peer}`).toEqual([])
    }
    if (codeOf(step.head) === Op.deleteShared)
      expect([...kernel.states.keys()], 'SAs under a shared policy').toEqual([])
  }
  const old = new Map(wanted.map((slot) => [slot, new Set(kernel.outboundTo(peers.text(slot)).map(({ spi }) => spi))]))
  const run = converge(w, scope, refuse, watch)
  w.doubt = run.failed.size > 0
  // Whose new SAs could not all be added keeps the old ones. Only a deletion that ran before its peer failed has gone.
  for (const step of run.steps) {
    if (step.result !== 'refused' || codeOf(step.head) !== Op.addInbound) continue
    const now = new Set(kernel.outboundTo(peers.text(step.subject)).map(({ spi }) => spi))
    for (const spi of old.get(step.subject) ?? []) expect(now).toContain(spi)
  }
  expectMasks(w)
  peers.sweep()
  return run
}

function inboundId({ is, should }: World, slot: number, each: number): string {
  return `${LOCAL} ${deriveSpi(is.peers.text(slot), LOCAL, should.keyring.tag(each))}`
}

/** What is noted as installed is installed, and of one peer where two may not share it. */
function expectMasks(w: World): void {
  const { is, should, kernel } = w
  const spis = new Map<string, number>()
  for (const slot of is.peers.slots()) {
    for (let each = 0; each < 32; each++) {
      if (((is.peers.inbound[slot]! >>> each) & 1) === 1) {
        const id = inboundId(w, slot, each)
        if (!mayShare(should.form)) expect(spis.get(id) ?? slot, `whose ${id} is`).toBe(slot)
        spis.set(id, slot)
      }
      if (((is.peers.outbound[slot]! >>> each) & 1) === 1) {
        const spi = deriveSpi(LOCAL, is.peers.text(slot), should.keyring.tag(each))
        expect(kernel.states.has(`${is.peers.text(slot)} ${spi}`)).toBe(true)
      }
    }
  }
  for (const id of spis.keys()) expect(kernel.states.has(id)).toBe(true)
  expect(is.claims.size).toBe(spis.size)
}

/** The SAD and SPD are what keys, peers and networks say, by a derivation of its own; but for peers that can't be had. */
function expectAll(w: World, without: ReadonlySet<string>): void {
  const { is, should, kernel } = w
  const { keyring } = should
  const peers = [...is.peers.slots()].map((slot) => is.peers.text(slot))
  const wanted = peers.filter((peer) => is.peers.references[is.peers.lookup(peer)]! > 0)
  const tags = keyring.tags
  const states = new Map<string, string>()
  for (const peer of wanted) {
    if (without.has(peer)) continue
    const bytes = (each: number) => Buffer.from(given(each).value).toString('hex')
    for (const each of tags) states.set(`${LOCAL} ${deriveSpi(peer, LOCAL, each)}`, bytes(each))
    if (tags.length > 0) states.set(`${peer} ${deriveSpi(LOCAL, peer, tags[0]!)}`, bytes(tags[0]!))
  }
  const found = new Map([...kernel.states].map(([id, state]) => [id, state.key]))
  for (const [id, bytes] of states) expect(found.get(id), id).toBe(bytes)
  expectPorts(w, without)
  const rest = [...kernel.states.values()].filter(({ destination, spi }) => !states.has(`${destination} ${spi}`))
  for (const { source, destination, spi } of rest) {
    // A shared SA bears the source of one of those who share it.
    const owners =
      destination === LOCAL ? is.claims.claims(spi).map((claim) => is.peers.text(claim >>> 5)) : [destination]
    expect(
      [source, ...owners].some((peer) => without.has(peer)),
      `${source} to ${destination}`,
    ).toBe(true)
  }
  expectPolicies(w, wanted, without)
  expect(new Set(is.networks)).toEqual(new Set(should.networks))
}

/** All SAs of those wanted have their ports, but an SA that is shared: it may have another sharer's. */
function expectPorts({ is, should, kernel }: World, without: ReadonlySet<string>): void {
  const { natPort } = should.form
  for (const state of kernel.states.values()) {
    const inbound = state.destination === LOCAL
    const peer = inbound ? state.source : state.destination
    const slot = is.peers.lookup(peer)
    if (slot < 0 || without.has(peer) || is.peers.references[slot] === 0) continue
    if (inbound && is.claims.count(state.spi) !== 1) continue
    const port = is.peers.port[slot]!
    const expected = inbound ? [port, natPort] : [natPort, port]
    expect(portsOf(state), `${state.source} to ${state.destination}`).toEqual(natPort === 0 ? undefined : expected)
  }
}

function expectPolicies({ is, should, kernel }: World, wanted: readonly string[], without: ReadonlySet<string>): void {
  const { form: of, keyring } = should
  const writer = OpWriter.of(of)
  const records = new RecordWriter()
  const expected = new Map<string, Uint8Array>()
  const mask = wanted.length > 0 || should.networks.size > 0 ? sharedPolicies(of) : 0
  for (const which of Object.values(SharedPolicy)) {
    if ((mask & which) === 0) continue
    writer.sharedPolicy(records, Operation.addPolicy, which)
    const record = records.take()
    expected.set(policyId(record), bare(record))
  }
  if (of.policies === 'per-peer' && keyring.size > 0) {
    for (const peer of wanted) {
      if (without.has(peer)) continue
      const spi = deriveSpi(LOCAL, peer, keyring.tag(keyring.primary))
      writer.write(records, Op.addPolicy | (keyring.primary << 8), is.peers.lookup(peer), spi, is, should)
      const record = records.take()
      expected.set(policyId(record), bare(record))
    }
  }
  const found = new Map([...kernel.policies].map(([id, record]) => [id, bare(record)]))
  for (const [id, record] of expected) expect(found.get(id), id).toEqual(record)
  if (without.size === 0) expect([...found.keys()].sort()).toEqual([...expected.keys()].sort())
}

/** A policy's record whatever operation brought it. */
function bare(record: Uint8Array): Uint8Array {
  const copy = record.slice()
  copy[Policy.operation] = 0
  return copy
}

function retainedBy({ is }: World): number {
  return is.peers.keysInUse()
}

function forgetKeys(w: World): void {
  const { keyring } = w.should
  w.should = { ...w.should, keyring: keyring.forget(keyring.retired & ~retainedBy(w)) }
}
