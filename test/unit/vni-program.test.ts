import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MOST_INSTRUCTIONS } from '../../lib/kernel/bpf.js'
import { capacity, isAmong, type Run, runsOf, sizeOfRun } from '../../lib/overlay/vni-program.js'
import { branches, grow } from '../../lib/overlay/vni-tree.js'

const LAST = 0xffffff
/** An argument's place in iptables-restore (PARAM_BUF in its sources), without the NUL that ends it. */
const MOST_CHARACTERS = 1023

/** Runs in order, no two of them touching. */
const runs = fc
  .uniqueArray(fc.integer({ min: 0, max: LAST }), { maxLength: 40 })
  .map((ends) => ends.sort((a, b) => a - b))
  .map((ends) =>
    ends.map((first, i): Run => [first, i % 2 === 0 ? first : Math.min(first + 9, (ends[i + 1] ?? LAST + 2) - 2)]),
  )
  .map((all) => all.filter(([first, last], i) => last >= first && (i === 0 || first > all[i - 1]![1] + 1)))

describe.each([{ family: 4 }, { family: 6 }, { family: 4, quoted: true }, { family: 6, quoted: true }] as const)(
  '%o',
  (place) => {
    /** As many of the longest as there is room for. */
    const fullest = {
      alone: Array.from({ length: capacity(place) }, (_, i): Run => [LAST - 2 * i, LAST - 2 * i]).reverse(),
      runs: Array.from({ length: capacity(place) >> 1 }, (_, i): Run => [LAST - 3 * i - 1, LAST - 3 * i]).reverse(),
    }

    test.each(['alone', 'runs'] as const)(
      'a full program is none too long for the kernel or for iptables: %s',
      (kind) => {
        const program = isAmong(place, fullest[kind])
        expect(Number.parseInt(program)).toBeLessThanOrEqual(MOST_INSTRUCTIONS)
        expect(program.length).toBeLessThanOrEqual(MOST_CHARACTERS)
        expect(runsOf(place, program)).toEqual(fullest[kind])
      },
    )

    test('says what it was made of, and nothing if it was tampered with', () => {
      fc.assert(
        fc.property(runs, (all) => {
          const few = all.filter(
            (_, i) => all.slice(0, i + 1).reduce((sum, run) => sum + sizeOfRun(run), 0) <= capacity(place),
          )
          const program = isAmong(place, few)
          expect(runsOf(place, program)).toEqual(few)
          const [one, other] = [program.replace(/6 0 0 1$/, '6 0 0 0'), program.replace(/,6 0 0 0/, ',6 0 0 1')]
          for (const tampered of [one, other]) expect(runsOf(place, tampered)).toBeUndefined()
        }),
      )
    })

    test('says nothing of what is no VNI', () => {
      for (const strange of [
        [LAST + 1, LAST + 1],
        [0, 2 ** 32 - 1],
        [5, 4],
      ] as const) {
        expect(runsOf(place, isAmong(place, [strange]))).toBeUndefined()
      }
    })

    test('a tree has every network once, whatever their number', () => {
      fc.assert(
        fc.property(fc.integer({ min: 0, max: 2000 }), fc.integer({ min: 2, max: 5000 }), (count, step) => {
          const all = Array.from({ length: count }, (_, i): Run => [i * step, i * step])
          const chains = branches(grow(place, all), (i) => `c${i}`, '-g found')
          const programs = chains.flatMap(({ rules }) => rules.filter((rule) => rule.endsWith('-g found')))
          const told = programs.flatMap((rule) => runsOf(place, /"(.*)"/.exec(rule)![1]!)!)
          expect(told).toEqual(all)
          // Each chain but the root is gone to from one rule.
          const gone = chains.flatMap(({ rules }) => rules.flatMap((rule) => / ?-g (c\d+)$/.exec(rule)?.[1] ?? []))
          expect(gone.sort()).toEqual(
            chains
              .slice(1)
              .map(({ chain }) => chain)
              .sort(),
          )
        }),
        { numRuns: 30 },
      )
    })
  },
)
