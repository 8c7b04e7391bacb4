import { mkdir, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Command, Option } from 'commander'
import { contend } from './harness/contend.js'
import type { Outcome, Scenario } from './harness/contest.js'
import { describeMachine, type Machine } from './harness/machine.js'
import { draw } from './harness/pictures.js'
import { linesOf, table } from './harness/report.js'
import { scenarios } from './scenarios.js'

interface Options {
  quick?: true
  scenario?: string[]
  sizes?: number[]
  rounds?: number
  out: string
  place: string
}

/** What a run writes: all samples, so that any other figure can be had from it later. */
interface Run {
  machine: Machine
  outcomes: Outcome[]
}

const numbers = (text: string) => text.split(',').map(Number)

const program = new Command('bench')
  .description('Measures xfrmesh against the floor and against its peers, on the same work.')
  .option('--quick', 'small sizes, few rounds: under two minutes')
  .option('--scenario <name…>', `only these of ${scenarios.map(({ name }) => name).join(', ')}`)
  .option('--sizes <n,n…>', "instead of the scenarios' own", numbers)
  .option('--rounds <n>', 'default 21, with --quick 3', Number)
  .option('--out <directory>', 'where results.json and the pictures go', 'build/bench-results')
  .addOption(new Option('--place <name>').default('this kernel').hideHelp())
  .action(main)

async function main(options: Options): Promise<void> {
  const chosen = scenarios.filter(({ name }) => options.scenario?.includes(name) ?? true)
  if (chosen.length === 0) throw new Error(`no such scenario: ${String(options.scenario)}`)
  const out = resolve(options.out)
  await mkdir(out, { recursive: true })
  const run: Run = { machine: await describeMachine(), outcomes: [] }
  for (const scenario of chosen) {
    for (const size of sizesOf(scenario, options)) {
      const outcome = await contend(scenario, size, options.rounds ?? (options.quick ? 3 : 21), options.place)
      run.outcomes.push(outcome)
      console.log(table(outcome))
      await writeFile(join(out, 'results.json'), `${JSON.stringify(run)}\n`)
    }
  }
  const pictures = await draw(run.outcomes.flatMap(linesOf), out)
  console.log(`written: ${['results.json', ...pictures].map((file) => join(options.out, file)).join(', ')}`)
}

function sizesOf({ sizes }: Scenario, { sizes: asked, quick }: Options): readonly number[] {
  return asked ?? (quick ? sizes.quick : sizes.full)
}

await program.parseAsync()
