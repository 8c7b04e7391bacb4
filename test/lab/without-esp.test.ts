/** On a kernel that lacks what SAs need, networks are guarded all the same, and what is missing is named. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const root = join(import.meta.dirname, '../..')

interface Said {
  applied: number
  refusal?: { code: string; missing: string; message: string }
  peers: number
  guarded: boolean
  before: [ruleset: string, states: string, policies: string]
  after: [ruleset: string, states: string, policies: string]
}

test('a missing ESP or cipher is named; nothing has changed, and networks stay guarded', async () => {
  const overIpv6 = { local: '2001:db8::1' }
  const wishes = [
    { options: { local: '192.0.2.1' }, peer: '192.0.2.2' },
    { options: { ...overIpv6, suite: 'chacha20-poly1305' }, peer: '2001:db8::2' },
    { options: overIpv6, peer: '2001:db8::2' },
  ]
  const { stdout } = await promisify(execFile)(join(root, 'test/lab/lab'), [
    ...['--without', 'esp4', '--without', 'chacha20poly1305', '--'],
    ...['node', 'test/lab/without-esp.mjs', ...wishes.map((wish) => JSON.stringify(wish))],
  ])
  const said = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Said)
  expect(said).toMatchObject([
    {
      refusal: {
        code: 'ERR_XFRMESH_UNSUPPORTED',
        missing: 'CONFIG_INET_ESP',
        message: expect.stringContaining('modprobe esp4') as string,
      },
      peers: 0,
    },
    {
      refusal: {
        code: 'ERR_XFRMESH_UNSUPPORTED',
        missing: 'CONFIG_CRYPTO_CHACHA20POLY1305',
        message: expect.stringContaining('modprobe chacha20poly1305') as string,
      },
      peers: 0,
    },
    { peers: 1 },
  ])
  for (const { applied, guarded, before, after, refusal } of said) {
    expect({ applied, guarded }).toEqual({ applied: 1, guarded: true })
    expect(before[0]).toContain('chain guard-in')
    if (refusal) expect(after).toEqual(before)
  }
  expect(said[2]!.refusal).toBeUndefined()
  expect(said[2]!.after).not.toEqual(said[2]!.before)
})
