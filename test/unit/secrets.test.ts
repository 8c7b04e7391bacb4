import { expect, test, vi } from 'vitest'
import { deriveSpi, Key, Overlay, type OverlayOptions } from '../../lib/index.js'
import { XfrmBatch } from '../../lib/kernel/xfrm.js'
import { everythingSaid, secret, traces } from './secrets.js'
import { ModelPorts, PEERS } from './stories.js'

/** Nothing that is printed, thrown or told shows a key: not whole, and not six bytes of it. */

const keys = [secret(16, 1), secret(32, 2), secret(16, 3), secret(20, 4)]

function expectNoTrace(text: string): void {
  for (const key of keys) expect(traces(key, text)).toEqual([])
}

test('a trace of a key is found in each form it could have', () => {
  const [key] = keys as [Uint8Array]
  for (const form of ['hex', 'base64', 'base64url', 'latin1'] as const) {
    expect(traces(key, `key: ${Buffer.from(key).toString(form)}!`)).not.toEqual([])
  }
  expect(traces(key, everythingSaid(key))).not.toEqual([])
  expect(traces(key, everythingSaid({ value: Buffer.from(key) }))).not.toEqual([])
})

test('an Overlay, what it returns, throws and reports', async () => {
  const said: string[] = []
  const say = (value: unknown) => said.push(everythingSaid(value))
  const written = vi.spyOn(process.stdout, 'write').mockImplementation((chunk) => said.push(String(chunk)) > 0)
  const complained = vi.spyOn(process.stderr, 'write').mockImplementation((chunk) => said.push(String(chunk)) > 0)
  const attempt = (work: Promise<unknown>) => work.then(say, say)
  try {
    const ports = new ModelPorts()
    const options: OverlayOptions = { local: '10.0.0.1', policies: 'per-peer' }
    const overlay = Overlay.over(options, ports)
    const [first, second, third, odd] = keys as [Uint8Array, Uint8Array, Uint8Array, Uint8Array]
    await attempt(
      overlay.setKeys([
        { tag: 1, value: first },
        { tag: 2, value: second },
      ]),
    )
    await attempt(overlay.addPeers(PEERS, { onProgress: say }))
    say(overlay)
    say(overlay.peers.get(PEERS[0]!))
    say([...overlay.peers])
    await attempt(overlay.status())
    await attempt(overlay.updateKeys({ add: { tag: 1, value: third } }))
    await attempt(overlay.updateKeys({ add: { tag: 3, value: odd } }))
    const hex = Buffer.from(third).toString('hex')
    for (const wrong of [
      hex,
      Buffer.from(third).toString('base64'),
      [...third],
      { data: third },
      Buffer.from(third).buffer,
    ]) {
      await attempt(overlay.setKeys([{ tag: 9, value: wrong as never }]))
      await attempt(overlay.updateKeys({ add: { tag: wrong as never, value: third } }))
      await attempt(overlay.updateKeys({ add: wrong as never }))
      await attempt(overlay.setKeys(wrong as never))
    }
    ports.weather = { refuses: () => true, breaks: () => undefined }
    await attempt(overlay.updateKeys({ add: { tag: 3, value: third }, primary: 3 }))
    ports.weather = { refuses: () => false, breaks: () => 0 }
    await attempt(overlay.reconcile())
    ports.weather = { refuses: () => false, breaks: () => undefined }
    ports.kernel.states.clear()
    await attempt(overlay.reconcile({ dryRun: true }))
    await attempt(overlay.close({ flush: true }))
  } finally {
    written.mockRestore()
    complained.mockRestore()
  }
  expect(said.join().length).toBeGreaterThan(1000)
  expectNoTrace(said.join('\n'))
})

test('a batch for the SAD, and its refusals', () => {
  const [key, , , salted] = keys as [Uint8Array, Uint8Array, Uint8Array, Uint8Array]
  const said: string[] = []
  const batch = new XfrmBatch()
  const state = {
    source: '10.0.0.1',
    destination: '10.0.0.2',
    spi: deriveSpi('10.0.0.1', '10.0.0.2', 1),
    protocol: 'esp' as const,
  }
  const aead = { name: 'rfc4106(gcm(aes))', key: salted, icvBits: 64 }
  batch.addState({ ...state, mode: 'transport', reqid: 1, aead })
  for (const wrong of [Buffer.from(key).toString('hex'), [...key], { key }]) {
    for (const spec of [
      { ...state, aead: { ...aead, key: wrong } },
      { ...state, aead: { ...aead, name: wrong } },
      { ...state, encryption: wrong },
      { ...state, reqid: wrong, aead },
    ]) {
      try {
        batch.addState(spec as never)
      } catch (error) {
        said.push(everythingSaid(error))
      }
    }
  }
  said.push(everythingSaid(batch), everythingSaid(new Key(key)))
  // All but one were refused: hex may be an algorithm's name, for all that can be told.
  expect(said.length).toBe(3 * 4 - 1 + 2)
  expectNoTrace(said.join('\n'))
})
