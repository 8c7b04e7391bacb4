/**
 * The process that one of ours is at work in: run by harness/alone.ts, which says what it reads.
 *
 * usage: alone.js SCENARIO CONTESTANT
 */
import { createInterface } from 'node:readline'
import { Namespace } from '#dist/demo/namespace.js'
import { watched } from './anatomy/watch.js'
import type { AloneCommand } from './harness/alone.js'
import type { Sample, Session } from './harness/contest.js'
import { threadMs } from './harness/sessions.js'
import { scenarios } from './scenarios.js'

const [, , scenarioName, contestant] = process.argv
const scenario = scenarios.find(({ name }) => name === scenarioName)!
const ours = scenario.ours.find(({ name }) => name === contestant)!

const nothing: Sample = { ms: 0 }
let session: Session | undefined

async function carryOut(command: AloneCommand): Promise<Sample> {
  if (command === 'close') {
    await session!.close()
    return nothing
  }
  if ('step' in command) {
    const before = threadMs()
    const sample = await session!.step(command.step)
    return scenario.warmsOnce ? sample : { javascriptMs: threadMs() - before, ...sample }
  }
  if ('watch' in command) return watched(() => session!.step(command.watch))
  session = await ours.open(new Namespace(command.open), command.size)
  return nothing
}

for await (const line of createInterface(process.stdin)) {
  try {
    const { ms, ...figures } = await carryOut(JSON.parse(line) as AloneCommand)
    console.log(JSON.stringify({ elapsedMs: ms, ...figures }))
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }))
  }
}
