import { expect, test } from 'vitest'
import { Ending } from '../../lib/kernel/xfrm-channel.js'
import { carryOut } from '../../lib/overlay/executor.js'
import { plan } from '../../lib/overlay/plan.js'
import { converge, form, key, portsOf, told, type World, wish, world } from './model.js'

/** UDP ports of peers' SAs behind NAT: how a plan has them follow where a peer is. */

const PEER = '10.0.0.2'
// Peers whose inbound SPIs at 10.0.0.1 are the same under key 1.
const TWINS = ['47.214.176.99', '3.143.180.106'] as const

const inUdp = (tags: number[], ...peers: string[]) => {
  const w = world(form({ natPort: 4500 }), tags)
  return { w, slots: wish(w, ...peers) }
}
const learn = (w: World, slot: number, port: number) => (w.is.peers.port[slot] = port)
const ports = (w: World) => [...w.kernel.states.values()].map(portsOf)

test('another port is given to all SAs in place, and once', () => {
  const { w, slots } = inUdp([1, 2], PEER, '10.0.0.3')
  converge(w)
  learn(w, slots[0]!, 31234)
  const { steps } = converge(w, { peers: [slots[0]!] })
  expect(told(w, steps)).toEqual([
    `update outbound SA 1 ${PEER}`,
    `update inbound SA 1 ${PEER}`,
    `update inbound SA 2 ${PEER}`,
  ])
  expect(w.kernel.states.size).toBe(6)
  expect(ports(w).filter((pair) => pair!.includes(31234))).toEqual([
    [31234, 4500],
    [31234, 4500],
    [4500, 31234],
  ])
  expect(plan(w.is, w.should).operations).toBe(0)
})

test('what was refused is tried again, with all of the peer', () => {
  const { w, slots } = inUdp([1], PEER)
  converge(w)
  learn(w, slots[0]!, 31234)
  const all = [`update outbound SA 1 ${PEER}`, `update inbound SA 1 ${PEER}`]
  // While the first is refused the second is left alone, so that the kernel tells again.
  expect(told(w, converge(w, {}, () => true).steps)).toEqual(all.slice(0, 1))
  let messages = 0
  expect(told(w, converge(w, {}, () => ++messages === 2).steps)).toEqual(all)
  expect(w.is.peers.installedPort[slots[0]!]).toBe(0)
  expect(told(w, converge(w).steps)).toEqual(all)
  expect(plan(w.is, w.should).operations).toBe(0)
})

test.each([1, 2])('while one of two outbound SAs, number %i, has the old port, the peer has none', (refused) => {
  const { w, slots } = inUdp([1, 2], PEER)
  converge(w)
  w.should = { ...w.should, keyring: w.should.keyring.update({ primary: 2 }) }
  const refusing = (which: number) => {
    let messages = 0
    return () => ++messages === which
  }
  // The new one is added, and the old one stays.
  converge(w, {}, refusing(2))
  learn(w, slots[0]!, 31234)
  const { steps } = converge(w, {}, refusing(refused))
  expect(told(w, steps)).toEqual([`update outbound SA 1 ${PEER}`, `update outbound SA 2 ${PEER}`])
  expect(w.is.peers.installedPort[slots[0]!]).toBe(0)
})

test('where something else of the peer is refused, what decrypts is given it the next time', () => {
  const { w, slots } = inUdp([1], PEER)
  converge(w)
  w.should = { ...w.should, keyring: w.should.keyring.set([key(2)]) }
  converge(w, {}, () => true)
  learn(w, slots[0]!, 31234)
  let messages = 0
  expect(told(w, converge(w, {}, () => ++messages === 3).steps)).toEqual([
    `add inbound SA 2 ${PEER}`,
    `update outbound SA 1 ${PEER}`,
    `add outbound SA 2 ${PEER}`,
  ])
  w.should = { ...w.should, keyring: w.should.keyring.set([key(1)]) }
  converge(w)
  expect(ports(w)).toEqual([
    [31234, 4500],
    [4500, 31234],
  ])
})

test('where the rest is broken off, all are given it the next time', async () => {
  const { w, slots } = inUdp([1], PEER)
  converge(w)
  learn(w, slots[0]!, 31234)
  let commits = 0
  const answer = { errno: 0, sent: 1, unknown: 0, failures: new Uint32Array(), messages: [], sends: 1, readBack: 0 }
  const xfrm = {
    commit: () =>
      Promise.resolve(
        commits++ === 0 ? { ...answer, ending: Ending.complete } : { ...answer, sent: 0, ending: Ending.cancelled },
      ),
    read: () => Promise.reject(new Error('nobody reads')),
    close: () => Promise.resolve(),
  }
  const done = await carryOut(xfrm, plan(w.is, w.should), w.is, w.should, {})
  expect([done.aborted, done.updated]).toEqual([true, 1])
  expect(told(w, converge(w).steps)).toEqual([`update outbound SA 1 ${PEER}`, `update inbound SA 1 ${PEER}`])
})

test('an SA that two peers share is left with the port of one', () => {
  const { w, slots } = inUdp([1], ...TWINS)
  converge(w)
  learn(w, slots[1]!, 31234)
  expect(told(w, converge(w).steps)).toEqual([`update outbound SA 1 ${TWINS[1]}`])
})

test('an SA that two peers shared is given the port of the one that stays', () => {
  const { w, slots } = inUdp([1], ...TWINS)
  converge(w)
  learn(w, slots[1]!, 31234)
  converge(w)
  w.is.peers.drop(slots[0]!)
  converge(w)
  expect(w.is.peers.installedPort[slots[1]!]).toBe(0)
  expect(told(w, converge(w).steps)).toEqual([`update outbound SA 1 ${TWINS[1]}`, `update inbound SA 1 ${TWINS[1]}`])
  expect(plan(w.is, w.should).operations).toBe(0)
})
