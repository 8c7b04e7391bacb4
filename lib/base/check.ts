import { InvalidArgument } from './errors.js'

/** Checks of arguments. Each returns the value or throws {@link InvalidArgument} naming the argument and what it takes. */

/** Largest unsigned 32-bit integer. */
export const U32 = 0xffffffff
/** Largest signed 32-bit integer. */
const I32 = 0x7fffffff
/** Largest unsigned 16-bit integer. */
export const U16 = 0xffff

export function integer(value: unknown, argument: string, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    throw new InvalidArgument(argument, `an integer from ${min} to ${max}`, value)
  }
  return value
}

export function boolean(value: unknown, argument: string): boolean {
  if (typeof value !== 'boolean') throw new InvalidArgument(argument, 'true or false', value)
  return value
}

/** A network namespace as callers name it; undefined: the process's own. Whether there is one, opening it tells. */
export function namespace(value: unknown, argument: string): string | number | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'string' && value !== '' && !value.includes('\0')) return value
  if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= I32) return value
  throw new InvalidArgument(argument, "a network namespace's path, as in '/run/netns/a', or an open descriptor", value)
}

export function oneOf<T extends string>(value: unknown, argument: string, names: readonly T[]): T {
  const found = names.find((name) => name === value)
  if (found !== undefined) return found
  const list = names.map((name) => `'${name}'`).join(', ')
  const near = typeof value === 'string' ? nearest(value, names) : undefined
  throw new InvalidArgument(argument, `one of ${list}${near === undefined ? '' : ` (did you mean '${near}'?)`}`, value)
}

/**
 * An object with no property but the known ones: a misspelled option must not be an option ignored, and is none where it is
 * inherited. Read each property once: a getter or a Proxy may say something else to whoever asks again.
 */
export function object<T extends object>(
  value: unknown,
  argument: string,
  known: readonly (keyof T & string)[],
): Partial<T> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new InvalidArgument(argument, 'an object', value)
  }
  for (const name in value) {
    if ((known as readonly string[]).includes(name)) continue
    const near = nearest(name, known)
    throw new InvalidArgument(
      `${argument}.${name}`,
      `left out: there is no such option${near === undefined ? `; there are ${known.join(', ')}` : ` (did you mean '${near}'?)`}`,
    )
  }
  return value
}

/** The same as a copy, so that each property is read once. */
export function options<T extends object>(value: unknown, argument: string, known: readonly (keyof T & string)[]): T {
  const given = object<T>(value, argument, known)
  const copy: Partial<T> = {}
  for (const name of known) {
    const property = given[name]
    if (property !== undefined) copy[name] = property
  }
  return copy as T
}

export function array(value: unknown, argument: string): readonly unknown[] {
  if (!Array.isArray(value)) throw new InvalidArgument(argument, 'an array', value)
  return value as readonly unknown[]
}

/** The known name that a person most likely meant, if one is near enough to say so. */
export function nearest(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined
  let distance = Math.max(2, Math.floor(name.length / 3)) + 1
  for (const candidate of known) {
    const d = editDistance(name.toLowerCase(), candidate.toLowerCase())
    if (d < distance) {
      best = candidate
      distance = d
    }
  }
  return best
}

/** Levenshtein's distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    }
    row = next
  }
  return row[b.length]!
}
