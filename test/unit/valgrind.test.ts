import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const rounds = new URL('rounds.mjs', import.meta.url).pathname

test('valgrind finds nothing lost, and nothing wrong in the addon, after 100 rounds of open, read and close', async () => {
  const valgrind = ['valgrind', '--leak-check=full', '--show-leak-kinds=definite,indirect']
  const { stderr } = await promisify(execFile)(
    '/usr/bin/unshare',
    ['--user', '--map-root-user', '--net', ...valgrind, process.execPath, '--jitless', rounds, '100'],
    { maxBuffer: 1 << 24 },
  )
  expect(stderr).toContain('definitely lost: 0 bytes in 0 blocks')
  expect(stderr).toContain('indirectly lost: 0 bytes in 0 blocks')
  expect(stderr).not.toContain('xfrmesh.node')
})
