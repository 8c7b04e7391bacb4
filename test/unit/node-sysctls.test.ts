import { describe, expect, test } from 'vitest'
import { AF_INET, AF_INET6 } from '../../lib/base/address.js'
import { checkSysctls, turnOnIPv6Forwarding } from '../../lib/node/sysctls.js'

describe('switches', () => {
  /** The files of a namespace, of which some can't be written. */
  const files = (there: Record<string, string>, refusal = 0) => ({
    readFile: (path: string) => Promise.resolve(there[path]),
    readNetFile: () => Promise.resolve('Inter-|\n face |bytes\n    lo: 0\n eth0.5: 0\n  eth1:12345 0\n'),
    writeFile: (path: string, text: string) => {
      if (refusal === 0) there[path] = `${text}\n`
      return Promise.resolve(refusal)
    },
  })
  const right = {
    '/proc/sys/net/ipv4/ip_forward': '1\n',
    '/proc/sys/net/ipv6/conf/all/forwarding': '1\n',
    '/proc/sys/net/core/xfrm_larval_drop': '1\n',
    '/proc/sys/net/ipv4/conf/all/disable_xfrm': '0\n',
    '/proc/sys/net/ipv4/conf/all/disable_policy': '0\n',
    '/proc/sys/net/ipv6/conf/all/disable_policy': '0\n',
  }
  const wrong = async (there: Record<string, string>) =>
    (await checkSysctls(new Set([AF_INET, AF_INET6]), files(there))).filter(({ ok }) => !ok).map(({ name }) => name)

  test('of a namespace, and of each device where they differ', async () => {
    expect(await wrong(right)).toEqual([])
    expect(await wrong({ ...right, '/proc/sys/net/ipv4/conf/eth0.5/disable_xfrm': '1\n' })).toEqual([
      'net.ipv4.conf.eth0/5.disable_xfrm',
    ])
    expect(await wrong({ ...right, '/proc/sys/net/ipv6/conf/eth1/disable_policy': '1\n' })).toEqual([
      'net.ipv6.conf.eth1.disable_policy',
    ])
    // What the next device will have.
    expect(await wrong({ ...right, '/proc/sys/net/ipv4/conf/default/disable_xfrm': '1\n' })).toEqual([
      'net.ipv4.conf.default.disable_xfrm',
    ])
    // IPv4 goes by the switch of the device that a packet came in by; IPv6 by that of all.
    expect(await wrong({ ...right, '/proc/sys/net/ipv4/conf/eth0.5/forwarding': '0\n' })).toEqual([
      'net.ipv4.conf.eth0/5.forwarding',
    ])
    expect(await wrong({ ...right, '/proc/sys/net/ipv6/conf/eth1/forwarding': '0\n' })).toEqual([])
    // The loopback's are on.
    expect(await wrong({ ...right, '/proc/sys/net/ipv4/conf/lo/disable_xfrm': '1\n' })).toEqual([])
    expect(await wrong({ ...right, '/proc/sys/net/ipv4/ip_forward': '0\n' })).toEqual(['net.ipv4.ip_forward'])
  })

  test('IPv6 forwarding is turned on, or it is said why not', async () => {
    const there: Record<string, string> = {}
    await turnOnIPv6Forwarding(files(there))
    expect(there).toEqual({ '/proc/sys/net/ipv6/conf/all/forwarding': '1\n' })
    await expect(turnOnIPv6Forwarding(files({}, 30))).rejects.toThrow(/can't be set: \/proc\/sys is read-only here/)
    await expect(turnOnIPv6Forwarding(files({}, 2))).rejects.toMatchObject({
      code: 'ERR_XFRMESH_UNSUPPORTED',
      missing: 'net.ipv6.conf.all.forwarding',
    })
  })
})
