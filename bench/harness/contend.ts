import { dissect } from '../anatomy/anatomy.js'
import { Alone, during } from './alone.js'
import type { Anatomy, Contestant, Outcome, Results, Scenario } from './contest.js'
import { round } from './round.js'

export const AGAIN = 'floor again'

/**
 * Rounds that ours goes through before the measuring begins, however few are measured; and the size of as many before these,
 * where a round would take long: the code to be compiled is the same. After so many milliseconds of either no other is begun.
 */
export const WARM_UPS = 20
const WARM_UP_SIZE = 1000
const LONGEST_WARM_UP_MS = 20_000

export interface Rounds {
  rounds: number
  warmUps: number
  /** Rounds beside the measured ones, in which is looked at what ours does to its process; 0: it is not looked at. */
  watched: number
}

/**
 * Runs a scenario at one size: a warm-up of ours and a round of each of the others, in which the kernel is looked at
 * thoroughly; then `rounds` rounds of all contestants, one after the other, each in a fresh namespace. Every other
 * round goes the other way round, so that what comes of the order falls on all alike. At the end it is looked at what ours
 * does to its process.
 */
export async function contend(scenario: Scenario, size: number, given: Rounds, place: string): Promise<Outcome> {
  const takesPart = ({ most }: Contestant) => most === undefined || size <= most
  const others = (await scenario.others(size)).filter(takesPart)
  const ours = scenario.ours.filter(takesPart).map((each) => Alone.start(scenario.name, each))
  return during(ours, async () => {
    const all = [...ours.map((each) => each.contestant), ...others]
    const outcome = await contest(scenario, all, size, given, place)
    if (scenario.warmsOnce || given.watched === 0) return outcome
    const anatomies: Anatomy[] = []
    for (const each of ours) anatomies.push(await dissect(scenario, each, size, given.watched))
    return { ...outcome, anatomies }
  })
}

async function contest(
  scenario: Scenario,
  chosen: readonly Contestant[],
  size: number,
  { rounds, warmUps }: Rounds,
  place: string,
): Promise<Outcome> {
  const entries = chosen.flatMap((contestant) =>
    contestant.role === 'floor' ? [contestant, { ...contestant, name: AGAIN }] : [contestant],
  )
  const results: Results[] = entries.map(({ name, role }) => ({ name, role, samples: {} }))
  for (const contestant of scenario.warmsOnce ? chosen.slice(0, 1) : chosen) {
    if (contestant.role === 'ours' && !scenario.warmsOnce) await warmUp(scenario, contestant, size, warmUps)
    else await round(scenario, contestant, size, true)
  }
  for (let i = 0; i < rounds; i++) {
    const order = [...entries.keys()]
    for (const at of i % 2 === 0 ? order : order.reverse()) {
      if (i >= (entries[at]!.mostRounds?.(size) ?? rounds)) continue
      const samples = await round(scenario, entries[at]!, size, false)
      for (const [step, sample] of samples) (results[at]!.samples[step] ??= []).push(sample)
    }
  }
  const { name, title, unit, rate, shows } = scenario
  const steps = scenario.steps.map((step) => ({ name: step.name, operations: step.operations(size) }))
  const about = { scenario: name, title, unit, size, place, rounds, ...(rate && { rate }), ...(shows && { shows }) }
  return { ...about, steps, contestants: results }
}

/** JavaScript is compiled as it runs: what is measured is a daemon that has been up for a while. */
async function warmUp(scenario: Scenario, ours: Contestant, size: number, rounds: number): Promise<void> {
  const several = async (objects: number) => {
    const until = performance.now() + LONGEST_WARM_UP_MS
    for (let i = 1; i < rounds && performance.now() < until; i++) await round(scenario, ours, objects, false)
  }
  if (size > WARM_UP_SIZE) await several(WARM_UP_SIZE)
  await round(scenario, ours, size, true)
  await several(size)
}
