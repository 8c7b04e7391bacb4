import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { createVxlan, listVxlan } from '../../lib/vxlan/index.js'
import { inNetns, withNetns } from './netns.js'

const run = promisify(execFile)
const modprobe = '/proc/sys/kernel/modprobe'

test('a kernel without VXLAN is told by the option that it lacks', () =>
  withNetns(async (netns) => {
    // Here it is a module, which the kernel loads when it is asked for. So it must be gone, and stay so.
    const loader = readFileSync(modprobe)
    writeFileSync(modprobe, '/bin/false')
    try {
      while (/^vxlan /m.test(readFileSync('/proc/modules', 'utf8'))) {
        // Links of tests before this one go a little after their namespaces.
        await run('rmmod', ['vxlan']).catch(() => setTimeout(100))
      }
      const refused = createVxlan({ name: 'vx', vni: 1, netns })
      await expect(refused).rejects.toMatchObject({ code: 'ERR_XFRMESH_UNSUPPORTED', missing: 'CONFIG_VXLAN' })
      expect(await listVxlan({ netns })).toEqual([])
    } finally {
      writeFileSync(modprobe, loader)
    }
    expect(await createVxlan({ name: 'vx', vni: 1, netns })).toMatchObject({ created: true })
    expect(await inNetns(netns, 'ip', '-o', 'link')).toMatch(/ vx: /)
  }))
