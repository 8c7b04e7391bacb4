import { describe, expect, test } from 'vitest'
import { State } from '../../lib/kernel/records.js'
import { deriveSpi } from '../../lib/overlay/spi.js'
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
