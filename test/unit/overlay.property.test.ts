import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  Aborted,
  deriveSpi,
  InvalidArgument,
  InvalidState,
  Overlay,
  PartialFailure,
  XfrmeshError,
} from '../../lib/index.js'
import { call, fair, LOCAL, ModelPorts, PEERS, TAGS, tell, type Weather, Wish } from './stories.js'

/**
 * Whatever is asked of an Overlay in whatever order, and whatever of it the kernel refuses or never answers: what is
 * wanted is counted right, and in fair weather one reconcile() makes the kernel just that.
 */

const options = fc.record({
  policies: fc.constantFrom('shared' as const, 'per-peer' as const),
  exclusive: fc.boolean(),
  replayWindow: fc.constantFrom(0, 0, 32),
})
const weather = fc.record({
  refusals: fc.constantFrom(0, 0, 20, 120),
  break: fc.constantFrom(0, 0, 60),
  draws: fc.uint8Array({ minLength: 64, maxLength: 64 }),
})
const story = fc.array(fc.tuple(call, weather), { minLength: 1, maxLength: 20 })

function weatherOf({
  refusals,
  break: chance,
  draws,
}: {
  refusals: number
  break: number
  draws: Uint8Array
}): Weather {
  let next = 0
  const draw = () => draws[next++ % draws.length]!
  return {
    refuses: () => draw() < refusals,
    breaks: (messages) => (draw() < chance ? draw() % (messages + 1) : undefined),
  }
}

test('random calls on an Overlay, refused, broken off and restarted', { timeout: 600_000 }, async () => {
  let broken = 0
  let refused = 0
  await fc.assert(
    fc.asyncProperty(options, story, fc.nat(20), async (chosen, calls, restart) => {
      const ports = new ModelPorts()
      let overlay = Overlay.over({ local: LOCAL, ...chosen }, ports)
      let wish = new Wish()
      for (const [i, [each, conditions]] of calls.entries()) {
        if (i === restart) {
          // A new process: what the old one left is there, and nothing of what it wanted is known.
          overlay = Overlay.over({ local: LOCAL, ...chosen }, ports)
          wish = new Wish()
        }
        ports.weather = weatherOf(conditions)
        let ended: unknown
        try {
          ended = await tell(overlay, each)
        } catch (error) {
          if (!(error instanceof XfrmeshError && error.code === 'ERR_XFRMESH_TIMEOUT')) throw error
          broken++
        }
        if (ended instanceof PartialFailure) refused++
        ports.weather = fair
        wish.follow(each, ended)
        expect(overlay.peers.size).toBe(wish.references.size)
        for (const [peer, references] of wish.references) expect(overlay.peers.get(peer)?.references).toBe(references)
        expect([...overlay.networks].sort()).toEqual([...wish.networks].sort())
        expect((await overlay.status()).keys).toEqual(wish.keys)
        // A guard never waits for anything else, and goes for nothing else.
        if (!(ended instanceof PartialFailure)) for (const vni of wish.networks) expect(ports.guarded).toContain(vni)
      }
      await expectReconciled(overlay, ports, wish)
      await overlay.close({ flush: true })
      expect([ports.kernel.states.size, ports.kernel.policies.size, ports.guarded.size]).toEqual([0, 0, 0])
    }),
    { numRuns: 2000 },
  )
  expect(refused).toBeGreaterThan(0)
  expect(broken).toBeGreaterThan(0)
})

/** Reconciles until nothing is left to do, and compares with what should be, derived anew. */
async function expectReconciled(overlay: Overlay, ports: ModelPorts, wish: Wish): Promise<void> {
  // What collides fails, and goes on to; a retired key in its way may have to go first.
  let failures: string[] = []
  for (let i = 0; i < 3; i++) {
    failures = []
    await overlay.reconcile().catch((error: unknown) => {
      if (!(error instanceof PartialFailure)) throw error
      failures = error.report.failures.map(({ code, subject }) => {
        expect(code).toMatch(/^ERR_XFRMESH_SPI_(COLLISION|RESERVED)$/)
        return subject
      })
    })
  }
  const [primary] = wish.keys
  const expected = new Set<string>()
  for (const peer of wish.references.keys()) {
    if (failures.includes(peer)) continue
    for (const tag of wish.keys) expected.add(`${LOCAL} ${deriveSpi(peer, LOCAL, tag)}`)
    if (primary !== undefined) expected.add(`${peer} ${deriveSpi(LOCAL, peer, primary)}`)
  }
  const found = [...ports.kernel.states.keys()].filter((id) => !failures.some((peer) => isOf(id, peer)))
  expect(new Set(found)).toEqual(new Set([...expected].filter((id) => !failures.some((peer) => isOf(id, peer)))))
  expect(new Set(ports.guarded)).toEqual(wish.networks)
  const status = await overlay.status()
  expect(new Set(status.peers.degraded)).toEqual(new Set(failures))
  if (failures.length > 0) return
  const { plan } = await overlay.reconcile({ dryRun: true })
  expect(plan).toEqual([])
}

/** Whether it is one of that peer's SAs, under whatever key: a peer that can't have its new ones keeps its old ones. */
function isOf(id: string, peer: string): boolean {
  return id.startsWith(`${peer} `) || TAGS.some((tag) => id === `${LOCAL} ${deriveSpi(peer, LOCAL, tag)}`)
}

test('what is there already takes no message and no look', async () => {
  const ports = new ModelPorts()
  const overlay = Overlay.over({ local: LOCAL }, ports)
  await overlay.setKeys([{ tag: 1, value: new Uint8Array(16) }])
  await overlay.addPeers(PEERS.slice(0, 2))
  const { operations, reads } = ports
  expect(await overlay.addPeers([...PEERS.slice(0, 2), PEERS[0]!])).toMatchObject({
    requested: 3,
    applied: 0,
    unchanged: 3,
  })
  expect([ports.operations, ports.reads]).toEqual([operations, reads])
  expect(overlay.peers.get(PEERS[0]!)?.references).toBe(3)
})

test('an abort says what was applied, and reconcile completes it', async () => {
  const ports = new ModelPorts()
  const overlay = Overlay.over({ local: LOCAL }, ports)
  await overlay.setKeys([{ tag: 1, value: new Uint8Array(16) }])
  const peers = Array.from({ length: 5000 }, (_, i) => `10.7.${i >> 8}.${i & 0xff}`)
  const controller = new AbortController()
  const adding = overlay.addPeers(peers, { signal: controller.signal, onProgress: () => controller.abort('enough') })
  const error = await adding.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(Aborted)
  const { report, cause } = error as Aborted
  expect(cause).toBe('enough')
  expect(report?.operations).toBe(ports.operations)
  expect(report!.operations).toBeLessThan(10_001)
  expect(overlay.peers.get(peers.at(-1)!)?.state).toBe('degraded')
  await overlay.reconcile()
  expect(ports.kernel.states.size).toBe(10_000)
  expect((await overlay.status()).degraded).toEqual([])
})

test('a call that is refused changes nothing', async () => {
  const ports = new ModelPorts()
  const overlay = Overlay.over({ local: LOCAL }, ports)
  await expect(overlay.addPeers(['10.0.0.2'])).rejects.toThrow(InvalidState)
  await overlay.setKeys([{ tag: 1, value: new Uint8Array(16) }])
  for (const bad of [
    '10.0.0',
    'fd00::1',
    '0.0.0.0',
    '224.0.0.1',
    '255.255.255.255',
    '10.0.0.1',
    'fe80::1%eth0',
    '10.0.0.2/32',
  ]) {
    await expect(overlay.addPeers(['10.0.0.2', bad]), bad).rejects.toThrow(InvalidArgument)
  }
  expect(overlay.peers.size).toBe(0)
  await expect(overlay.addNetworks([1, 0x1000000])).rejects.toThrow(
    'networks[1] must be an integer from 0 to 16777215, not 16777216',
  )
  for (const bad of [-1, 0x1000000, 1.5, Number.NaN, '1' as unknown as number]) {
    await expect(overlay.addNetworks([1, bad]), String(bad)).rejects.toThrow(InvalidArgument)
    await expect(overlay.removeNetworks([bad]), String(bad)).rejects.toThrow(InvalidArgument)
  }
  await expect(overlay.addPeers('10.0.0.2')).rejects.toThrow(InvalidArgument)
  expect(overlay.networks.size).toBe(0)
  expect(ports.operations).toBe(0)
})
