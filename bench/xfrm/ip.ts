import { run } from '#dist/demo/processes.js'
import type { Contestant } from '../harness/contest.js'
import { keepFile } from '../harness/files.js'
import { session, timed, type Doing } from '../harness/sessions.js'

/** By step: the arguments of `ip`, as one line, for one object. */
export type Lines = Readonly<Record<string, (index: number) => string>>

/** iproute2 with all commands in one file. Its start is on the clock: it is a start each time for whoever uses it. */
export function ipBatch(lines: Lines): Contestant {
  return {
    name: 'ip -batch',
    role: 'peer',
    open: ({ name }, size) => {
      const doing = Object.entries(lines).map(([step, line]): [string, Doing] => {
        const file = keepFile(Array.from({ length: size }, (_, index) => `${line(index)}\n`).join(''))
        return [step, () => timed(() => run('ip', ['-n', name, '-batch', file]))]
      })
      return Promise.resolve(session(Object.fromEntries(doing)))
    },
  }
}

/** iproute2 once a command, from Node: what a Node user does today. */
export function ipEach(lines: Lines, most: number): Contestant {
  return {
    name: 'ip, each from Node',
    role: 'peer',
    most,
    open: ({ name }, size) => {
      const each = async (line: (index: number) => string) => {
        for (let i = 0; i < size; i++) await run('ip', ['-n', name, ...line(i).split(' ')])
      }
      const doing = Object.entries(lines).map(([step, line]): [string, Doing] => [step, () => timed(() => each(line))])
      return Promise.resolve(session(Object.fromEntries(doing)))
    },
  }
}
