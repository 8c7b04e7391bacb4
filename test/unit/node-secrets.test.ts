import { type FileHandle, mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { Session } from 'node:inspector/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { Key } from '../../lib/base/key.js'
import { attributeAt, isPolicyRecord, recordLength, startsOf } from '../../lib/kernel/record-identity.js'
import { words } from '../../lib/kernel/record-parts.js'
import { LITTLE_ENDIAN, RecordWriter, State, WITHHELD_KEY } from '../../lib/kernel/records.js'
import { Ending } from '../../lib/kernel/xfrm-channel.js'
import { XFRMA } from '../../lib/kernel/xfrm-names.js'
import { Belonging } from '../../lib/node/belonging.js'
import { KeyDeriver } from '../../lib/node/derive.js'
import { carryOut } from '../../lib/node/executor.js'
import { NodeEncryption, type NodeKeys, parseKeys, watchKeysFile } from '../../lib/node/index.js'
import { NodeKeyring } from '../../lib/node/keyring.js'
import { ObjectWriter } from '../../lib/node/objects.js'
import { appendGeneral, Overlaps } from '../../lib/node/overlap.js'
import type { Phase } from '../../lib/node/plan.js'
import type { XfrmPort } from '../../lib/node/port.js'
import { Sequences } from '../../lib/node/sequences.js'
import { remote, settings } from '../../lib/node/settings.js'
import { bootId, keysOf, late, NodeKernel, Process } from './node-kernel.js'

/** Whatever goes wrong, no copy of a key is left behind that nobody holds. */

afterEach(() => {
  vi.restoreAllMocks()
  vi.unstubAllGlobals()
})

const KEY_BYTES = 20
const zeros = (length: number) => new Uint8Array(length)

/** The buffers of a key's size that are made while the work goes on: each copy of a key lies in one of its own. */
async function buffersDuring(work: () => unknown): Promise<Uint8Array[]> {
  const made: ArrayBuffer[] = []
  class Told extends ArrayBuffer {
    constructor(length: number) {
      super(length)
      if (length === KEY_BYTES) made.push(this)
    }
  }
  vi.stubGlobal('ArrayBuffer', Told)
  try {
    await work()
  } finally {
    vi.unstubAllGlobals()
  }
  return made.map((buffer) => new Uint8Array(buffer))
}

function expectWiped(buffers: readonly Uint8Array[], least: number): void {
  expect(buffers.length).toBeGreaterThanOrEqual(least)
  for (const buffer of buffers) expect(buffer).toEqual(zeros(buffer.length))
}

/** The keys that a kernel gives out from here on. */
function handedBy(kernel: NodeKernel): Uint8Array[] {
  const handed: Uint8Array[] = []
  const read = kernel.read.bind(kernel)
  kernel.read = async (query) => {
    const found = await read(query)
    handed.push(...found.keys)
    return found
  }
  return handed
}

describe('a look at the kernel', () => {
  const kernelWith = async (...numbers: number[]) => {
    const kernel = new NodeKernel()
    await new Process(kernel, 3).upsert(numbers)
    return kernel
  }

  test('that fails, wherever it does', async () => {
    const shown: number[] = []
    for (let nth = 1; ; nth++) {
      const kernel = await kernelWith(2)
      const handed = handedBy(kernel)
      let reads = 0
      kernel.before = (call) => {
        if (call === 'read' && ++reads === nth) throw late()
      }
      const looked = await new Process(kernel, 3).mesh.look().then(
        () => true,
        () => false,
      )
      if (looked) break
      expectWiped(handed, 0)
      shown.push(handed.length)
    }
    // Policies come first; keys with the SAs, of which those for the overlay come last.
    expect(shown).toEqual([0, 0, 0, 2])
  })

  test('of which nodes have taken all', async () => {
    const kernel = await kernelWith(2, 5)
    const handed = handedBy(kernel)
    const one = new Process(kernel, 3)
    expect(await one.upsert([2, 5])).toMatchObject({ operations: 0 })
    expectWiped(handed, 4)
  })
})

describe('keys that are prepared and refused', () => {
  test('for an id in use, or because they are here already', async () => {
    const ring = new NodeKeyring(keysOf(3))
    const [other, same] = [keysOf(3, 1), keysOf(3)]
    expectWiped(await buffersDuring(() => expect(() => ring.prepare(other)).toThrow(/in use/)), 1)
    expectWiped(await buffersDuring(() => ring.prepare(same)), 1)
  })

  test('a call that is refused changes nothing: what was prepared halfway is still there', () => {
    const ring = new NodeKeyring(keysOf(3))
    ring.prepare(keysOf(4))
    expect(() => ring.prepare(keysOf(3, 1))).toThrow(/in use/)
    expect([ring.current, ring.next, ring.ids]).toEqual([3, 4, [3, 4]])
    ring.prepared()
    ring.commit()
    expect(ring.key(4, 'any')?.aead?.key.length).toBe(KEY_BYTES)
  })

  test.each<[what: string, change: (keys: NodeKeys) => unknown]>([
    [
      'a later one of which is none',
      ({ keys }) => [keys[0], { ...keys[1], aead: { name: 'rfc', key: 'x', icvBits: 128 } }],
    ],
    ['without a cipher', ({ keys }) => [keys[0], { id: 4, auth: keys[0]!.aead }]],
  ])('%s', async (_, change) => {
    const line = `4 rfc4106(gcm(aes)) ${'ab'.repeat(KEY_BYTES)} 128`
    const keys = parseKeys(line)
    const broken = { ...keys, keys: change({ ...keys, keys: [...keys.keys, ...keys.keys] }) }
    const buffers = await buffersDuring(() => {
      expect(() => new NodeKeyring(broken)).toThrow(/options\.keys must be what loadKeysFile\(\) or parseKeys\(\) gave/)
    })
    expectWiped(buffers, 0)
  })
})

test('a node’s encryption that cannot be opened', async () => {
  const keys = keysOf(3)
  const local = { addresses: ['192.0.2.1'], bootId: bootId(1) }
  const buffers = await buffersDuring(() =>
    expect(NodeEncryption.open({ local, keys, netns: '/nowhere/netns' })).rejects.toThrow(/nowhere/),
  )
  expectWiped(buffers, 1)
})

/** Two states of ours, each behind another tool's more general one. */
function overlapped() {
  const given = settings({
    local: { addresses: ['192.0.2.1', '2001:db8::1'], bootId: bootId(1) },
    keys: keysOf(3),
    marks: 'cilium',
  }).settings
  const node = { name: 'b', addresses: ['192.0.2.2', '2001:db8::2'], bootId: bootId(2), id: 7 }
  const keyring = new NodeKeyring(keysOf(3))
  const belonging = new Belonging(given)
  const into = new RecordWriter()
  const far = remote(node, 'node', given)
  new ObjectWriter(given, keyring).node(into, far, 1, [3])
  const all = into.take()
  const inbound = startsOf(all)
    .filter((at) => !isPolicyRecord(all, at) && belonging.isInbound(all, at))
    .map((at) => all.slice(at, at + recordLength(all, at)))
  const theirs = inbound.map((record) => {
    const general = record.slice()
    general.set(words(0xd00, 0xf00), attributeAt(general, 0, XFRMA.MARK))
    new DataView(general.buffer).setUint32(State.cipherKey, 0, LITTLE_ENDIAN)
    return general
  })
  const generals = new RecordWriter()
  for (const record of theirs) appendGeneral(generals, record, 0)
  const records = new Uint8Array(Buffer.concat(inbound))
  const phase: Phase = { name: 'decrypt', records, owners: inbound.map(() => 5) }
  return { given, far, keyring, belonging, inbound, theirs, generals: generals.take(), phase }
}

/** A port that shows these, one after the other, each with a key. */
function showing(records: readonly (Uint8Array | undefined)[]) {
  const keys: Uint8Array[] = []
  const port = {
    chunk: 64,
    read: () => {
      const found = records[keys.length]
      if (found === undefined) return Promise.reject(late())
      const key = new Uint8Array(KEY_BYTES).fill(keys.length + 1)
      keys.push(key)
      const none = { ending: Ending.complete, errno: 0, message: undefined, algorithms: [] }
      return Promise.resolve({ ...none, records: found.slice(), keys: [key] })
    },
    commit: () => Promise.reject(late()),
  } as unknown as XfrmPort
  return { port, keys }
}

describe("another tool's key, of an SA in the way of ours", () => {
  const { given, far, keyring, belonging, inbound, theirs, generals, phase } = overlapped()
  const withheld = theirs[0]!.slice()
  new DataView(withheld.buffer).setUint32(State.authKey, WITHHELD_KEY, LITTLE_ENDIAN)

  test.each([
    ['is another SA after all', inbound[0]!],
    ['is not all shown', withheld],
  ])('where what is there %s', async (_, shown) => {
    const { port, keys } = showing([shown, shown])
    const parts = await new Overlaps(port, keyring, generals).part(phase)
    expect(parts.map(({ keys }) => keys)).toEqual([undefined, undefined, undefined])
    expectWiped(keys, 2)
  })

  test('where the next one cannot be read', async () => {
    const { port, keys } = showing([theirs[0]!, undefined])
    await expect(new Overlaps(port, keyring, generals).part(phase)).rejects.toThrow(/out of time/)
    expectWiped(keys, 1)
  })

  test('where its turn never comes', async () => {
    const { port, keys } = showing(theirs)
    const deriver = new KeyDeriver(given, keyring, belonging)
    const overlaps = new Overlaps(port, keyring, generals)
    const { algorithms } = keyring
    const node = (owner: number) => (owner === 5 ? far : undefined)
    const owners = { belonging, deriver, sequences: new Sequences(), overlaps, algorithms, node, name: String }
    const plan = { phases: [phase], operations: 2, after: new Map() }
    await expect(carryOut(port, plan, owners, {})).rejects.toThrow(/out of time/)
    expectWiped(keys, 2)
  })
})

test('keys derived for a slice that cannot be completed', async () => {
  const one = new Process(new NodeKernel(), 3)
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called with its own
  const { fill } = KeyDeriver.prototype
  let calls = 0
  vi.spyOn(KeyDeriver.prototype, 'fill').mockImplementation(function (this: KeyDeriver, ...given) {
    if (++calls === 2) throw new Error('no more')
    return fill.apply(this, given)
  })
  const entries = one.want([2])
  const buffers = await buffersDuring(() => expect(one.mesh.follow(entries, {})).rejects.toThrow('no more'))
  expectWiped(buffers, 2)
})

test.each<[what: string, text: string, keys: number]>([
  ['a later line', `3 rfc4106(gcm(aes)) ${'ab'.repeat(KEY_BYTES)} 128\nbad`, 1],
  ['a later field', `3 hmac(sha1) ${'ab'.repeat(KEY_BYTES)} cbc(aes) xyz`, 1],
  ['a later number', `3 rfc4106(gcm(aes)) ${'ab'.repeat(KEY_BYTES)} 127`, 1],
  ['an id that comes back', `3 rfc4106(gcm(aes)) ${'ab'.repeat(KEY_BYTES)} 128\n`.repeat(2), 2],
])('keys of a file that is not usable for %s', async (_, text, keys) => {
  expectWiped(await buffersDuring(() => expect(() => parseKeys(text)).toThrow()), 2 * keys)
})

describe('a file that is watched', () => {
  const listener = { onKeys: () => undefined, onError: () => undefined }
  const withFile = async (work: (path: string, hex: string) => Promise<void>) => {
    const directory = await mkdtemp(join(tmpdir(), 'xfrmesh-secrets-'))
    try {
      const hex = 'cd'.repeat(KEY_BYTES)
      await writeFile(join(directory, 'keys'), `3 rfc4106(gcm(aes)) ${hex} 128\n`)
      await work(join(directory, 'keys'), hex)
    } finally {
      await rm(directory, { recursive: true })
    }
  }

  test('its text is not kept', () =>
    withFile(async (path, hex) => {
      await using watched = await watchKeysFile(path, listener)
      const fields = await privateFields(watched)
      expect(fields).toContain('/keys')
      expect(fields).not.toContain(hex)
    }))

  test('what was read is wiped though the look at it after that fails', () =>
    withFile(async (path) => {
      const handle = await open(path)
      const prototype = Object.getPrototypeOf(handle) as FileHandle
      await handle.close()
      const read: Uint8Array[] = []
      // eslint-disable-next-line @typescript-eslint/unbound-method -- called with its own
      const { readFile, stat } = prototype
      vi.spyOn(prototype, 'readFile').mockImplementation(async function (this: FileHandle) {
        const bytes = await readFile.call(this)
        read.push(bytes as Uint8Array)
        return bytes
      })
      vi.spyOn(prototype, 'stat').mockImplementation(function (this: FileHandle, options) {
        if (read.length > 0) return Promise.reject(new Error('gone'))
        return stat.call(this, options)
      })
      await expect(watchKeysFile(path, listener)).rejects.toThrow('gone')
      expect(read.map((bytes) => new Uint8Array(bytes))).toEqual([zeros(read[0]!.length)])
    }))
})

/** What a debugger shows of an object's private fields. */
async function privateFields(of: object): Promise<string> {
  const session = new Session()
  session.connect()
  try {
    vi.stubGlobal('inspected', of)
    const { result } = await session.post('Runtime.evaluate', { expression: 'globalThis.inspected' })
    const shown = await session.post('Runtime.getProperties', { objectId: result.objectId!, ownProperties: true })
    // Its types know nothing of them.
    return JSON.stringify((shown as { privateProperties?: unknown }).privateProperties)
  } finally {
    session.disconnect()
  }
}

test('a copy of a key is seen here', async () => {
  const buffers = await buffersDuring(() => new Key(new Uint8Array(KEY_BYTES).fill(7)))
  expect(buffers).toEqual([new Uint8Array(KEY_BYTES).fill(7)])
})
