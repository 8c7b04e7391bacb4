import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { examples } from '../examples.js'

const run = promisify(execFile)

it.each(examples())('$file prints what the README says', async ({ file, output }) => {
  const { stdout } = await run('unshare', ['--net', process.execPath, file])
  expect(stdout).toBe(output)
})
