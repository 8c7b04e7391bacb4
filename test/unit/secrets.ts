import { inspect } from 'node:util'

/** A key that no other bytes in a test look like. */
export function secret(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (seed * 73 + i * 151 + 29) & 0xff)
}

/** Everything that could be printed of a value: by inspect, with all that is hidden, by JSON, as text, and as an error. */
export function everythingSaid(value: unknown): string {
  const said = [inspect(value, { depth: Infinity, showHidden: true, maxArrayLength: Infinity, getters: true })]
  said.push(JSON.stringify([value], (_, each: unknown) => (typeof each === 'bigint' ? String(each) : each)))
  if (value instanceof Error) said.push(value.message, value.stack ?? '', inspect(value.cause))
  said.push(String(value))
  return said.join('\n')
}

/** The ways in which text gives six bytes of a key away. */
export function traces(key: Uint8Array, text: string): string[] {
  const found: string[] = []
  for (let at = 0; at + 6 <= key.length; at++) {
    const part = Buffer.from(key.subarray(at, at + 6))
    const forms = {
      hex: part.toString('hex'),
      'spaced hex': [...part].map((byte) => byte.toString(16).padStart(2, '0')).join(' '),
      // Whole groups of three bytes, so that the neighbours don't matter.
      base64: part.toString('base64'),
      base64url: part.toString('base64url'),
      decimal: part.join(','),
      'spaced decimal': part.join(', '),
      json: [...part].map((byte, i) => `"${at + i}":${byte}`).join(','),
      latin1: part.toString('latin1'),
    }
    for (const [name, form] of Object.entries(forms)) {
      if (text.includes(form) || (name.endsWith('hex') && text.toLowerCase().includes(form))) found.push(name)
    }
  }
  return [...new Set(found)]
}
