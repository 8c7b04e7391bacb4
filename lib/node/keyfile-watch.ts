import { createHash } from 'node:crypto'
import { existsSync, type FSWatcher, watch } from 'node:fs'
import { open, readlink } from 'node:fs/promises'
import { basename, dirname, isAbsolute, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { options as checkOptions } from '../base/check.js'
import { InvalidArgument, XfrmeshError } from '../base/errors.js'
import { type NodeKeys, parseKeys } from './keyfile.js'

export interface WatchOptions {
  /** As for `parseKeys`. */
  strict?: boolean
  /** Called with the keys each time the file says others. What it throws `onError` is told. */
  onKeys: (keys: NodeKeys) => void
  /**
   * Called each time the file changed and is not usable, or can't be watched any more; the keys before stay. What it throws
   * is a warning of this process.
   */
  onError: (error: Error) => void
}

/** How long a file must have been left alone: whoever writes it in place does so in steps, each a file of its own. */
const SETTLED_MS = 100
/** The same for what does not end with its line: it may be a line's beginning, by a writer that is slow or was killed. */
const UNENDED_MS = 1000
/** How often that is waited for: a file that never is left alone is read all the same. */
const MOST_WAITS = 20
/** How long until what could not be watched is tried again. */
const RETRY_MS = 1000
/** Links followed, as the kernel does (MAXSYMLINKS). */
const MOST_LINKS = 40

/**
 * A key file that is read again when it changes, in place, by a rename, or by another link on the way to it, as Kubernetes
 * changes a secret. What is read is always one version, whole; a bad one changes nothing.
 *
 * What a writer that was killed has left of a file counts as a version, if it can be read as one: a line of two keys that was
 * cut in its last is a line with a shorter key. Write a new file, and rename it; or end the file with a line's end, which is
 * waited for, for a second.
 */
export class KeysFileWatch implements AsyncDisposable {
  readonly #path: string
  readonly #options: WatchOptions
  #keys: NodeKeys
  /** SHA-256 of what the file said then. */
  #digest: string
  #watchers: FSWatcher[] = []
  #events = 0
  #looking: Promise<void> | undefined
  /** Why not all can be watched, as it was last told. */
  #trouble: string | undefined
  /** Why the file was not usable when it was last read, and whether anything was seen to happen since. */
  #unusable: string | undefined
  #isNews = false
  #retry: NodeJS.Timeout | undefined
  #closed = false

  private constructor(path: string, options: WatchOptions, text: string) {
    this.#path = resolve(path)
    this.#options = options
    this.#digest = digestOf(text)
    this.#keys = parse(text, options)
  }

  /** @throws KeyFileError, or Node's own error, if the file is not usable now; InvalidArgument */
  static async open(path: string, watchOptions: WatchOptions): Promise<KeysFileWatch> {
    const options = checkOptions<WatchOptions>(watchOptions, 'options', ['strict', 'onKeys', 'onError'])
    for (const name of ['onKeys', 'onError'] as const) {
      if (typeof options[name] !== 'function') throw new InvalidArgument(`options.${name}`, 'a function')
    }
    const watched = new KeysFileWatch(path, options, await readWhole(path))
    const trouble = await watched.#arm()
    if (trouble !== undefined) {
      await watched.close()
      throw trouble
    }
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

  #changed(isNews = true): void {
    this.#events++
    this.#isNews ||= isNews
    if (this.#closed) return
    this.#looking ??= this.#look()
      .catch((error: unknown) => this.#fail(error))
      .finally(() => (this.#looking = undefined))
  }

  /** Reads the file once nothing has happened to it for a while. */
  async #look(): Promise<void> {
    let waits = 0
    for (;;) {
      const { length } = this.#watchers
      const before = this.#events
      await sleep(SETTLED_MS)
      if (this.#closed) return
      if (this.#events !== before && length > 0 && ++waits < MOST_WAITS) continue
      waits = 0
      // The way to the file may be another now: what happens from here on is seen there.
      const trouble = await this.#arm()
      await this.#read()
      this.#worry(trouble)
      if (this.#events === before) return
    }
  }

  /** Tells once what can't be watched, and tries again later. */
  #worry(trouble: Error | undefined): void {
    if (this.#closed) return
    if (trouble !== undefined) {
      this.#retry = setTimeout(() => this.#changed(false), RETRY_MS).unref()
      if (trouble.message !== this.#trouble) this.#fail(trouble)
    }
    this.#trouble = trouble?.message
  }

  #fail(error: unknown): void {
    if (this.#closed) return
    try {
      this.#options.onError(asError(error))
    } catch (thrown) {
      // There is nobody else to tell, and the watch goes on.
      process.emitWarning(asError(thrown))
    }
  }

  async #read(): Promise<void> {
    let text: string
    let keys: NodeKeys
    const [isNews, before] = [this.#isNews, this.#unusable]
    this.#isNews = false
    this.#unusable = undefined
    try {
      text = await this.#readEnded()
      if (this.#closed || digestOf(text) === this.#digest) return
      keys = parse(text, this.#options)
    } catch (error) {
      this.#unusable = String(error)
      if (isNews || this.#unusable !== before) this.#fail(error)
      return
    }
    this.#digest = digestOf(text)
    this.#keys = keys
    try {
      this.#options.onKeys(keys)
    } catch (error) {
      this.#fail(error)
    }
  }

  /** The file's text; one that does not end with its line, once it has stayed as it is for longer. */
  async #readEnded(): Promise<string> {
    for (let text = await readWhole(this.#path); ;) {
      if (text.endsWith('\n') || digestOf(text) === this.#digest) return text
      for (let ms = 0; ms < UNENDED_MS && !this.#closed; ms += SETTLED_MS) await sleep(SETTLED_MS)
      const before = text
      text = await readWhole(this.#path)
      if (text === before || this.#closed) return text
    }
  }

  /** Watches all on the way to the file in place of what was watched before. @returns why some of it can't be */
  async #arm(): Promise<Error | undefined> {
    const places = await placesOf(this.#path)
    if (this.#closed) return undefined
    const old = this.#watchers
    this.#watchers = []
    let trouble: Error | undefined
    for (const [directory, names] of places) {
      try {
        this.#watch(directory, names)
      } catch (error) {
        trouble ??= error as Error
      }
    }
    for (const watcher of old) watcher.close()
    return trouble
  }

  /** Watches some names in a directory, or, if that is not there, its own in the nearest above it. */
  #watch(directory: string, names: ReadonlySet<string>): void {
    const own = basename(directory)
    try {
      const watcher = watch(directory)
      // What happens to the directory itself bears its own name.
      watcher.on('change', (_, name: string | Buffer | null) => {
        if (name === null || name === own || names.has(name.toString())) this.#changed()
      })
      watcher.on('error', () => this.#changed())
      this.#watchers.push(watcher)
    } catch (error) {
      const parent = dirname(directory)
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || parent === directory) throw error
      this.#watch(parent, new Set([own]))
      // It came in between.
      if (existsSync(directory)) this.#changed()
    }
  }

  #disarm(): void {
    clearTimeout(this.#retry)
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

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error))
}

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('base64')
}

/** The text of one version of a file: one that is being written is read again. */
async function readWhole(path: string): Promise<string> {
  for (let i = 0; i < 16; i++) {
    const handle = await open(path)
    try {
      const before = await handle.stat({ bigint: true })
      const bytes = await handle.readFile()
      try {
        const after = await handle.stat({ bigint: true })
        if (before.mtimeNs === after.mtimeNs && before.size === after.size) return bytes.toString()
      } finally {
        bytes.fill(0)
      }
    } finally {
      await handle.close()
    }
  }
  throw new XfrmeshError('ERR_XFRMESH_BUSY', `${path} is being written all the time`)
}

/** The directories whose changes can make a path lead elsewhere, with the names in them: of every link on its way, and its own. */
async function placesOf(path: string): Promise<Map<string, Set<string>>> {
  const found = new Map<string, Set<string>>()
  let left = parts(path)
  let at = '/'
  for (let links = 0; left.length > 0 && links <= MOST_LINKS;) {
    const name = left.shift()!
    const next = join(at, name)
    const target = name === '..' ? undefined : await readlink(next).catch(() => undefined)
    if (target !== undefined || left.length === 0) found.set(at, (found.get(at) ?? new Set()).add(name))
    if (target === undefined) {
      at = next
      continue
    }
    links++
    left = [...parts(target), ...left]
    if (isAbsolute(target)) at = '/'
  }
  return found
}

function parts(path: string): string[] {
  return path.split('/').filter((part) => part !== '' && part !== '.')
}
