import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as vega from 'vega'
import { compile, type TopLevelSpec } from 'vega-lite'
import { AGAIN } from './contend.js'
import type { Line } from './report.js'

interface Point {
  name: string
  size: number
  step: string
  value: number
  low: number
  high: number
}

/** For each scenario with more than one size: time over size, and time an operation over size. Returns the files' names. */
export async function draw(lines: readonly Line[], directory: string): Promise<string[]> {
  const files: string[] = []
  for (const scenario of new Set(lines.map((line) => line.scenario))) {
    const own = lines.filter((line) => line.scenario === scenario && line.part === undefined && line.name !== AGAIN)
    if (new Set(own.map(({ size }) => size)).size < 2) continue
    const { unit, place } = own[0]!
    const each = (line: Line) => line.microsecondsEach / line.medianMs
    const total = own.map((line) => point(line, 1))
    const single = own.map((line) => point(line, each(line)))
    const about = `${scenario}, ${place}`
    files.push(await picture(directory, `${scenario}-time`, chart(total, unit, 'milliseconds', `${about}: time`)))
    files.push(
      await picture(
        directory,
        `${scenario}-each`,
        chart(single, unit, 'microseconds an operation', `${about}: time an operation`),
      ),
    )
  }
  return files
}

function point({ name, size, step, medianMs, lowMs, highMs }: Line, factor: number): Point {
  return { name, size, step, value: medianMs * factor, low: lowMs * factor, high: highMs * factor }
}

/** A panel a step; both axes logarithmic, so that what is linear is a straight line; quartiles as a band. */
function chart(values: readonly Point[], unit: string, what: string, title: string): TopLevelSpec {
  const log = { type: 'log' as const }
  const x = { field: 'size', type: 'quantitative' as const, scale: log, title: unit }
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
