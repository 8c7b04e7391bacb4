#!/usr/bin/env node
import process from 'node:process'
import { runProgram } from './program.js'
import type { Output } from './show.js'

/** Standard error; where it reaches a terminal by way of something that is none, XFRMESH_TERMINAL says how wide that is. */
function errorOutput(): Output {
  const columns = Number(process.env['XFRMESH_TERMINAL'])
  if (!(columns > 0)) return process.stderr
  return { isTTY: true, columns, write: (text) => process.stderr.write(text) }
}

process.exitCode = await runProgram(process.argv.slice(2), { stdout: process.stdout, stderr: errorOutput() })
