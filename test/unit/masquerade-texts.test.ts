import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { takeBuffer } from '../../lib/kernel/record-buffers.js'
import { Texts } from '../../lib/masquerade/texts.js'

const unit = fc.oneof(
  { weight: 30, arbitrary: fc.constantFrom(...'abz09 .:/-'.match(/./g)!) },
  { weight: 1, arbitrary: fc.constantFrom('\0', '\x7f', '\x80', 'ü', '日', '𝄞', '\ud834', '\udd1e') },
)
const text = fc.oneof(
  fc.string({ unit, maxLength: 40 }),
  fc.string({ unit, minLength: 250, maxLength: 260 }),
  fc.constantFrom('', 'n'.repeat(255), 'n'.repeat(256), 'ü'.repeat(127), '日'.repeat(255), '日'.repeat(256)),
)
const isText = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= 255 && !value.includes('\0') && value.isWellFormed()

describe('texts that are written one after the other', () => {
  test('are those that were added, and memory given back is zeros, whatever was refused', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof({ weight: 20, arbitrary: text }, fc.constantFrom<unknown>(undefined, 7, {})), {
          maxLength: 60,
        }),
        (all) => {
          const texts = new Texts()
          const added = all.filter(isText)
          for (const one of all) expect(texts.add(one)).toBe(isText(one))
          expect(texts.read(0)).toEqual(added)
          expect(Buffer.compare(texts.bytes, Buffer.from(added.map((one) => `${one}\0`).join('')))).toBe(0)
          const { length } = texts
          texts.add('one more')
          expect(texts.read(length)).toEqual(['one more'])

          const bytes = [4096, texts.length]
          texts.release()
          expect(texts.length).toBe(0)
          for (const least of bytes) expect(takeBuffer(least).every((byte) => byte === 0)).toBe(true)
        },
      ),
      { numRuns: 500 },
    )
  })

  test('begin as long as others were', () => {
    const texts = new Texts()
    while (texts.length < 100_000) texts.add('n'.repeat(200))
    const next = new Texts(texts)
    next.add('')
    expect([next.length, next.bytes.buffer.byteLength]).toEqual([1, 131_072])
  })
})
