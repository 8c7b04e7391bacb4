import { writeFileSync } from 'node:fs'
import { type FileHandle, mkdir, mkdtemp, open, rename, rm, symlink, unlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type NodeKeys, watchKeysFile, type WatchOptions } from '../../lib/node/index.js'

const AES = '44434241343332312423222114131211f4f3f2f1'
const line = (id: number) => `${id} rfc4106(gcm(aes)) ${AES} 128\n`

let directory: string
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'xfrmesh-watch-'))
})
afterEach(() => {
  vi.restoreAllMocks()
  return rm(directory, { recursive: true })
})

/** What a watch says, one after the other. */
class Said {
  readonly #said: (number | Error)[] = []
  #wake: (() => void) | undefined
  readonly onKeys = ({ keyId }: NodeKeys): void => this.#say(keyId)
  readonly onError = (error: Error): void => this.#say(error)

  #say(what: number | Error): void {
    this.#said.push(what)
    this.#wake?.()
  }

  async next(): Promise<number | Error> {
    while (this.#said.length === 0) await new Promise<void>((resolve) => (this.#wake = resolve))
    return this.#said.shift()!
  }

  get left(): number {
    return this.#said.length
  }
}

/** In place, and in one turn of the event loop: on a busy machine a watcher in this process could else find it empty. */
function overwrite(path: string, text: string): void {
  writeFileSync(path, text)
}

test('a file written anew in place, replaced by a rename, and gone for a while', async () => {
  const path = join(directory, 'keys')
  await writeFile(path, line(3))
  const said = new Said()
  await using watched = await watchKeysFile(path, said)
  expect(watched.keys.keyId).toBe(3)

  overwrite(path, line(4))
  expect(await said.next()).toBe(4)

  await writeFile(join(directory, 'new'), line(5))
  await rename(join(directory, 'new'), path)
  expect(await said.next()).toBe(5)

  await unlink(path)
  expect(await said.next()).toMatchObject({ code: 'ENOENT' })
  expect(watched.keys.keyId).toBe(5)
  overwrite(path, line(6))
  expect(await said.next()).toBe(6)
})

test('a bad file changes nothing until it is mended, and its error shows no key', async () => {
  const path = join(directory, 'keys')
  await writeFile(path, line(3))
  const said = new Said()
  await using watched = await watchKeysFile(path, said)

  overwrite(path, `4 rfc4106(gcm(aes)) ${AES}x 128\n`)
  const error = await said.next()
  expect(error).toMatchObject({ code: 'ERR_XFRMESH_KEY_FILE', line: 1, column: 21 })
  expect(String(error)).not.toContain(AES)
  expect(watched.keys.keyId).toBe(3)

  overwrite(path, line(4))
  expect(await said.next()).toBe(4)
  expect(watched.keys.keyId).toBe(4)
})

test("a secret of Kubernetes': the file is a link into ..data, which is a link to a directory, which is swapped", async () => {
  const version = async (name: string, id: number) => {
    await mkdir(join(directory, name))
    await writeFile(join(directory, name, 'keys'), line(id))
    await symlink(name, join(directory, '..data_tmp'))
    await rename(join(directory, '..data_tmp'), join(directory, '..data'))
  }
  await version('..2026_1', 3)
  const path = join(directory, 'keys')
  await symlink('..data/keys', path)
  const said = new Said()
  await using watched = await watchKeysFile(path, said)
  expect(watched.keys.keyId).toBe(3)
  for (const id of [4, 5, 6]) {
    await version(`..2026_${id}`, id)
    expect(await said.next()).toBe(id)
  }
  await rm(join(directory, '..2026_5'), { recursive: true })
  await version('..2026_7', 7)
  expect(await said.next()).toBe(7)
})

test('a link to another directory, and the directory itself, may be replaced', async () => {
  for (const [name, id] of [
    ['one', 3],
    ['other', 4],
    ['third', 5],
  ] as const) {
    await mkdir(join(directory, name))
    await writeFile(join(directory, name, 'keys'), line(id))
  }
  await symlink(join(directory, 'one'), join(directory, 'present'))
  const said = new Said()
  await using watched = await watchKeysFile(join(directory, 'present', 'keys'), said)
  expect(watched.keys.keyId).toBe(3)
  await symlink(join(directory, 'other'), join(directory, 'next'))
  await rename(join(directory, 'next'), join(directory, 'present'))
  expect(await said.next()).toBe(4)
  await rename(join(directory, 'other'), join(directory, 'was'))
  await rename(join(directory, 'third'), join(directory, 'other'))
  let last = await said.next()
  // Between the two renames there is no file, which may be seen.
  if (last instanceof Error) last = await said.next()
  expect(last).toBe(5)
})

test('a file written in place in steps is never taken for what is only its beginning', async () => {
  const path = join(directory, 'keys')
  await writeFile(path, line(3))
  const said = new Said()
  await using watched = await watchKeysFile(path, said)
  // Two keys, the second current. The first line alone would be a file too.
  await writeFile(path, line(4))
  await writeFile(path, line(4) + line(5))
  expect(await said.next()).toBe(5)
  expect(watched.keys.keys).toHaveLength(2)
})

test('a file beside others that change all the time is read when it changes', async () => {
  const path = join(directory, 'keys')
  await writeFile(path, line(3))
  const noise = setInterval(() => overwrite(join(directory, 'log'), String(performance.now())), 10)
  try {
    const said = new Said()
    await using watched = await watchKeysFile(path, said)
    overwrite(path, line(4))
    expect(await said.next()).toBe(4)
    expect(watched.keys.keyId).toBe(4)
  } finally {
    clearInterval(noise)
  }
})

test('a file that itself changes all the time is read all the same', async () => {
  const path = join(directory, 'keys')
  await writeFile(path, line(3))
  const noise = setInterval(() => overwrite(path, line(4)), 10)
  try {
    const said = new Said()
    await using watched = await watchKeysFile(path, said)
    expect(await said.next()).toBe(4)
    expect(watched.keys.keyId).toBe(4)
  } finally {
    clearInterval(noise)
  }
})

test('what can be watched no more is told, once, the keys before stay, and it is watched again once that can be', async () => {
  const place = join(directory, 'sub', 'deep')
  await mkdir(place, { recursive: true })
  await writeFile(join(place, 'keys'), line(3))
  const said = new Said()
  await using watched = await watchKeysFile(join(place, 'keys'), said)
  // A watch of what would be below a file fails, and not for want of it.
  await rm(join(directory, 'sub'), { recursive: true })
  await writeFile(join(directory, 'sub'), 'a file')
  const errors: unknown[] = []
  while (!errors.some((error) => (error as NodeJS.ErrnoException).syscall === 'watch')) errors.push(await said.next())
  expect(errors.at(-1)).toMatchObject({ code: 'ENOTDIR' })
  expect(watched.keys.keyId).toBe(3)
  await sleep(2500)
  expect(said.left).toBe(0)

  await unlink(join(directory, 'sub'))
  await mkdir(place, { recursive: true })
  await writeFile(join(place, 'keys'), line(4))
  let last: unknown
  while (last !== 4) last = await said.next()
  overwrite(join(place, 'keys'), line(5))
  expect(await said.next()).toBe(5)
})

test('says nothing of what says the same, nor after it is closed', async () => {
  const path = join(directory, 'keys')
  await writeFile(path, line(3))
  const said = new Said()
  const watched = await watchKeysFile(path, said)
  overwrite(path, line(3))
  overwrite(path, line(4))
  expect(await said.next()).toBe(4)
  expect(said.left).toBe(0)
  await watched.close()
  overwrite(path, line(5))
  const other = new Said()
  await using second = await watchKeysFile(path, other)
  overwrite(path, line(6))
  expect(await other.next()).toBe(6)
  expect(second.keys.keyId).toBe(6)
  expect(said.left).toBe(0)
  expect(watched.keys.keyId).toBe(4)
})

test('what is told of the keys and throws is an error of its own, and what changed meanwhile is read', async () => {
  const path = join(directory, 'keys')
  await writeFile(path, line(3))
  const said = new Said()
  const onKeys = (keys: NodeKeys): void => {
    if (keys.keyId === 4) throw new Error('no use for it')
    said.onKeys(keys)
  }
  await using watched = await watchKeysFile(path, { onKeys, onError: said.onError })
  // Once it has been read it changes, and that is heard before anybody is told of what was read.
  const file = await open(path)
  const prototype = Object.getPrototypeOf(file) as FileHandle
  await file.close()
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called with its own
  const { stat } = prototype
  let looks = 0
  vi.spyOn(prototype, 'stat').mockImplementation(async function (this: FileHandle, options) {
    const found = await stat.call(this, options)
    if (++looks === 2) {
      overwrite(path, line(5))
      await sleep(50)
    }
    return found
  })
  overwrite(path, line(4))
  expect(await said.next()).toMatchObject({ message: 'no use for it' })
  expect(await said.next()).toBe(5)
  expect(watched.keys.keyId).toBe(5)
})

test('what is told of an error and throws itself is a warning, and the watch goes on', async () => {
  const path = join(directory, 'keys')
  await writeFile(path, line(3))
  const said = new Said()
  const warned = new Promise<void>((resolve) => {
    process.on('warning', function hear({ message }) {
      if (message !== 'nobody to tell') return
      process.off('warning', hear)
      resolve()
    })
  })
  const onError = () => {
    throw new Error('nobody to tell')
  }
  await using watched = await watchKeysFile(path, { onKeys: said.onKeys, onError })
  overwrite(path, 'bad')
  await warned
  overwrite(path, line(4))
  expect(await said.next()).toBe(4)
  expect(watched.keys.keyId).toBe(4)
})

test("what does not end with its line may be a line's beginning, and is taken when it has been left alone for longer", async () => {
  const path = join(directory, 'keys')
  await writeFile(path, line(3))
  const said = new Said()
  await using watched = await watchKeysFile(path, said)
  const half = '0123456789abcdef0123456789abcdef'
  // Cut off, this is an AES-128 key in place of an AES-256 one.
  const whole = `4 hmac(sha256) ${half} cbc(aes) ${half}${half}`
  overwrite(path, whole.slice(0, -half.length))
  await sleep(500)
  overwrite(path, whole)
  expect(await said.next()).toBe(4)
  expect(watched.keys.keys[0]!.encryption!.key.length).toBe(32)
  expect(said.left).toBe(0)
})

test('refuses to begin with a file that is not usable, or with nobody to tell', async () => {
  await expect(watchKeysFile(join(directory, 'none'), new Said())).rejects.toMatchObject({ code: 'ENOENT' })
  await writeFile(join(directory, 'bad'), 'bad')
  await expect(watchKeysFile(join(directory, 'bad'), new Said())).rejects.toMatchObject({
    code: 'ERR_XFRMESH_KEY_FILE',
  })
  await writeFile(join(directory, 'keys'), line(3))
  await expect(watchKeysFile(join(directory, 'keys'), {} as WatchOptions)).rejects.toThrow(
    /options.onKeys must be a function/,
  )
})
