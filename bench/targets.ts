import type { Effects, Outcome } from './harness/contest.js'
import { digits, type Line, linesOf } from './harness/report.js'
import { median, ratios } from './harness/statistics.js'
import type { Run } from './main.js'
import { judgeNft } from './nft/targets.js'

/** What a target came to in the runs at hand. */
export interface Judgement {
  what: string
  wanted: string
  seen: string
  holds: boolean
}

/** Sizes from which a process's first steps no longer count. */
const LARGE = 10_000

/** The targets of DESIGN.md, Speed, and those of nftables in bulk, of which the runs have figures. */
export function judge(runs: readonly Run[]): Judgement[] {
  const outcomes = runs.flatMap((run) => run.outcomes)
  const lines = outcomes.flatMap(linesOf)
  const of = (scenario: string, name: string, part?: string) =>
    lines.filter((line) => line.scenario === scenario && line.name === name && line.part === part)
  const found: Judgement[] = []
  const target = <T>(
    what: string,
    wanted: string,
    all: readonly T[],
    say: (each: T) => string,
    holds: (each: T) => boolean,
  ) => {
    if (all.length > 0) found.push({ what, wanted, seen: all.map(say).join('<br>'), holds: all.every(holds) })
  }
  const at = ({ step, size }: Line) => `${step} ${size.toLocaleString('en')}`

  const commits = of('policies', 'xfrmesh', 'commit').filter(({ size }) => size >= LARGE)
  const besideFloor = commits.filter(({ toFloor }) => toFloor !== undefined)
  target(
    'from `commit()` to its result, against the floor',
    'at most 1.05 times',
    besideFloor,
    (line) => `${at(line)}: ${line.toFloor!.median.toFixed(2)}`,
    (line) => line.toFloor!.median <= 1.05,
  )
  target(
    'building through objects',
    'at most 1 µs an operation',
    of('policies', 'xfrmesh', 'build').filter(({ size }) => size >= LARGE),
    (line) => `${at(line)}: ${digits(line.microsecondsEach)} µs`,
    (line) => line.microsecondsEach <= 1,
  )
  const own = lines.filter(
    ({ scenario, size, part }) => scenario === 'records' && size >= LARGE && part === 'javascript',
  )
  target(
    "an Overlay's own work, all of it: plan, records, answers",
    'at most 0.3 µs an operation',
    own.filter(({ step }) => step !== 'again'),
    (line) => `${at(line)}, ${line.name.split(', ')[1]!}: ${digits(line.microsecondsEach)} µs`,
    (line) => line.microsecondsEach <= 0.3,
  )
  target(
    '100,000 peers added that are there (that nothing is sent, each round checks)',
    'under 50 ms',
    own.filter(({ step, size }) => step === 'again' && size === 100_000),
    (line) => `${line.name.split(', ')[1]!}: ${digits(line.medianMs)} ms`,
    (line) => line.medianMs < 50,
  )
  const largest = Math.max(...commits.map(({ size }) => size))
  const small = of('policies', 'xfrmesh', 'commit').filter(({ size }) => size === 1000)
  target(
    'our ratio to the floor at the largest size, against that at 1,000',
    'at most 1.1 times',
    besideFloor.filter(({ size, step }) => size === largest && small.some((line) => line.step === step)),
    (line) => `${line.step}: ${ratioOf(line, small).toFixed(2)}`,
    (line) => ratioOf(line, small) <= 1.1,
  )
  const gains = outcomes.flatMap(gainsOf)
  const enough = ({ ours, floors }: Gain) => ours >= 0.95 * floors
  const said = ({ outcome, step, ours, floors }: Gain) =>
    `${step} ${outcome.size.toLocaleString('en')}: ${ours.toFixed(1)} times (the floor ${floors.toFixed(1)})`
  target(
    'policies, from `commit()`, against Go',
    'at least 0.95 of what the floor gains',
    gains.filter(({ outcome: { scenario, size } }) => scenario === 'policies' && size >= LARGE),
    said,
    enough,
  )
  target(
    "peers, all of an Overlay's call, against Go, by instructions (the floor of comparing only reads)",
    'at least 0.95 of what the floor gains',
    gains
      .filter(({ outcome: { scenario, place } }) => scenario === 'peers-shared' && place === 'counted')
      .filter(({ step }) => step !== 'compare'),
    said,
    enough,
  )
  target(
    'a first load of 20,000 policies with `boost`',
    'at most half the time',
    of('policies', 'xfrmesh, boost', 'commit').filter(({ size, step }) => size === 20_000 && step === 'add'),
    (line) => (line.medianMs / same(line, commits).medianMs).toFixed(2),
    (line) => line.medianMs <= 0.5 * same(line, commits).medianMs,
  )
  for (const step of ['add', 'rotate']) {
    target(
      `a peer, ${step}, against Docker's calls from Go, in the lab`,
      'at least 4 times as fast',
      of('peers-shared', 'Go (Docker)').filter(({ step: which, place }) => which === step && place !== 'here'),
      (line) => `${line.size.toLocaleString('en')}, ${line.place}: ${line.toOurs!.toFixed(1)}`,
      (line) => line.toOurs! >= 4,
    )
  }
  target(
    "the event loop's delay at the 99th percentile from `commit()` to its result, over that of an idle process",
    'at most 2 ms, for 50,000 policies',
    effectsOf(outcomes, 'policies', 50_000),
    ({ name, step, effects }) => `${name}, ${step}: ${digits(effects.loopP99Ms - effects.idleP99Ms)} ms`,
    ({ effects }) => effects.loopP99Ms - effects.idleP99Ms <= 2,
  )
  target(
    'JavaScript heap a peer, the buffers beside it included',
    'under 300 bytes',
    ['peers-shared', 'peers-per-peer', 'records'].flatMap((scenario) =>
      [LARGE, 10 * LARGE].flatMap((size) => effectsOf(outcomes, scenario, size).filter(({ step }) => step === 'add')),
    ),
    ({ scenario, name, size, effects }) =>
      `${scenario}, ${size.toLocaleString('en')}, ${name}: ${digits(effects.heapBytes / size)} and ${digits(effects.bufferBytes / size)} bytes`,
    ({ size, effects }) => (effects.heapBytes + effects.bufferBytes) / size < 300,
  )
  return [...found, ...judgeNft(lines)]
}

interface Affected {
  scenario: string
  size: number
  name: string
  step: string
  effects: Effects
}

function effectsOf(outcomes: readonly Outcome[], scenario: string, size: number): Affected[] {
  return outcomes
    .filter((outcome) => outcome.scenario === scenario && outcome.size === size)
    .flatMap(({ anatomies = [] }) => anatomies)
    .flatMap(({ name, steps }) =>
      Object.entries(steps).map(([step, effects]) => ({ scenario, size, name, step, effects })),
    )
}

function same(line: Line, others: readonly Line[]): Line {
  const other = others.find(({ size, step }) => size === line.size && step === line.step)
  if (other === undefined) throw new Error(`no figures beside ${line.scenario}, ${line.step}, ${line.size}`)
  return other
}

function ratioOf(line: Line, small: readonly Line[]): number {
  return line.toFloor!.median / small.find(({ step }) => step === line.step)!.toFloor!.median
}

/** How many times our time Docker's calls take, from `commit()` on where that is told apart, and the floor's, pair by pair. */
interface Gain {
  outcome: Outcome
  step: string
  ours: number
  floors: number
}

function gainsOf(outcome: Outcome): Gain[] {
  const samples = (wanted: string) => outcome.contestants.find(({ name }) => name === wanted)?.samples
  const [ours, floor, go] = [samples('xfrmesh'), samples('floor (C)'), samples('Go (Docker)')]
  return outcome.steps.flatMap(({ name: step }) => {
    const [our, least, theirs] = [ours?.[step], floor?.[step], go?.[step]]
    if (our === undefined || least === undefined || theirs === undefined) return []
    const all = theirs.map(({ ms }) => ms)
    const gain = (of: readonly number[]) => median(ratios(all, of))
    const committed = our.map(({ ms, commitMs }) => commitMs ?? ms)
    return [{ outcome, step, ours: gain(committed), floors: gain(least.map(({ ms }) => ms)) }]
  })
}
