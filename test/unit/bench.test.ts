import { describe, expect, test } from 'vitest'
import type { Outcome } from '../../bench/harness/contest.js'
import { linesOf, table } from '../../bench/harness/report.js'
import { median, quantile, ratios, spread } from '../../bench/harness/statistics.js'
import { judgeNft } from '../../bench/nft/targets.js'

describe('the statistics of the benchmark', () => {
  test('a median is the middle one, or the mean of the middle two', () => {
    expect(median([3, 1, 2])).toBe(2)
    expect(median([4, 1, 2, 3])).toBe(2.5)
    expect(median([])).toBeNaN()
  })

  test('a quantile lies between its two nearest ranks', () => {
    expect(quantile([10, 20, 30, 40, 50], 0.25)).toBe(20)
    expect(quantile([10, 20], 0.25)).toBe(12.5)
    expect(spread([5, 1, 4, 2, 3])).toEqual({ median: 3, low: 2, high: 4, least: 1, most: 5 })
  })

  test('ratios are of the values of one round', () => {
    expect(ratios([2, 30, 8], [1, 10, 4])).toEqual([2, 3, 2])
  })
})

const outcome: Outcome = {
  scenario: 'some',
  title: 'work',
  unit: 'things',
  size: 1000,
  place: 'here',
  rounds: 3,
  steps: [{ name: 'add', operations: 2000 }],
  contestants: [
    { name: 'ours', role: 'ours', samples: { add: [sample(12, 2), sample(22, 2), sample(33, 3)] } },
    { name: 'floor', role: 'floor', samples: { add: [sample(10), sample(20), sample(30)] } },
    { name: 'other', role: 'peer', samples: { add: [sample(120), sample(110), sample(99)] } },
    { name: 'lazy', role: 'peer', samples: {} },
  ],
}

function sample(ms: number, buildMs?: number): { ms: number; sends: number; buildMs?: number } & { ms: number } {
  return { ms, sends: 4, ...(buildMs !== undefined && { buildMs }) }
}

describe('the report of the benchmark', () => {
  const lines = linesOf(outcome)
  const find = (name: string, part?: string) => lines.find((line) => line.name === name && line.part === part)!

  test('has a line for each contestant that did the step, and one for each part of its time', () => {
    expect(lines.map(({ name, part }) => [name, part])).toEqual([
      ['ours', undefined],
      ['ours', 'build'],
      ['floor', undefined],
      ['other', undefined],
    ])
  })

  test('compares with the floor, and with ours, round by round', () => {
    expect(find('ours').toFloor?.median).toBeCloseTo(1.1)
    expect(find('ours').toOurs).toBeUndefined()
    expect(find('other').toFloor?.median).toBeCloseTo(5.5)
    expect(find('other').toOurs).toBeCloseTo(5)
    expect(find('floor').toFloor).toBeUndefined()
  })

  test('counts time by operations', () => {
    expect(find('ours').microsecondsEach).toBe(11)
    expect(find('ours', 'build').microsecondsEach).toBe(1)
    expect(find('ours').figures).toEqual({ sends: 4 })
  })

  test('reads as a table', () => {
    expect(table(outcome)).toContain('  other')
    expect(table(outcome)).toMatch(/of it build {2,}2\.00/)
  })

  test('has no time of what came to nothing, if it did in half of its rounds', () => {
    const times = (...nothing: number[]) => {
      const samples = nothing.map((each) => ({ ms: each === 1 ? 2e10 : 120, nothing: each, mbitPerSecond: 3 }))
      const stuck = { name: 'stuck', role: 'peer' as const, samples: { add: samples } }
      const text = table({ ...outcome, shows: ['mbitPerSecond'], contestants: [...outcome.contestants, stuck] })
      return /^ {2}stuck.*$/m.exec(text)![0].trim().split(/ {2,}/)
    }
    const said = ['stuck', 'nothing came through', '3.00']
    expect([times(1, 1, 1), times(1, 0, 1), times(0, 1)]).toEqual([said, said, said])
    expect(times(0, 0, 1).slice(0, 2)).toEqual(['stuck', '120'])
  })
})

describe('the targets of nftables in bulk', () => {
  const contest = (scenario: string, step: string, times: Record<string, number>): Outcome => ({
    ...outcome,
    scenario,
    size: 10_000,
    steps: [{ name: step, operations: 10_000 }],
    contestants: Object.entries(times).map(([name, ms]) => ({
      name,
      role: name.startsWith('xfrmesh') ? 'ours' : name.startsWith('floor') ? 'floor' : 'peer',
      samples: { [step]: [sample(ms), sample(ms), sample(ms)] },
    })),
  })
  const judged = (scenario: string, step: string, times: Record<string, number>) =>
    judgeNft(linesOf(contest(scenario, step, times))).map(({ seen, holds }) => [seen, holds])

  test('hold a load against the floor, and against the peer', () => {
    const rules = (ours: number, plugins: number) => ({
      "xfrmesh, 'rules'": ours,
      'floor (C)': 100,
      'CNI plugins (nft)': plugins,
    })
    expect(judged('masquerade-rules', 'load', rules(125, 300))).toEqual([
      ['load: 1.25', true],
      ['load: 2.4 (the floor of it 3.0)', true],
    ])
    expect(judged('masquerade-rules', 'load', rules(140, 270))).toEqual([
      ['load: 1.40', false],
      ['load: 1.9 (the floor of it 2.7)', false],
    ])
  })

  test('are not judged where nothing was measured', () => {
    expect(judged('policies', 'load', { xfrmesh: 1, 'floor (C)': 1 })).toEqual([])
    expect(judgeNft(linesOf({ ...contest('networks', 'add', { xfrmesh: 1, 'nft -f': 9 }), size: 100 }))).toEqual([])
  })

  test('say what is gained where no floor was measured', () => {
    const set = { "xfrmesh, 'set'": 1, 'CNI plugins (nft)': 12 }
    expect(judged('masquerade-set', 'load', set)).toEqual([['load: 12.0', true]])
  })

  test('ask more of one among many where its handle is known', () => {
    const one = { "xfrmesh, 'rules'": 1, 'CNI plugins (nft)': 50 }
    expect(judged('masquerade-rules', 'add one', one)).toEqual([['add one: 50.0', false]])
    expect(judged('masquerade-rules', 'add one, others wrote', one)).toEqual([['add one, others wrote: 50.0', true]])
  })
})
