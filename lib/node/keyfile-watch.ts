import { type FSWatcher, watch } from 'node:fs'
import { open, readlink } from 'node:fs/promises'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { options as checkOptions } from '../base/check.js'
import { InvalidArgument, XfrmeshError } from '../base/errors.js'
import { type NodeKeys, parseKeys } from './keyfile.js'

export interface WatchOptions {
  /** As for `parseKeys`. */
  strict?: boolean
  /** Called with the keys each time the file says others. */
  onKeys: (keys: NodeKeys) => void
  /** Called each time the file changed and is not usable; the keys before stay. */
  onError: (error: Error) => void
}

/** How long a file must have been left alone: whoever writes it in place does so in steps, each a file of its own. */
const SETTLED_MS = 100
/** Links followed, as the kernel does (MAXSYMLINKS). */
const MOST_LINKS = 40

/**
 * A key file that is read again when it changes, in place, by a rename, or by another link on the way to it, as Kubernetes
 * changes a secret. What is read is always one version, whole; a bad one changes nothing.
 */
export class KeysFileWatch implements AsyncDisposable {
  readonly #path: string
  readonly #options: WatchOptions
  #keys: NodeKeys
  #text: string
  #watchers: FSWatcher[] = []
  #events = 0
  #looking: Promise<void> | undefined
  #closed = false

  private constructor(path: string, options: WatchOptions, text: string) {
    this.#path = resolve(path)
    this.#options = options
    this.#text = text
    this.#keys = parse(text, options)
  }

  /** @throws KeyFileError, or Node's own error, if the file is not usable now; InvalidArgument */
  static async open(path: string, watchOptions: WatchOptions): Promise<KeysFileWatch> {
    const options = checkOptions<WatchOptions>(watchOptions, 'options', ['strict', 'onKeys', 'onError'])
    for (const name of ['onKeys', 'onError'] as const) {
      if (typeof options[name] !== 'function') throw new InvalidArgument(`options.${name}`, 'a function')
    }
    const watched = new KeysFileWatch(path, options, await readWhole(path))
    await watched.#arm()
    // What changed before there was anybody to see it.
    watched.#changed()
    return watched
  }

  /** What the file said when it was last usable. */
  get keys(): NodeKeys {
    return this.#keys
  }

  /** Resolves when nothing will be called any more. */
  async close(): Promise<void> {
    this.#closed = true
    this.#disarm()
    await this.#looking
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #changed(): void {
    this.#events++
    if (!this.#closed) this.#looking ??= this.#look().finally(() => (this.#looking = undefined))
  }

  /** Reads the file once nothing has happened for a while. */
  async #look(): Promise<void> {
    for (;;) {
      const { length } = this.#watchers
      const before = this.#events
      await sleep(SETTLED_MS)
      if (this.#closed) return
      if (this.#events !== before && length > 0) continue
      // The way to the file may be another now: what happens from here on is seen there.
      await this.#arm()
      await this.#read()
      if (this.#events === before) return
    }
  }

  async #read(): Promise<void> {
    let text: string
    let keys: NodeKeys
    try {
      text = await readWhole(this.#path)
      if (text === this.#text) return
      keys = parse(text, this.#options)
    } catch (error) {
      if (!this.#closed) this.#options.onError(error instanceof Error ? error : new Error(String(error)))
      return
    }
    this.#text = text
    this.#keys = keys
    if (!this.#closed) this.#options.onKeys(keys)
  }

  async #arm(): Promise<void> {
    const directories = await directoriesOf(this.#path)
    if (this.#closed) return
    const old = this.#watchers
    this.#watchers = []
    for (const directory of directories) this.#watch(directory)
    for (const watcher of old) watcher.close()
  }

  /** Watches a directory, or the nearest above it if it is not there. */
  #watch(directory: string): void {
    try {
      const watcher = watch(directory)
      watcher.on('change', () => this.#changed())
      watcher.on('error', () => this.#changed())
      this.#watchers.push(watcher)
    } catch (error) {
      const parent = dirname(directory)
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || parent === directory) throw error
      this.#watch(parent)
    }
  }

  #disarm(): void {
    for (const watcher of this.#watchers) watcher.close()
    this.#watchers = []
  }
}

/** Watches a file of keys: {@link KeysFileWatch.open}. */
export function watchKeysFile(path: string, options: WatchOptions): Promise<KeysFileWatch> {
  return KeysFileWatch.open(path, options)
}

function parse(text: string, { strict }: WatchOptions): NodeKeys {
  return parseKeys(text, strict === undefined ? {} : { strict })
}

/** The text of one version of a file: one that is being written is read again. */
async function readWhole(path: string): Promise<string> {
  for (let i = 0; i < 16; i++) {
    const handle = await open(path)
    try {
      const before = await handle.stat({ bigint: true })
      const bytes = await handle.readFile()
      const after = await handle.stat({ bigint: true })
      const text = bytes.toString()
      bytes.fill(0)
      if (before.mtimeNs === after.mtimeNs && before.size === after.size) return text
    } finally {
      await handle.close()
    }
  }
  throw new XfrmeshError('ERR_XFRMESH_BUSY', `${path} is being written all the time`)
}

/** The directories whose changes can make a path lead elsewhere: those of every link on its way, and the file's own. */
async function directoriesOf(path: string): Promise<Set<string>> {
  const found = new Set<string>()
  let left = parts(path)
  let at = '/'
  for (let links = 0; left.length > 0 && links <= MOST_LINKS;) {
    const name = left.shift()!
    const next = join(at, name)
    const target = name === '..' ? undefined : await readlink(next).catch(() => undefined)
    if (target === undefined) {
      if (left.length === 0) found.add(at)
      at = next
      continue
    }
    links++
    found.add(at)
    left = [...parts(target), ...left]
    if (isAbsolute(target)) at = '/'
  }
  return found
}

function parts(path: string): string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.')
}
