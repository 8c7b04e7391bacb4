import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { Command } from 'commander'
import { contend, WARM_UPS } from './harness/contend.js'
import type { Contestant, Outcome, Scenario } from './harness/contest.js'
import { inLab } from './harness/lab.js'
import { describeGuest, describeMachine, type Machine } from './harness/machine.js'
import { table } from './harness/report.js'
import { scenarios } from './scenarios.js'

/** Where it is measured: on this kernel, in the lab, or in the lab by instructions instead of time. */
const places = ['here', 'lab', 'counted'] as const
export type Place = (typeof places)[number]

interface Options {
  quick?: true
  scenario?: string[]
  contestant?: string[]
  place?: Place[]
  sizes?: number[]
  rounds?: number
  out: string
  inside?: Place
  publish?: string[]
}

/** Rounds in which is looked at what ours does to its process, at most. */
const WATCHED = 5

/** What was measured in one place: what the lab writes. */
export interface Measured {
  outcomes: Outcome[]
  /** The virtual machine that it is. */
  guest?: string
}

/** What a run writes: all samples, so that any other figure can be had from it later. */
export interface Run extends Measured {
  /** What was typed after `npm run bench --`. */
  command: string
  machine: Machine
  /** Those of the lab, by places. */
  guests?: Partial<Record<Place, string>>
}

const words = (text: string) => text.split(',')
const numbers = (text: string) => words(text).map(Number)

const program = new Command('npm run bench --')
  .description('Measures xfrmesh against the floor and against its peers, on the same work.')
  .option(
    '--quick',
    'one small size, two rounds, and of what takes ESP one round of peers, to see that it works: two minutes',
  )
  .option('--scenario <name,name…>', `only these of ${scenarios.map(({ name }) => name).join(', ')}`, words)
  .option('--contestant <name...>', 'only these of each scenario, by the names in its table')
  .option(
    '--place <place,place…>',
    'here: this kernel, for what takes no ESP; lab; counted: the lab, by instructions, the same twice (default: here,lab,counted; with --quick here,lab)',
    words,
  )
  .option('--sizes <n,n…>', "instead of the scenarios' own", numbers)
  .option('--rounds <n>', 'default 21; counted 3; with --quick 2, and 1 but here', Number)
  .option('--out <directory>', 'where results.json and the pictures go', 'build/bench-results')
  .option('--publish <results.json...>', 'measure nothing: make bench/RESULTS.md and its pictures of these runs')
  .option('--inside <place>', 'this is that place already: how the lab calls it')
  .action(main)

async function main(options: Options): Promise<void> {
  if (options.publish !== undefined) {
    const { publish } = await import('./publish.js')
    await publish(options.publish, 'bench')
    return
  }
  const chosen = scenarios.filter(({ name }) => options.scenario?.includes(name) ?? true)
  if (chosen.length === 0) throw new Error(`no such scenario: ${String(options.scenario)}`)
  const out = resolve(options.out)
  await mkdir(out, { recursive: true })
  const measured: Measured = { outcomes: [] }
  const file = join(out, 'results.json')
  const writing = (run: Measured) => async () => {
    await writeFile(`${file}.new`, `${JSON.stringify(run)}\n`)
    await rename(`${file}.new`, file)
  }
  if (options.inside !== undefined) {
    measured.guest = describeGuest()
    await measure(chosen, options, options.inside, measured, writing(measured))
    return
  }
  const run: Run = { command: process.argv.slice(2).join(' '), machine: await describeMachine(), ...measured }
  const write = writing(run)
  const isLeftOut = ({ long }: Scenario) => long === true && options.quick === true && options.scenario === undefined
  for (const place of options.place ?? (options.quick ? ['here', 'lab'] : places)) {
    const able = chosen.filter((scenario) => scenario.needsEsp === (place !== 'here') && !isLeftOut(scenario))
    if (able.length === 0) continue
    if (place === 'here') {
      await measure(able, options, place, run, write)
    } else {
      const names = able.map(({ name }) => name)
      await inLab(place, names, passedOn(options), out, async ({ outcomes, guest }) => {
        run.guests = { ...run.guests, ...(guest !== undefined && { [place]: guest }) }
        run.outcomes.push(...outcomes)
        await write()
      })
    }
  }
  // Under emulation it takes seconds to load, and what runs there draws nothing.
  const { draw } = await import('./harness/pictures.js')
  const pictures = await draw(run, out)
  console.log(`written: ${['results.json', ...pictures].map((file) => join(options.out, file)).join(', ')}`)
}

async function measure(
  chosen: readonly Scenario[],
  options: Options,
  place: Place,
  run: Measured,
  write: () => Promise<void>,
): Promise<void> {
  for (const scenario of chosen) {
    for (const size of sizesOf(scenario, options)) {
      const rounds = options.rounds ?? roundsOf(scenario, size, place, options.quick === true)
      const outcome = await contend(
        only(scenario, options),
        size,
        { rounds, ...besides(place, rounds, options) },
        place,
      )
      run.outcomes.push(outcome)
      console.log(table(outcome))
      await write()
    }
  }
}

function only(scenario: Scenario, { contestant: names, quick }: Options): Scenario {
  // Of so few peers as a quick run has none is boosted.
  if (names === undefined) return quick ? { ...scenario, ours: scenario.ours.slice(0, 1) } : scenario
  const isNamed = ({ name }: Contestant) => names.includes(name)
  const ours = scenario.ours.filter(isNamed)
  const others = async (size: number) => {
    const all = await scenario.others(size)
    const chosen = all.filter(isNamed)
    if (ours.length + chosen.length > 0) return chosen
    const there = [...scenario.ours, ...all].map(({ name }) => `'${name}'`).join(', ')
    return program.error(`${scenario.name} has no such contestant; it has ${there}`)
  }
  return { ...scenario, ours, others }
}

function sizesOf({ sizes }: Scenario, { sizes: asked, quick }: Options): readonly number[] {
  return asked ?? (quick ? sizes.quick : sizes.full)
}

/** Counted, a round is as the one before, but for what is left to chance in JavaScript's compiler. */
function roundsOf(scenario: Scenario, size: number, place: Place, quick: boolean): number {
  const rounds = quick ? (place === 'here' ? 2 : 1) : place === 'counted' ? 3 : 21
  return Math.min(rounds, scenario.mostRounds?.(size) ?? rounds)
}

/** What there is of rounds beside those that are measured. */
function besides(place: Place, rounds: number, { quick }: Options): { warmUps: number; watched: number } {
  // Under emulation a process that strace looks on at takes half a minute.
  if (quick) return { warmUps: 1, watched: place === 'here' ? 1 : 0 }
  return { warmUps: WARM_UPS, watched: Math.min(WATCHED, rounds) }
}

function passedOn({ quick, sizes, rounds, contestant }: Options): string[] {
  return [
    ...(contestant ? ['--contestant', ...contestant] : []),
    ...(quick ? ['--quick'] : []),
    ...(sizes ? ['--sizes', sizes.join()] : []),
    ...(rounds === undefined ? [] : ['--rounds', String(rounds)]),
  ]
}

await program.parseAsync()
