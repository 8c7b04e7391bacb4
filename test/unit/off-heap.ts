import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void

/** A collection leaves buffers to be freed by the next one, and some objects to the one after. */
function collect(): void {
  for (let i = 0; i < 4; i++) gc()
}

/**
 * Bytes that what `make` returns holds outside of V8's heap, where the garbage collector moves nothing and so leaves no
 * copies behind: only what lies there can be wiped.
 */
export function offHeapBytes(make: () => unknown): number {
  collect()
  const before = process.memoryUsage().arrayBuffers
  const held = make()
  collect()
  const grown = process.memoryUsage().arrayBuffers - before
  // Used once more, so that it is not collected before it is counted.
  return held === undefined ? 0 : grown
}
