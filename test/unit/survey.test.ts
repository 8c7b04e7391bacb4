import { describe, expect, test } from 'vitest'
import { attributeAt, recordLength, startsOf } from '../../lib/kernel/record-identity.js'
import { LITTLE_ENDIAN, State, WITHHELD_KEY } from '../../lib/kernel/records.js'
import { XFRMA } from '../../lib/kernel/xfrm-names.js'
import { TemplateLayout } from '../../lib/kernel/xfrm-parts.js'
import { POLICY_DIFFERS } from '../../lib/overlay/peers.js'
import { deriveSpi } from '../../lib/overlay/spi.js'
import { Survey } from '../../lib/overlay/survey.js'
import { Encap, OWN_TEMPLATE } from '../../lib/overlay/writer.js'
import { converge, form, key, LOCAL, type ModelState, portsOf, survey, told, type World, wish, world } from './model.js'

// Two peers whose inbound SPIs at 10.0.0.1 are the same under each key, and one whose are its own.
const [HAD, REFUSED, ALONE] = ['47.214.176.99', '3.143.180.106', '10.0.0.2'] as const

describe('an inbound SA under a key that goes, which somebody changed, where peers may not share', () => {
  test('goes with the peer whose source it bears, not with one that collides with it and cannot be had', () => {
    const w = rotating([HAD, REFUSED])
    replace(w, HAD, { key: 'ff'.repeat(16) })
    const damage = survey(w)
    expect(claimants(w, HAD)).toEqual([HAD])
    const { steps, plan } = converge(w, { damage })
    expect(plan.failures.map(({ subject }) => subject)).toEqual([REFUSED])
    expect(told(w, steps)).toEqual([
      `add inbound SA 2 ${HAD}`,
      `add outbound SA 2 ${HAD}`,
      `delete outbound SA 1 ${HAD}`,
      `delete inbound SA 1 ${HAD}`,
    ])
    expect(w.kernel.states.size).toBe(2)
    expect(w.is.peers.keysInUse() & w.should.keyring.retired).toBe(0)
    expect(converge(w, { damage: survey(w) }).steps).toEqual([])
  })

  test('leaves nothing that bears an older port once its peer has another', () => {
    const w = rotating([HAD, REFUSED], { replayWindow: 32, natPort: 4500 })
    replace(w, HAD, { key: 'ff'.repeat(16) })
    const { is, kernel } = w
    is.peers.port[is.peers.lookup(HAD)] = 4496
    converge(w, { damage: survey(w) })
    const inbound = [...kernel.states.values()].filter(({ source }) => source === HAD)
    expect(inbound.map((state) => portsOf(state))).toEqual([[4496, 4500]])
  })

  test("is stale if its source is none of theirs whose SPI it has, and goes though one can't be had", () => {
    const w = rotating([HAD, REFUSED])
    replace(w, HAD, { record: from(stateOf(w, HAD), [198, 51, 100, 1]) })
    const damage = survey(w)
    expect(claimants(w, HAD)).toEqual([])
    expect(damage.stale!.states.at).toHaveLength(1)
    converge(w, { damage })
    expect(w.kernel.states.size).toBe(2)
  })

  test("is still its peer's with another source if it can be no other's: kept while what follows it is refused", () => {
    const w = rotating([ALONE])
    replace(w, ALONE, { record: from(stateOf(w, ALONE), [198, 51, 100, 1]) })
    const damage = survey(w)
    expect(claimants(w, ALONE)).toEqual([ALONE])
    converge(w, { damage }, () => true)
    expect(w.kernel.states.has(inboundId(ALONE))).toBe(true)
    converge(w, { damage: survey(w) })
    expect(w.kernel.states.has(inboundId(ALONE))).toBe(false)
    expect(w.kernel.states.size).toBe(2)
  })
})

test('an inbound SA under a key that goes, which somebody changed, is of all who share it', () => {
  const w = rotating([HAD, REFUSED], { replayWindow: 0 })
  replace(w, HAD, { key: 'ff'.repeat(16) })
  const damage = survey(w)
  expect(claimants(w, HAD)).toEqual([HAD, REFUSED])
  const { plan } = converge(w, { damage })
  expect(plan.failures).toEqual([])
  expect(w.kernel.states.has(inboundId(HAD))).toBe(false)
})

test('a port of ours that somebody changed is found, also where another peer cannot be had for the SPI', () => {
  // The inbound SPI of either under one key is that of the other under the other.
  const peers = ['186.17.180.244', '35.132.163.212'] as const
  const w = world(form({ natPort: 4500 }), [1, 2])
  wish(w, ...peers)
  const { plan } = converge(w)
  expect(new Set(plan.failures.map(({ subject }) => subject))).toEqual(new Set([peers[1]]))
  const spis = peers.flatMap((peer) => [1, 2].map((tag) => deriveSpi(peer, LOCAL, tag)))
  const spi = spis.find((each, i) => spis.indexOf(each) !== i)!
  const [id, state] = [...w.kernel.states].find(([, each]) => each.spi === spi)!
  const record = state.record.slice()
  record[Encap.destinationPort]! ^= 4
  w.kernel.states.set(id, { ...state, record })
  converge(w, { damage: survey(w) })
  expect(portsOf(w.kernel.states.get(id)!)).toEqual([4500, 4500])
})

describe('a byte of an object that somebody changed is found, but for ports,', () => {
  const ways = [LOCAL, '2001:db8::1'].flatMap((local) =>
    [0, 4500].flatMap((natPort) =>
      [false, true].map((esn) => ({ local, natPort, esn, replayWindow: esn ? 128 : 0, policies: 'per-peer' as const })),
    ),
  )
  test.each(ways)('local $local, NAT port $natPort, ESN $esn', (options) => {
    for (const keepsThreshold of options.natPort === 0 ? [true] : [true, false]) {
      for (const withheld of [false, true]) {
        const found = unnoticed(options, { keepsThreshold, withheld })
        const ports = options.natPort === 0 ? [] : range(Encap.sourcePort, Encap.destinationPort + 2)
        // Whether a withheld key ends with the SPI is not known.
        const always = [...(withheld ? [State.salted] : []), ...ports]
        const threshold = options.natPort === 0 || !keepsThreshold ? [] : range(found.threshold, found.threshold + 4)
        expect(found.states).toEqual({ inbound: [...always, ...threshold], outbound: always })
        expect(found.policies).toEqual([[]])
      }
    }
  })

  test("and the source of an SA that several share may be any one's", () => {
    const w = world(form(), [1])
    wish(w, HAD, REFUSED)
    converge(w)
    replace(w, HAD, { record: from(stateOf(w, HAD), [198, 51, 100, 1]) })
    expect(survey(w)).toMatchObject({ states: new Map(), stale: { states: { at: [] } } })
  })

  test("and one of a template that makes a peer's policy optional", () => {
    const w = world(form({ policies: 'per-peer' }), [1])
    const [slot] = wish(w, ALONE)
    converge(w)
    const [id, record] = [...w.kernel.policies].find(([, { length }]) => length > 0)!
    const optional = record.slice()
    optional[OWN_TEMPLATE + TemplateLayout.optional] = 1
    w.kernel.policies.set(id, optional)
    survey(w)
    expect(w.is.peers.policy[slot!]).toBe(POLICY_DIFFERS)
  })
})

/** Offsets in the records of a peer's SAs and policies at which a bit can be turned and all is taken for right. */
function unnoticed(
  options: Parameters<typeof form>[0],
  { keepsThreshold, withheld }: { keepsThreshold: boolean; withheld: boolean },
) {
  const w = world(form(options), [1])
  w.kernel.keepsThreshold = keepsThreshold
  const [slot] = wish(w, options?.local === LOCAL ? ALONE : '2001:db8::2')
  converge(w)
  const { is, should } = w
  const { states, policies } = w.kernel.dump(should.keyring.sideTable())
  const view = new DataView(states.buffer)
  if (withheld) {
    for (const at of startsOf(states)) view.setUint32(at + State.cipherKey, WITHHELD_KEY, LITTLE_ENDIAN)
  }
  const [port, source] = [is.peers.port[slot!]!, is.peers.portSource[slot!]!]
  const isRight = () => {
    is.peers.port[slot!] = port
    is.peers.portSource[slot!] = source
    const looking = new Survey(states, policies, is, should)
    while (!looking.step(9));
    const { states: differing, stale } = looking.finish()
    const known = [is.peers.inbound, is.peers.outbound, is.peers.policy].every((column) => column[slot!] === 1)
    return known && differing!.size + stale!.states.at.length + stale!.policies.at.length === 0
  }
  expect(isRight()).toBe(true)
  const turned = (records: Uint8Array, at: number) =>
    range(State.family, recordLength(records, at)).filter((offset) => {
      // Another index in place of that of a withheld key is that of a key.
      if (withheld && records === states && offset >= State.cipherKey && offset < State.authAlgorithm) return false
      records[at + offset]! ^= 4
      const right = isRight()
      records[at + offset]! ^= 4
      return right
    })
  const local = Buffer.from(should.form.local.bytes)
  const isInbound = (at: number) => local.equals(states.subarray(at + State.destination, at + State.source))
  const inbound = startsOf(states).find(isInbound)!
  const outbound = startsOf(states).find((at) => !isInbound(at))!
  return {
    states: { inbound: turned(states, inbound), outbound: turned(states, outbound) },
    policies: startsOf(policies).map((at) => turned(policies, at)),
    threshold: attributeAt(states, inbound, XFRMA.MTIMER_THRESH) - inbound,
  }
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, i) => from + i)
}

/** Peers under key 1, which has given way to key 2, of which nothing came to the kernel. */
function rotating(peers: readonly string[], options: Parameters<typeof form>[0] = { replayWindow: 32 }): World {
  const w = world(form(options), [1])
  wish(w, ...peers)
  converge(w)
  w.should = { ...w.should, keyring: w.should.keyring.set([key(2)]) }
  converge(w, {}, () => true)
  return w
}

function inboundId(peer: string): string {
  return `${LOCAL} ${deriveSpi(peer, LOCAL, 1)}`
}

function stateOf({ kernel }: World, peer: string): ModelState {
  return kernel.states.get(inboundId(peer))!
}

function replace(w: World, peer: string, by: Partial<ModelState>): void {
  w.kernel.states.set(inboundId(peer), { ...stateOf(w, peer), ...by })
}

/** The record of a state with another source. */
function from({ record }: ModelState, source: readonly number[]): Uint8Array {
  const other = record.slice()
  other.set(source, State.source)
  return other
}

/** Whose the inbound SA is that a peer has under key 1, as far as is noted. */
function claimants({ is }: World, peer: string): string[] {
  return is.claims.claims(deriveSpi(peer, LOCAL, 1)).map((claim) => is.peers.text(claim >>> 5))
}
