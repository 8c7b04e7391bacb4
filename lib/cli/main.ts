#!/usr/bin/env node
import process from 'node:process'
import { runProgram } from './program.js'
import type { Output } from './show.js'

/** Where output reaches a terminal by way of something that is none, XFRMESH_TERMINAL says how wide that is. */
function output(stream: NodeJS.WriteStream): Output {
  const columns = Number(process.env['XFRMESH_TERMINAL'])
  return columns > 0 ? { isTTY: true, columns, write: (text) => stream.write(text) } : stream
}

process.exitCode = await runProgram(process.argv.slice(2), {
  stdout: output(process.stdout),
  stderr: output(process.stderr),
})
