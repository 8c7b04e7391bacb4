import { randomUUID } from 'node:crypto'
import { Namespace } from '#dist/demo/namespace.js'
import { run } from '#dist/demo/processes.js'
import type { Contestant, Outcome, Results, Sample, Scenario } from './contest.js'

export const AGAIN = 'floor again'

/** Objects that ours has gone through when the measuring begins, in so many rounds at most. */
const WARM = 10_000
const MOST_WARM_UPS = 5

/**
 * Runs a scenario at one size: a warm-up round in which the kernel is looked at thoroughly, then `rounds` rounds of all
 * contestants, one after the other, each in a fresh namespace. Every other round goes the other way round, so that what
 * comes of the order falls on all alike.
 */
export async function contend(scenario: Scenario, size: number, rounds: number, place: string): Promise<Outcome> {
  const chosen = (await scenario.contestants(size)).filter(({ most }) => most === undefined || size <= most)
  const entries = chosen.flatMap((contestant) =>
    contestant.role === 'floor' ? [contestant, { ...contestant, name: AGAIN }] : [contestant],
  )
  const results: Results[] = entries.map(({ name, role }) => ({ name, role, samples: {} }))
  for (const contestant of scenario.warmsOnce ? chosen.slice(0, 1) : chosen) {
    await round(scenario, contestant, size, true)
    // JavaScript is compiled as it runs: what is measured is a daemon that has been up for a while.
    const more = contestant.role === 'ours' ? Math.min(MOST_WARM_UPS, WARM / size) : 0
    for (let i = 1; i < more; i++) await round(scenario, contestant, size, false)
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
  { name, steps }: Scenario,
  contestant: Contestant,
  size: number,
  thorough: boolean,
): Promise<Map<string, Sample>> {
  return inNamespace(async (namespace) => {
    const samples = new Map<string, Sample>()
    const session = await contestant.open(namespace, size)
    try {
      for (const step of steps) {
        if (contestant.without?.includes(step.name) === true) continue
        try {
          await step.before?.(namespace, size)
          samples.set(step.name, await session.step(step.name))
          await step.check(namespace, size, thorough)
        } catch (error) {
          throw new Error(`${name}, ${size}: ${contestant.name}, ${step.name}: ${String(error)}`, { cause: error })
        }
      }
    } finally {
      await session.close()
    }
    return samples
  })
}

/** Gives `work` a network namespace of its own and removes it, whatever came of it. */
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
