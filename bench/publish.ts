import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Machine } from './harness/machine.js'
import { draw } from './harness/pictures.js'
import { table } from './harness/report.js'
import type { Run } from './main.js'
import { judge } from './targets.js'

/**
 * Makes RESULTS.md of what runs came to, and their pictures beside it, in a directory of the checkout. What it has of
 * scenarios that were not run again stays.
 */
export async function publish(files: readonly string[], directory: string): Promise<void> {
  const read = await Promise.all(files.map(async (file) => JSON.parse(await readFile(file, 'utf8')) as Run))
  const inside = files.find((_, i) => (read[i] as Partial<Run>).machine === undefined)
  if (inside !== undefined) throw new Error(`${inside} is what the lab wrote: publish the results.json above it`)
  const runs = lastOf(read)
  const pictures = join(directory, 'pictures')
  await mkdir(pictures, { recursive: true })
  const drawn = await draw({ outcomes: runs.flatMap(({ outcomes }) => outcomes) }, pictures)
  const judged = judge(runs).map(
    ({ what, wanted, seen, holds }) => `| ${what} | ${wanted} | ${seen} | ${holds ? 'yes' : '**no**'} |`,
  )
  const path = join(directory, 'RESULTS.md')
  const before = earlier(await readFile(path, 'utf8'), judged, runs)
  const text = [
    '# Results',
    '',
    'Made by `npm run bench -- --publish`: what stands here is what those runs wrote. Each says of which commit and machine it',
    'is: what was not run again stays, and of what was, the latest is shown.',
    'Each line is a median of its rounds; ratios are taken pair by pair within a round, and the floor again beside the floor',
    'shows what chance alone does. Ours is a process that has been up for a while; the floor and the peers are started for',
    'each round, before their clock. `here` is the kernel of the machine, `lab` the virtual machine (emulated: slow, the same',
    'for all), `counted` the lab with a clock that counts instructions.',
    '',
    '## Targets',
    '',
    'Those of DESIGN.md, Speed, and those of nftables in bulk.',
    '',
    '| target | wanted | seen | holds |',
    '| --- | --- | --- | --- |',
    ...judged,
    ...before.targets,
    '',
    ...drawn.flatMap((picture) => [`![${picture.replace('.svg', '')}](pictures/${picture})`, '']),
    ...runs.map(section),
    ...before.sections,
  ]
  await writeFile(path, text.join('\n'))
}

/** The latest run first; of what was measured more than once, at one size in one place, what came of it last. */
function lastOf(runs: readonly Run[]): Run[] {
  const seen = new Set<string>()
  const isNew = (what: string) => !seen.has(what) && seen.add(what)
  return runs
    .toSorted((a, b) => b.machine.date.localeCompare(a.machine.date))
    .map((run) => ({
      ...run,
      outcomes: run.outcomes.filter(({ scenario, place, size }) => isNew(`${scenario}, ${place}, ${size}`)),
    }))
}

/** What RESULTS.md has of targets that were not judged anew, and the tables of what was not run again at that size and place. */
function earlier(
  text: string,
  judged: readonly string[],
  runs: readonly Run[],
): { targets: string[]; sections: string[] } {
  const what = (row: string) => row.split(' | ')[0]!
  const fresh = new Set(judged.map(what))
  const targets = text.split('\n').filter((row) => row.startsWith('| ') && !/^\| (target|---) /.test(row))
  const measured = new Set(
    runs.flatMap(({ outcomes }) => outcomes.map(({ scenario, place, size }) => `${scenario}, ${place}, ${size}`)),
  )
  const sections = text
    .split(/^(?=## `)/m)
    .slice(1)
    .map((section) =>
      section.replace(TABLE, (table: string, scenario: string, size: string, place: string) =>
        measured.has(`${scenario}, ${place}, ${size.replaceAll(',', '')}`) ? '' : table,
      ),
    )
  return {
    targets: targets.filter((row) => !fresh.has(what(row))),
    sections: sections.filter((section) => section.includes('```text')),
  }
}

/** One of RESULTS.md: of which scenario, at which size, in which place. */
const TABLE = /^```text\n(\S+): .*\n([\d,]+) .* rounds, (\w+)\n[^]*?^```\n\n/gm

function section(run: Run): string {
  const { command, machine, outcomes, guests = {} } = run
  return [
    `## \`npm run bench -- ${withoutPlaceOfResults(command)}\``,
    '',
    ...about(machine),
    ...Object.entries(guests).map(([place, guest]) => `- ${place}: ${guest}`),
    '',
    ...outcomes.flatMap((outcome) => ['```text', table(outcome).trimEnd(), '```', '']),
  ].join('\n')
}

/** Where its results went says nothing of how they came about. */
function withoutPlaceOfResults(command: string): string {
  return command.replace(/ ?--out[ =]\S+/, '').trim()
}

function about(machine: Machine): string[] {
  const { kernel, rcuExpedited, processors, memoryGiB, node, commit, versions, load, date } = machine
  const tools = Object.entries(versions).map(([name, version]) => `${name} ${version}`)
  return [
    `- ${date.slice(0, 10)}, commit ${commit}, load ${load.toFixed(2)} when it began`,
    `- ${processors}, ${memoryGiB} GiB; kernel ${kernel}${rcuExpedited ? ', RCU expedited when it began' : ''}`,
    `- Node.js ${node}; ${tools.join('; ')}`,
  ]
}
