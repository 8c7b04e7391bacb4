import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

let directory: string | undefined
let files = 0

/** Writes a file that lasts as long as this process, and returns its path. */
export function keepFile(...parts: readonly (Uint8Array | string)[]): string {
  if (directory === undefined) {
    const made = mkdtempSync(join(tmpdir(), 'xfrmesh-bench-'))
    process.on('exit', () => rmSync(made, { recursive: true, force: true }))
    directory = made
  }
  const path = join(directory, String(++files))
  writeFileSync(path, Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part))))
  return path
}
