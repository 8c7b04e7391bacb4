import { randomUUID } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import { Namespace } from '#dist/demo/namespace.js'
import { run } from '#dist/demo/processes.js'
import { alone } from './alone.js'
import type { Contestant, Outcome, Results, Sample, Scenario } from './contest.js'

export const AGAIN = 'floor again'

/**
 * Rounds that ours has gone through when the measuring begins, however few are measured; and milliseconds after which no
 * other is begun.
 */
export const WARM_UPS = 20
const LONGEST_WARM_UP_MS = 20_000
/** Milliseconds after a round, for 10,000 objects and more. */
const LONGEST_SETTLING_MS = 100

export interface Rounds {
  rounds: number
  warmUps: number
}

/**
 * Runs a scenario at one size: `warmUps` rounds of ours, in the first of which, as in one of each of the others, the kernel
 * is looked at thoroughly; then `rounds` rounds of all contestants, one after the other, each in a fresh namespace. Every other round goes the other way round, so that what
 * comes of the order falls on all alike.
 */
export async function contend(
  scenario: Scenario,
  size: number,
  { rounds, warmUps }: Rounds,
  place: string,
): Promise<Outcome> {
  const takesPart = ({ most }: Contestant) => most === undefined || size <= most
  const others = (await scenario.others(size)).filter(takesPart)
  const ours = scenario.ours.filter(takesPart).map((each) => alone(scenario.name, each, size))
  const end = () => Promise.all(ours.map((each) => each.end()))
  try {
    const outcome = await contest(scenario, [...ours.map((each) => each.contestant), ...others], size, { rounds, warmUps }, place)
    await end()
    return outcome
  } catch (error) {
    await end().catch(() => undefined)
    throw error
  }
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
    const began = performance.now()
    await round(scenario, contestant, size, true)
    if (contestant.role !== 'ours' || scenario.warmsOnce) continue
    // JavaScript is compiled as it runs: what is measured is a daemon that has been up for a while.
    for (let i = 1; i < warmUps; i++) {
      if (performance.now() - began > LONGEST_WARM_UP_MS) break
      await round(scenario, contestant, size, false)
    }
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

async function round(
  scenario: Scenario,
  contestant: Contestant,
  size: number,
  thorough: boolean,
): Promise<Map<string, Sample>> {
  const samples = await inNamespace(async (namespace) => {
    const samples = new Map<string, Sample>()
    await scenario.prepare?.(namespace)
    const session = await contestant.open(namespace, size)
    try {
      for (const step of scenario.steps) {
        if (contestant.without?.includes(step.name) === true) continue
        try {
          await step.before?.(namespace, size)
          samples.set(step.name, await session.step(step.name))
          await step.check(namespace, size, thorough)
        } catch (error) {
          throw new Error(`${scenario.name}, ${size}: ${contestant.name}, ${step.name}: ${String(error)}`, {
            cause: error,
          })
        }
      }
    } catch (error) {
      // What came first is what is told.
      await session.close().catch(() => undefined)
      throw error
    }
    await session.close()
    return samples
  })
  // No clock is to run while the kernel takes the namespace apart.
  await setTimeout(Math.min(LONGEST_SETTLING_MS, size / 100))
  return samples
}

/**
 * Gives `work` a network namespace of its own and removes it, whatever came of it. The kernel takes it apart once the
 * command has ended.
 */
export async function inNamespace<T>(work: (namespace: Namespace) => Promise<T>): Promise<T> {
  const namespace = new Namespace(`xfrmesh-bench-${randomUUID().slice(0, 8)}`)
  await run('ip', ['netns', 'add', namespace.name])
  try {
    await run('ip', ['-n', namespace.name, 'link', 'set', 'lo', 'up'])
    return await work(namespace)
  } finally {
    await run('ip', ['netns', 'delete', namespace.name])
  }
}
