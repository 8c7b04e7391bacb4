import { randomUUID } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import { Namespace } from '#dist/demo/namespace.js'
import { run } from '#dist/demo/processes.js'
import type { Contestant, Sample, Scenario } from './contest.js'

/** Milliseconds after a round, for 10,000 objects and more. */
const LONGEST_SETTLING_MS = 100

/** Rounds of who takes seconds for one. */
export function few(size: number): number {
  return size > 10_000 ? 5 : 21
}

/** Has a contestant go through all steps in a fresh namespace. */
export async function round(
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
