import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import { type Mapping, type NatOptions, Overlay, type PeerInput } from '../../lib/index.js'
import { Contested, learn, Strays } from '../../lib/overlay/mappings.js'
import { PortSource } from '../../lib/overlay/peers.js'
import { type MappingFields, mappings, ModelNat } from './heard.js'
import { converge, form, LOCAL, portsOf, wish, world } from './model.js'
import { fair, ModelPorts } from './stories.js'

const [A, B] = ['10.0.0.2', '10.0.0.3'] as const
/** Peers whose inbound SPIs at 10.0.0.1 are one under tag 1. */
const TWINS = ['47.214.176.99', '3.143.180.106'] as const

function learned(peers: readonly string[], ...told: MappingFields[]) {
  const w = world(form({ natPort: 4500 }), [1, 2])
  const slots = wish(w, ...peers)
  converge(w)
  const given = (slot: number, port: number) => {
    w.is.peers.port[slot] = port
    w.is.peers.portSource[slot] = PortSource.given
  }
  return { w, slots, given, learn: () => learn(mappings(...told), w.is, w.should.form) }
}

test('another port of the same address is followed, once however often it is told', () => {
  const {
    w,
    slots,
    learn: take,
  } = learned([A, B], { peer: A, from: A, port: 31000 }, { peer: A, from: A, port: 31234, tag: 2 })
  expect(take()).toEqual({ slots: [slots[0]], mappings: [{ peer: A, address: A, port: 31234, followed: true }] })
  expect([w.is.peers.port[slots[0]!], w.is.peers.port[slots[1]!]]).toEqual([31234, 4500])
  converge(w, { peers: [slots[0]!] })
  expect(take().slots).toEqual([slots[0]])
  converge(w)
  expect([...w.kernel.states.values()].filter((state) => portsOf(state)!.includes(31234))).toHaveLength(3)
})

test('what was refused is tried when it is told again', () => {
  const { w, slots, learn: take } = learned([A], { peer: A, from: A, port: 31234 })
  take()
  converge(w, {}, () => true)
  expect(take()).toEqual({ slots, mappings: [] })
  converge(w)
  expect(take()).toEqual({ slots: [], mappings: [] })
})

test.each([
  ['another address', { peer: A, from: '198.51.100.7', port: 31234 }],
  ["another peer's address", { peer: A, from: B, port: 31234 }],
  ["VXLAN's port", { peer: A, from: A, port: 4789 }],
])('%s is told of and not followed', (_, told) => {
  const { w, learn: take } = learned([A, B], told)
  expect(take()).toEqual({ slots: [], mappings: [{ peer: A, address: told.from, port: told.port, followed: false }] })
  expect([...w.is.peers.port.subarray(0, 2)]).toEqual([4500, 4500])
})

test('a port that was given stays', () => {
  const { w, slots, given, learn: take } = learned([A], { peer: A, from: A, port: 31234 })
  given(slots[0]!, 41000)
  expect(take()).toEqual({ slots: [], mappings: [{ peer: A, address: A, port: 31234, followed: false }] })
  expect(w.is.peers.port[slots[0]!]).toBe(41000)
})

test.each([
  ['of an SA that is none of ours', { peer: A, from: A, port: 31234, reqid: 7 }],
  ['of another address here', { peer: A, from: A, port: 31234, local: '10.0.0.99' }],
  ['of no peer', { peer: '10.0.0.77', from: '10.0.0.77', port: 31234 }],
  ['of no key', { peer: A, from: A, port: 31234, tag: 9 }],
])('what is told %s is none of our business', (_, told) => {
  expect(learned([A], told).learn()).toEqual({ slots: [], mappings: [] })
})

test('of an SA that two share, the sender is told by its address', () => {
  const told = [
    { peer: TWINS[0], from: TWINS[1], port: 4500 },
    { peer: TWINS[0], from: TWINS[1], port: 31234 },
  ]
  const { w, slots, learn: take } = learned(TWINS, ...told)
  expect(take()).toEqual({
    slots: [slots[1]],
    mappings: [{ peer: TWINS[1], address: TWINS[1], port: 31234, followed: true }],
  })
  expect(w.is.peers.port[slots[0]!]).toBe(4500)
})

test('a stray is news once, and for as long as it is told, wanted and not followed', () => {
  const strays = new Strays()
  const away: Mapping = { peer: A, address: '198.51.100.7', port: 1, followed: false }
  expect(strays.note([away], 0)).toEqual([away])
  expect(strays.note([away], 50_000)).toEqual([])
  expect(strays.list(() => true, 100_000)).toEqual([away])
  expect(strays.list(() => true, 111_000)).toEqual([])
  expect(strays.note([away, { ...away, port: 2 }], 111_000)).toHaveLength(2)
  expect(strays.list(() => false, 111_000)).toEqual([])
  strays.note([away], 111_000)
  strays.note([{ ...away, followed: true }], 111_000)
  expect(strays.list(() => true, 111_000)).toEqual([])
})

test('a port that goes to and fro is contested; one that changes once in a while is not', () => {
  const contested = new Contested()
  let now = 0
  const come = (milliseconds: number, ...ports: number[]) => {
    for (const port of ports) contested.note([{ peer: A, address: A, port, followed: true }], (now += milliseconds))
    return contested.list(() => true, now)
  }
  // A NAT that starts anew, and again, and one that has two mappings by turns, a day each.
  expect(come(100, 31000, 31001, 31002, 31003, 31004)).toEqual([])
  expect(come(61_000, 31001, 31002, 31001, 31002, 31001, 31002)).toEqual([])
  expect(come(100, 4500, 31000, 4500, 31000)).toEqual([])
  contested.note([{ peer: A, address: B, port: 4500, followed: false }], now)
  expect(contested.list(() => true, now)).toEqual([])
  expect(come(100, 4500)).toEqual([{ peer: A, ports: [4500, 31000] }])
  expect(contested.list(() => true, now + 60_000)).toHaveLength(1)
  expect(contested.list(() => true, now + 60_001)).toEqual([])
  come(100, 4500, 31000, 4500, 31000, 4500)
  expect(contested.list(() => false, now)).toEqual([])
  expect(contested.list(() => true, now)).toEqual([])
})

test('a port that changes ten times in a minute is contested, wherever it goes', () => {
  const contested = new Contested()
  let now = 0
  const come = (milliseconds: number, ...ports: number[]) => {
    for (const port of ports) contested.note([{ peer: A, address: A, port, followed: true }], (now += milliseconds))
    return contested.list(() => true, now)
  }
  // Who sends again, from a port of his choice each time, what he has caught; the peer's own packets come between.
  const replayed = (count: number) => Array.from({ length: count }, (_, i) => [4500, 40_000 + i]).flat()
  expect(come(6000, ...replayed(5))).toEqual([{ peer: A, ports: [4500, 40_004] }])
  expect(come(7000, ...replayed(20))).toEqual([])
  expect(come(6000, ...replayed(6))).toEqual([{ peer: A, ports: [4500, 40_005] }])
})

test('what is a minute old is forgotten, whether or not anybody asks', () => {
  const away: Mapping = { peer: A, address: '198.51.100.7', port: 1, followed: false }
  const strays = new Strays()
  expect(strays.note([away, { ...away, peer: B }], 0)).toHaveLength(2)
  expect(strays.note([away], 50_000)).toEqual([])
  strays.note([], 100_000)
  expect([strays.size, strays.note([away], 100_000)]).toEqual([1, []])
  strays.note([], 160_001)
  expect(strays.size).toBe(0)
  const contested = new Contested()
  for (const [peer, now] of [
    [A, 0],
    [B, 1],
    [A, 50_000],
    ['10.0.0.4', 100_000],
  ] as const) {
    contested.note([{ peer, address: peer, port: now + 1, followed: true }], now)
  }
  expect(contested.size).toBe(2)
})

async function opened(nat: NatOptions, peers: PeerInput[]) {
  const ports = new ModelPorts()
  const { mappings: heard } = (ports.nat = new ModelNat())
  const overlay = Overlay.over({ local: LOCAL, nat }, ports)
  await overlay.setKeys([{ tag: 1, value: new Uint8Array(16) }])
  await overlay.addPeers(peers)
  return { ports, heard, overlay }
}

test('an overlay follows, says so, and keeps the port through a rotation', async () => {
  const told: Mapping[] = []
  const { ports, heard, overlay } = await opened({ onMapping: (mapping) => told.push(mapping) }, [
    A,
    { address: B, port: 41000 },
  ])
  heard.tell({ peer: A, from: A, port: 31234 }, { peer: B, from: B, port: 1000 })
  await vi.waitFor(() => expect(told).toHaveLength(2))
  expect(overlay.peers.get(A)).toMatchObject({ state: 'active', port: { number: 31234, from: 'learned' } })
  expect(await overlay.status()).toMatchObject({
    nat: {
      following: true,
      ports: { assumed: 0, given: 1, learned: 1 },
      strays: [{ peer: B, address: B, port: 1000 }],
    },
    degraded: [
      expect.stringContaining(
        `packets of 1 peers come from elsewhere than ESP to them goes (${B} from ${B} port 1000)`,
      ),
    ],
  })
  await overlay.updateKeys({ add: { tag: 2, value: new Uint8Array(16).fill(2) }, primary: 2, prune: 1 })
  expect(ports.kernel.outboundTo(A).map(portsOf)).toEqual([[4500, 31234]])
  expect((await overlay.reconcile()).plan).toEqual([])
})

test.each([1, 2])(
  'while the kernel refuses an update, be it number %i, the peer is degraded, and it tells again',
  async (refused) => {
    const { ports, heard, overlay } = await opened({}, [A])
    const inbound = () => ports.kernel.outboundTo(LOCAL).map(portsOf)
    let messages = 0
    ports.weather = { ...fair, refuses: () => ++messages === refused }
    heard.tell({ peer: A, from: A, port: 31234 })
    await vi.waitFor(() => expect(overlay.peers.get(A)?.state).toBe('degraded'))
    // It tells for as long as packets come from another port than this.
    expect(inbound()).toEqual([[4500, 4500]])
    heard.tell({ peer: A, from: A, port: 31234 })
    await vi.waitFor(() => expect(overlay.peers.get(A)?.state).toBe('active'))
    expect(inbound()).toEqual([[31234, 4500]])
    expect(ports.kernel.outboundTo(A).map(portsOf)).toEqual([[4500, 31234]])
  },
)

test('two nodes behind one address, each added by that alone, are told of with both ports', async () => {
  const { heard, overlay } = await opened({}, [A, A])
  for (const port of [31000, 4500, 31000, 4500, 31000]) {
    expect((await overlay.status()).degraded).toEqual([])
    heard.tell({ peer: A, from: A, port })
    await vi.waitFor(() => expect(overlay.peers.get(A)?.port?.number).toBe(port))
  }
  await vi.waitFor(async () =>
    expect(await overlay.status()).toMatchObject({
      nat: { contested: [{ peer: A, ports: [4500, 31000] }] },
      degraded: [expect.stringContaining(`changes again and again (${A}: of late 4500 and 31000)`) as string],
    }),
  )
})

test('a change of many is one turn of work, and nothing is followed once it is closed', async () => {
  const { ports, heard, overlay } = await opened({}, [A])
  const { operations } = ports
  heard.tell(...Array.from({ length: 200 }, (_, i) => ({ peer: A, from: A, port: 20_000 + i })))
  await vi.waitFor(() => expect(overlay.peers.get(A)?.port?.number).toBe(20_199))
  expect(ports.operations - operations).toBe(2)
  await overlay.close()
  heard.tell({ peer: A, from: A, port: 31234 })
  await sleep(150)
  expect(ports.operations - operations).toBe(2)
})
