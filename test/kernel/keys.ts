import type { KeyInput } from '../../lib/index.js'

/** A key of a tag, from 0 to 255: no two are alike. */
export function keyOf(tag: number): KeyInput {
  return { tag, value: Uint8Array.from({ length: 16 }, (_, i) => tag ^ (i * 17)) }
}
