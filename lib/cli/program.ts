import { readFileSync } from 'node:fs'
import { Command } from 'commander'
import { addDemo } from './demo.js'
import { judge } from './errors.js'
import type { Output } from './show.js'

/** What a command writes to. */
export interface Streams {
  /** What was asked for: with --json nothing but JSON. */
  stdout: Output
  /** Progress, warnings, errors. */
  stderr: Output
}

/** Runs the command line. @returns the exit status: 0, 1 if something failed, 2 if it was called wrongly */
export async function runProgram(args: readonly string[], streams: Streams): Promise<number> {
  let status = 0
  const program = new Command('xfrmesh')
    .description('IPsec for container overlay networks, programmed in bulk')
    .version(version())
    .exitOverride()
    .showHelpAfterError('(xfrmesh --help says more)')
    .configureOutput({
      writeOut: (text) => streams.stdout.write(text),
      writeErr: (text) => streams.stderr.write(text),
    })
  const finished = (code: number) => {
    status = code
  }
  addDemo(program, streams, finished)
  try {
    await program.parseAsync(args, { from: 'user' })
    return status
  } catch (error) {
    const verdict = judge(error)
    streams.stderr.write(verdict.said)
    return verdict.status
  }
}

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
