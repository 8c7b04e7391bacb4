import { execFile } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { InvalidArgument } from '../../../lib/base/errors.js'
import { createVxlan, deleteVxlan, listVxlan, type VxlanOptions } from '../../../lib/vxlan/index.js'
import { links, useGround } from './vxlan.js'

/** What can be told to be wrong only by a look at the kernel: each is refused before anything is changed. */

const run = promisify(execFile)
const { here, home, third } = useGround()
const link = { name: 'vx', vni: 1, netns: here }
const none = '/run/netns/xfrmesh-test-none'
const file = openSync('/dev/null', 'r')

const refusals: readonly (readonly [options: VxlanOptions, message: RegExp])[] = [
  [{ ...link, netns: none }, /^options\.netns must be a network namespace.*none: no such file/],
  [{ ...link, moveTo: none }, /^options\.moveTo must be a network namespace.*none: no such file/],
  [{ ...link, moveTo: '/dev/null' }, /^options\.moveTo must be .*it is no network namespace/],
  [{ ...link, moveTo: file }, /^options\.moveTo must be .*it is no network namespace/],
  [{ ...link, moveTo: 9999 }, /^options\.moveTo must be .*no open descriptor/],
  [{ ...link, device: 'none' }, /^options\.device must be the name of a link .*, not "none"$/],
  // It is one of the namespace that the link comes from, the bridge one of where it comes to live.
  [{ ...link, netns: third, moveTo: home, device: 'eth9' }, /^options\.device must be/],
  [{ ...link, bridge: 'none' }, /^options\.bridge must be the name of a link .*, not "none"$/],
  [{ ...link, bridge: 'eth0' }, /^options\.bridge must be a bridge's name; eth0 is none$/],
  [
    { ...link, device: 'eth0', mtu: 1451 },
    /^options\.mtu must be at most 1450: device eth0 has 1500, of which VXLAN over IPv4 takes 50, not 1451$/,
  ],
  [{ ...link, device: 'eth0', mtu: 1431, family: 6 }, /^options\.mtu must be at most 1430: .*IPv6 takes 70, not 1431$/],
]

test('what is not there, or does not fit it, is refused before anything is changed', async () => {
  const before = (await links(here)) + (await links(home))
  for (const [options, message] of refusals) {
    const refused = createVxlan({ ...options, replace: true })
    await expect(refused, String(message)).rejects.toThrow(InvalidArgument)
    await expect(refused).rejects.toThrow(message)
  }
  expect((await links(here)) + (await links(home))).toBe(before)
})

test('a namespace that is not there is named by the others too', async () => {
  await expect(listVxlan({ netns: none })).rejects.toThrow(/^options\.netns must be a network namespace/)
  await expect(deleteVxlan({ name: 'vx', netns: none })).rejects.toThrow(/^options\.netns must be a network namespace/)
  await expect(deleteVxlan([{ name: 'vx', netns: none }])).rejects.toThrow(
    /options\[0\]\.netns must be a network namespace/,
  )
  closeSync(file)
})

test('in a list, a namespace that is not there does not keep the next from being made or deleted', async () => {
  const lists = [
    [link, { ...link, netns: none }, { ...link, name: 'vx2', vni: 2 }],
    [
      { ...link, name: 'vx3', vni: 3, moveTo: home },
      { ...link, moveTo: none },
      { ...link, name: 'vx4', vni: 4, moveTo: home },
    ],
  ]
  for (const list of lists) {
    await expect(createVxlan(list)).rejects.toMatchObject({
      report: { applied: 2, failures: [{ subject: 'options[1]' }] },
    })
  }
  const named = [
    { name: 'vx', netns: here },
    { name: 'vx', netns: none },
    { name: 'vx2', netns: here },
  ]
  await expect(deleteVxlan(named)).rejects.toMatchObject({
    report: { applied: 2, failures: [{ subject: 'options[1]' }] },
  })
})

test('without CAP_NET_ADMIN the error says so', async () => {
  const script = fileURLToPath(new URL('vxlan-without.mjs', import.meta.url))
  await createVxlan(link)
  const { stdout } = await run('setpriv', ['--bounding-set=-net_admin', process.execPath, script, here])
  const missing = { code: 'ERR_XFRMESH_UNSUPPORTED', missing: 'CAP_NET_ADMIN' }
  expect(JSON.parse(stdout)).toMatchObject([missing, missing, 1])
})
