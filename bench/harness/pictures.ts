import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as vega from 'vega'
import { compile, type TopLevelSpec } from 'vega-lite'
import type { Measured } from '../main.js'
import { AGAIN } from './contend.js'
import type { Outcome } from './contest.js'
import { type Line, linesOf } from './report.js'

interface Point {
  name: string
  size: number
  step: string
  value: number
  low: number
  high: number
}

/**
 * For each scenario with more than one size: time over size, and time an operation over size, or the rate over size where
 * that is what is asked; and the event loop's delay.
 * Returns the files' names.
 */
export async function draw({ outcomes }: Measured, directory: string): Promise<string[]> {
  const files: string[] = []
  const lines = outcomes.flatMap(linesOf)
  for (const about of new Set(lines.map(({ scenario, place }) => `${scenario}, ${place}`))) {
    const own = lines.filter(
      ({ scenario, place, part, name }) => `${scenario}, ${place}` === about && part === undefined && name !== AGAIN,
    )
    if (new Set(own.map(({ size }) => size)).size < 2) continue
    const { scenario, unit, place } = own[0]!
    const each = (line: Line) => line.microsecondsEach / line.medianMs
    const rate = outcomes.find((outcome) => outcome.scenario === scenario)?.rate
    if (rate !== undefined) {
      const name = `${scenario}-rate`
      files.push(await picture(directory, name, chart(own.map(ratePoint), unit, rate, `${about}: ${rate}`)))
      continue
    }
    const total = own.map((line) => point(line, 1))
    const single = own.map((line) => point(line, each(line)))
    const name = place === 'here' ? scenario : `${scenario}-${place}`
    files.push(await picture(directory, `${name}-time`, chart(total, unit, 'milliseconds', `${about}: time`)))
    files.push(
      await picture(
        directory,
        `${name}-each`,
        chart(single, unit, 'microseconds an operation', `${about}: time an operation`),
      ),
    )
  }
  const delayed = outcomes.flatMap(delaysOf)
  if (delayed.length > 0) files.push(await picture(directory, 'event-loop-delay', delays(delayed)))
  return files
}

interface Delayed {
  scenario: string
  step: string
  size: number
  delay: number
}

/** By how much the event loop was later, at the 99th percentile, while ours did a step than while it did nothing. */
function delaysOf({ scenario, place, unit, size, anatomies = [] }: Outcome): Delayed[] {
  // Counted in instructions there is no such thing.
  if (place === 'counted') return []
  return anatomies.slice(0, 1).flatMap(({ steps }) =>
    Object.entries(steps).map(([step, { loopP99Ms, idleP99Ms }]) => {
      const delay = Math.max(0, loopP99Ms - idleP99Ms)
      return { scenario: `${scenario}, ${place}: ${unit}`, step, size, delay }
    }),
  )
}

function delays(values: readonly Delayed[]): TopLevelSpec {
  return {
    title: "the event loop's delay at the 99th percentile, over that of an idle process",
    data: { values: [...values] },
    facet: { field: 'scenario', type: 'nominal', title: null, sort: null },
    columns: 3,
    spec: {
      width: 260,
      height: 220,
      mark: { type: 'line', point: true },
      encoding: {
        x: { field: 'size', type: 'quantitative', scale: { type: 'log' }, title: null },
        y: { field: 'delay', type: 'quantitative', title: 'milliseconds' },
        color: { field: 'step', type: 'nominal', title: null, sort: null },
      },
    },
    resolve: { scale: { color: 'independent', x: 'independent' } },
    config: { background: 'white', font: 'sans-serif' },
  }
}

function point({ name, size, step, medianMs, lowMs, highMs }: Line, factor: number): Point {
  return { name, size, step, value: medianMs * factor, low: lowMs * factor, high: highMs * factor }
}

/** Operations in a second. */
function ratePoint({ name, size, step, medianMs, lowMs, highMs, microsecondsEach }: Line): Point {
  const rate = (ms: number) => (1e6 * medianMs) / (microsecondsEach * ms)
  return { name, size, step, value: rate(medianMs), low: rate(highMs), high: rate(lowMs) }
}

/** A panel a step; both axes logarithmic, so that what is linear is a straight line; quartiles as a band. */
function chart(values: readonly Point[], unit: string, what: string, title: string): TopLevelSpec {
  const log = { type: 'log' as const }
  // A logarithm has no zero: then the axis is linear up to 1.
  const sizes = [...new Set(values.map(({ size }) => size))]
  const scale = sizes.includes(0) ? { type: 'symlog' as const } : log
  const axis = sizes.includes(0) ? { values: sizes } : {}
  const x = { field: 'size', type: 'quantitative' as const, scale, axis, title: unit }
  const colour = { field: 'name', type: 'nominal' as const, title: null, sort: null }
  return {
    title,
    data: { values: [...values] },
    facet: { field: 'step', type: 'nominal', title: null, sort: null },
    columns: 3,
    spec: {
      width: 260,
      height: 220,
      layer: [
        {
          mark: { type: 'area', opacity: 0.18 },
          encoding: {
            x,
            y: { field: 'low', type: 'quantitative', scale: log, title: what },
            y2: { field: 'high' },
            color: colour,
          },
        },
        {
          mark: { type: 'line', point: true },
          encoding: { x, y: { field: 'value', type: 'quantitative', scale: log, title: what }, color: colour },
        },
      ],
    },
    config: { background: 'white', font: 'sans-serif' },
  }
}

export async function picture(directory: string, name: string, spec: TopLevelSpec): Promise<string> {
  const view = new vega.View(vega.parse(compile(spec).spec), { renderer: 'none' })
  const file = `${name}.svg`
  await writeFile(join(directory, file), `${await view.toSVG()}\n`)
  return file
}
