/** On a kernel without nf_tables the way out is named, and iptables' own kernel half guards networks. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const root = join(import.meta.dirname, '../..')

/** Of the packets sent each way, as many as without-nf-tables.mjs sends. */
const ALL = { in: 3, out: 3 }
const NONE = { in: 0, out: 0 }

test('without nf_tables the error names the way out, which guards: cleartext is dropped both ways, and counted', async () => {
  const { stdout } = await promisify(execFile)(join(root, 'test/lab/lab'), [
    ...['--without', 'nf_tables', '--', 'node', 'test/lab/without-nf-tables.mjs'],
  ])
  const said = JSON.parse(stdout) as { refusal: { message: string }; chains: number }
  expect(said).toMatchObject({
    refusal: { code: 'ERR_XFRMESH_UNSUPPORTED', missing: 'CONFIG_NF_TABLES' },
    applied: 1,
    encrypted: NONE,
    plain: ALL,
    firewall: { kind: 'iptables', intact: true, differences: [] },
    drops: ALL,
    afterwards: ALL,
    left: 0,
  })
  expect(said.refusal.message).toContain("firewall: 'iptables'")
  expect(said.chains).toBeGreaterThan(0)
})
