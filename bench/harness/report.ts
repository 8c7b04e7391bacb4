import { AGAIN } from './contend.js'
import type { Anatomy, Outcome, Results, Sample } from './contest.js'
import { median, ratios, spread } from './statistics.js'

/** One line of the table: how a contestant did one step at one size. */
export interface Line {
  scenario: string
  place: string
  unit: string
  size: number
  step: string
  /** A contestant, or with `part` some of its time. */
  name: string
  part?: string
  rounds: number
  medianMs: number
  /** Quartiles. */
  lowMs: number
  highMs: number
  microsecondsEach: number
  /** Median of the ratios, pair by pair, to the floor; with their quartiles. Absent for the floor, and without one. */
  toFloor?: { median: number; low: number; high: number }
  /** Median of the ratios, pair by pair, to ours: how many times our time it took. */
  toOurs?: number
  /** Medians of whatever else its samples have. */
  figures: Record<string, number>
}

const floorName = (outcome: Outcome) => outcome.contestants.find(({ role }) => role === 'floor')?.name

export function linesOf(outcome: Outcome): Line[] {
  return outcome.steps.flatMap((step) =>
    outcome.contestants
      .filter(({ samples }) => samples[step.name] !== undefined)
      .flatMap((results) => linesOfStep(outcome, results, step)),
  )
}

function linesOfStep(outcome: Outcome, results: Results, step: Outcome['steps'][number]): Line[] {
  const { scenario, place, unit, size, contestants } = outcome
  const samples = results.samples[step.name]!
  const of = (name: string | undefined) =>
    contestants.find((contestant) => contestant.name === name)?.samples[step.name]?.map(({ ms }) => ms)
  const floor = results.name === floorName(outcome) ? undefined : of(floorName(outcome))
  const ours = contestants.find(({ role }) => role === 'ours')?.name
  const line = (values: readonly number[], part?: string): Line => {
    const { median: medianMs, low: lowMs, high: highMs } = spread(values)
    const pairs = floor && spread(ratios(values, floor))
    const toOurs = of(ours)
    return {
      ...{ scenario, place, unit, size, step: step.name, name: results.name, ...(part !== undefined && { part }) },
      rounds: values.length,
      medianMs,
      lowMs,
      highMs,
      microsecondsEach: (medianMs * 1000) / step.operations,
      ...(pairs && { toFloor: { median: pairs.median, low: pairs.low, high: pairs.high } }),
      ...(toOurs && results.name !== ours && { toOurs: median(ratios(values, toOurs)) }),
      figures: part === undefined ? figuresOf(samples) : {},
    }
  }
  const parts = Object.keys(samples[0]!).filter((figure) => figure.endsWith('Ms'))
  return [
    line(samples.map(({ ms }) => ms)),
    ...parts.map((part) =>
      line(
        samples.map((sample) => sample[part]!),
        part.slice(0, -2),
      ),
    ),
  ]
}

function figuresOf(samples: readonly Sample[]): Record<string, number> {
  const names = Object.keys(samples[0]!).filter((name) => name !== 'ms' && !name.endsWith('Ms'))
  return Object.fromEntries(names.map((name) => [name, median(samples.map((sample) => sample[name]!))]))
}

/** For a terminal: a block for each size and step, a line for each contestant. */
export function table(outcome: Outcome): string {
  const { scenario, title, size, unit, place, rounds, shows = [] } = outcome
  const blocks = [`${scenario}: ${title}`, `${size.toLocaleString('en')} ${unit}, ${rounds} rounds, ${place}`]
  const head = ['', 'median ms', 'quartiles', 'µs each', 'to the floor', 'quartiles', 'to ours', ...shows]
  const lines = linesOf(outcome)
  for (const step of outcome.steps) {
    const rows = lines
      .filter((line) => line.step === step.name)
      .map((line) => [...row(line, rounds), ...shows.map((figure) => shown(line, figure))])
    blocks.push(aligned([[step.name, ...head.slice(1)], ...rows]))
  }
  if (outcome.anatomies?.[0] !== undefined) blocks.push(effects(outcome.anatomies, size))
  return `${blocks.join('\n')}\n`
}

/** What each step did to the process that it was called in. */
function effects(anatomies: readonly Anatomy[], size: number): string {
  const columns = ['loop p50', 'p99', 'most ms', 'idle p99', 'collected', 'heap KiB', 'mallocs', 'kept each']
  const rest = ['peak MiB', 'KiB sent', 'received', 'system calls']
  const rows = anatomies.flatMap(({ name, steps }) =>
    Object.entries(steps).map(([step, e]) => {
      const calls = Object.entries(e.systemCalls)
      const total = calls.reduce((sum, [, count]) => sum + count, 0)
      const first = calls.slice(0, 3).map(([call, count]) => `${count} ${call}`)
      return [
        `  ${step}, ${name}`,
        ...[e.loopP50Ms, e.loopP99Ms, e.loopMostMs, e.idleP99Ms].map(digits),
        `${e.collections}, ${digits(e.collectionMs)} ms`,
        digits(e.allocatedBytes / 1024),
        String(e.mallocs),
        `${digits(e.heapBytes / size)} + ${digits(e.bufferBytes / size)} B`,
        digits(e.peakKiB / 1024),
        ...[e.bytesSent / 1024, e.bytesReceived / 1024].map(digits),
        `${total}: ${first.join(', ')}`,
      ]
    }),
  )
  return aligned([["its process's", ...columns, ...rest], ...rows])
}

function shown({ figures }: Line, figure: string): string {
  const value = figures[figure]
  return value === undefined ? '' : digits(value)
}

function row(line: Line, rounds: number): string[] {
  const { part, name, medianMs, lowMs, highMs, microsecondsEach, toFloor, toOurs, figures } = line
  if ((figures['nothing'] ?? 0) > 0) return [`  ${name}`, 'nothing came through', '', '', '', '', '']
  const fewer = line.rounds < rounds ? `, ${line.rounds} rounds` : ''
  return [
    part === undefined ? `  ${name}${fewer}` : `    of it ${part}`,
    digits(medianMs),
    `${digits(lowMs)}–${digits(highMs)}`,
    digits(microsecondsEach),
    toFloor ? toFloor.median.toFixed(2) : '',
    toFloor ? `${toFloor.low.toFixed(2)}–${toFloor.high.toFixed(2)}` : '',
    toOurs === undefined || part !== undefined || name === AGAIN ? '' : `${toOurs.toFixed(1)} ×`,
  ]
}

/** Three digits that count. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return '–'
  const size = Math.abs(value)
  return size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(2)
}

function aligned(rows: readonly string[][]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((cells) => cells[column]!.length)))
  const cell = (text: string, column: number) =>
    column === 0 ? text.padEnd(widths[column]!) : text.padStart(widths[column]!)
  return rows.map((cells) => cells.map(cell).join('  ').trimEnd()).join('\n')
}
