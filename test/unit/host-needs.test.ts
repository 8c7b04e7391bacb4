import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { NETWORK_BYTES, needs, TABLE_BYTES } from '../../lib/host/needs.js'
import { native } from '../../lib/native.js'
import { guardOf } from '../../lib/overlay/guard.js'
import { replacing } from '../../lib/overlay/guard-table.js'
import { checkHost, InvalidArgument, tuneHost, type TuneOptions } from '../../lib/index.js'
import { VniSet } from '../../lib/overlay/vni-set.js'

const none = { peers: 0, networks: 0, endpoints: 0, forwarding: false }
const plenty = { messages: 256, bytes: 8 << 20 }

/** What is wanted of each sysctl, by name. */
function wanted(load: Partial<typeof none>, granted = plenty): Record<string, number | null> {
  return Object.fromEntries(needs({ ...none, ...load }, granted).map(({ name, wants }) => [name, wants]))
}

const thresholds = (wants: Record<string, number | null>, version: 4 | 6) =>
  [1, 2, 3].map((i) => wants[`net.ipv${version}.neigh.default.gc_thresh${i}`]!)

describe('what a node needs', () => {
  test('of its neighbour tables is what Docker sets, for both families', () => {
    for (const version of [4, 6] as const) {
      expect(thresholds(wanted({}), version)).toEqual([8192, 49_152, 65_536])
      expect(thresholds(wanted({ peers: 40_000, endpoints: 9000 }), version)).toEqual([8192, 49_152, 65_536])
    }
  })

  test('grows with peers and with whom containers talk to, in proportion', () => {
    fc.assert(
      fc.property(fc.nat(2 ** 24), fc.nat(2 ** 24), (peers, endpoints) => {
        const [first, second, third] = thresholds(wanted({ peers, endpoints }), 4) as [number, number, number]
        expect(second).toBe(Math.max(49_152, peers + endpoints))
        expect(first).toBeGreaterThanOrEqual(second / 6)
        expect(third).toBeGreaterThanOrEqual((second * 4) / 3)
        expect(third).toBeLessThan(2 ** 31)
      }),
    )
  })

  test('of buffers is nothing where this process is granted enough, and says why it is', () => {
    const buffers = needs({ ...none, networks: 500_000 }, plenty).filter(({ name }) => name.startsWith('net.core.'))
    expect(buffers.map(({ wants }) => wants)).toEqual([null, null])
    for (const { why } of buffers) expect(why).toContain("CAP_NET_ADMIN in the host's user namespace")
  })

  test('of buffers is what answers and networks take, where it is not', () => {
    const granted = { messages: 100, bytes: 2 * 50_000 - 32 }
    expect(wanted({}, granted)).toMatchObject({ 'net.core.rmem_max': 131_072, 'net.core.wmem_max': null })
    const wants = wanted({ networks: 10_000 }, granted)['net.core.wmem_max']!
    const needed = TABLE_BYTES + 10_000 * NETWORK_BYTES
    // What is granted is twice that, less what the kernel keeps back.
    expect(2 * wants - 32).toBeGreaterThanOrEqual(needed)
    expect(wanted({ networks: 10_000 }, { ...granted, bytes: 2 * wants - 32 })['net.core.wmem_max']).toBeNull()
  })

  test.each([1, 5000, 500_000])('of a send for %i networks is what the firewall takes, and little more', (networks) => {
    const guard = guardOf({ mark: 0xffffffff, port: 4789, exclusive: false, linksElsewhere: true })
    const table = { family: 'inet', table: 'xfrmesh_ffffffff' } as const
    const all = Array.from({ length: networks }, (_, i) => i)
    const { length } = native.encodeTransaction(replacing(table, guard, new VniSet(all)).take(), 0, undefined)
    const reckoned = TABLE_BYTES + networks * NETWORK_BYTES
    expect(length).toBeLessThanOrEqual(reckoned)
    expect(length).toBeGreaterThan(reckoned - TABLE_BYTES)
  })

  test('of forwarding is nothing, but where containers go on from here', () => {
    const [ipv4, ipv6] = ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding']
    expect(wanted({})).toMatchObject({ [ipv4]: null, [ipv6]: null })
    expect(wanted({ forwarding: true })).toMatchObject({ [ipv4]: 1, [ipv6]: 1 })
  })
})

describe.each([
  ['checkHost', checkHost],
  // This machine is not to be tuned, whatever passes.
  ['tuneHost', (given: object) => tuneHost(typeof given === 'object' ? { dryRun: true, ...given } : given)],
] as const)('%s', (_, call) => {
  test.each<[unknown, string]>([
    [{ peers: -1 }, 'peers must be an integer from 0 to 16777216, not -1'],
    [{ peers: '10' }, 'peers must be an integer from 0 to 16777216, not "10"'],
    [{ peers: null }, 'peers must be an integer from 0 to 16777216, not null'],
    [{ networks: 500_001 }, 'networks must be an integer from 0 to 500000, not 500001'],
    [{ endpoints: 1.5 }, 'endpoints must be an integer from 0 to 16777216, not 1.5'],
    [{ forwarding: 1 }, 'forwarding must be true or false, not 1'],
    [{ netns: '' }, "netns must be a network namespace's path"],
    [{ peer: 10 }, `options.peer must be left out: there is no such option (did you mean 'peers'?)`],
    [7, 'options must be an object, not 7'],
  ])('refuses %j', async (options, message) => {
    const refused = call(options as TuneOptions)
    await expect(refused).rejects.toThrow(InvalidArgument)
    await expect(refused).rejects.toThrow(message)
  })

  test('refuses a namespace that is not there', async () => {
    await expect(call({ netns: '/run/netns/none-of-that-name' })).rejects.toThrow(/netns must be a network namespace/)
  })
})

test('only tuneHost has a dry run', async () => {
  await expect(tuneHost({ dryRun: 'yes' as unknown as boolean })).rejects.toThrow('dryRun must be true or false')
  await expect(checkHost({ dryRun: true } as never)).rejects.toThrow('options.dryRun must be left out')
})
