import { open } from 'node:fs/promises'
import { U32 } from '../base/check.js'
import { MAX_KEYS, type KeyInput, type SuiteName } from '../index.js'
import { suites } from '../overlay/suites.js'
import { unreadable } from './cluster.js'
import { FileError, SourceDocument, type FieldPath } from './document.js'

/** Permissions that make a file readable, or writable, for more than its owner. */
const OTHERS = 0o077

/**
 * Reads a key file: a YAML list of { tag, value }, the first primary, value in hex without salt. What its errors say of
 * the content is line, field and what should stand there.
 *
 * @throws FileError also for a file that others may read
 */
export async function loadKeyFile(file: string, suite: SuiteName): Promise<KeyInput[]> {
  return parseKeyFile(file, await readSecret(file), suite)
}

async function readSecret(file: string): Promise<string> {
  let handle
  try {
    handle = await open(file)
  } catch (error) {
    throw unreadable(file, error)
  }
  try {
    const status = await handle.stat()
    if (!status.isFile()) throw new FileError(file, 'not a regular file')
    if ((status.mode & OTHERS) !== 0) {
      const mode = (status.mode & 0o777).toString(8).padStart(3, '0')
      throw new FileError(file, `others than its owner have access to these keys (mode ${mode}): chmod 600`)
    }
    return await handle.readFile('utf8')
  } finally {
    await handle.close()
  }
}

/** The same of its text. No schema library here: what those say of a value they may show. */
export function parseKeyFile(file: string, source: string, suite: SuiteName): KeyInput[] {
  const document = new SourceDocument(file, source, 'text')
  const list = document.value
  if (!Array.isArray(list) || list.length === 0) throw document.refuse([], 'must be a list of { tag, value }')
  if (list.length > MAX_KEYS) throw document.refuse([], `must have at most ${MAX_KEYS} keys, not ${list.length}`)
  const seen = new Map<number, number>()
  return list.map((entry: unknown, i) => {
    const key = readKey(document, [i], entry, suite)
    const before = seen.get(key.tag)
    if (before !== undefined) throw document.refuse([i, 'tag'], `must be its own: [${before}].tag is the same`)
    seen.set(key.tag, i)
    return key
  })
}

function readKey(document: SourceDocument, path: FieldPath, entry: unknown, suite: SuiteName): KeyInput {
  if (typeof entry !== 'object' || entry === null || Array.isArray(entry)) {
    throw document.refuse(path, 'must be an object { tag, value }')
  }
  // A name that is neither may be a key gone astray: it is not shown.
  const { tag, value, ...others } = entry as Record<string, unknown>
  if (Object.keys(others).length > 0) throw document.refuse(path, 'has a field that is neither tag nor value')
  const { keyBytes } = suites[suite]
  if (typeof value !== 'string' || !/^(?:[\da-f]{2})*$/i.test(value) || !keyBytes.includes(value.length / 2)) {
    const digits = keyBytes.map((bytes) => bytes * 2).join(' or ')
    throw document.refuse([...path, 'value'], `must be ${digits} hex digits, for ${suite}`)
  }
  return { tag: readTag(document, [...path, 'tag'], tag), value: Uint8Array.from(Buffer.from(value, 'hex')) }
}

function readTag(document: SourceDocument, path: FieldPath, value: unknown): number {
  const tag = typeof value === 'string' && /^(?:\d{1,10}|0x[\da-f]{1,8})$/i.test(value) ? Number(value) : NaN
  if (!(tag <= U32)) throw document.refuse(path, `must be an integer from 0 to ${U32}`)
  return tag
}
