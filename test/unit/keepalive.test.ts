import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type NatOptions, Overlay, type PeerInput } from '../../lib/index.js'
import { ModelNat } from './heard.js'
import { LOCAL } from './model.js'
import { ModelPorts } from './stories.js'

beforeEach(() => void vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] }))
afterEach(() => void vi.useRealTimers())

async function opened(nat: NatOptions, peers: PeerInput[]) {
  const ports = new ModelPorts()
  const socket = (ports.nat = new ModelNat())
  const overlay = Overlay.over({ local: LOCAL, nat }, ports)
  await overlay.setKeys([{ tag: 1, value: new Uint8Array(16) }])
  await overlay.addPeers(peers)
  const seconds = async (count: number) => {
    for (let i = 0; i < count; i++) {
      vi.advanceTimersByTime(1000)
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  return { socket, overlay, seconds }
}

const PEERS = Array.from({ length: 10 }, (_, i) => ({ address: `10.0.0.${i + 2}`, port: 1000 + i }))

test('each peer gets one in its turn, at its own port, a part of them each second', async () => {
  const { socket, overlay, seconds } = await opened({ keepalive: 3 }, PEERS)
  await overlay.removePeers(['10.0.0.2'])
  await seconds(6)
  const round = [
    [1003, 1006, 1009],
    [1001, 1004, 1007],
    [1002, 1005, 1008],
  ]
  expect(socket.keptAlive).toEqual([...round, ...round])
  expect((await overlay.status()).nat?.keepalives).toEqual({ seconds: 3, sent: 18, failed: 0 })
  await overlay.close()
  await seconds(3)
  expect(socket.keptAlive).toHaveLength(6)
})

test('with 0 there are none', async () => {
  const { socket, seconds } = await opened({ keepalive: 0 }, PEERS)
  await seconds(30)
  expect(socket.keptAlive).toEqual([])
})

test('what can not be sent is told, until it can', async () => {
  const { socket, overlay, seconds } = await opened({ keepalive: 1 }, PEERS)
  socket.failing = 2
  await seconds(1)
  const { nat, degraded } = await overlay.status()
  expect(nat?.keepalives).toEqual({ seconds: 1, sent: 8, failed: 2, error: 'ENETUNREACH' })
  expect(degraded).toEqual([expect.stringContaining("keepalives can't be sent to all peers (ENETUNREACH)") as string])
  socket.failing = 0
  await seconds(1)
  expect((await overlay.status()).degraded).toEqual([])
})
