/** Nodes with addresses of both families are refused wherever they can be named, and told why. */
import { expect, test } from 'vitest'
import { parseCluster } from '../../lib/cli/cluster.js'
import { InvalidArgument, Overlay } from '../../lib/index.js'
import { settings } from '../../lib/overlay/options.js'
import { ModelPorts } from './stories.js'

const why = 'a VXLAN link carries one family'

test.each([
  ['IPv4', '192.0.2.1', '192.0.2.2', 'fd00::2'],
  ['IPv6', 'fd00::1', 'fd00::2', '192.0.2.2'],
  ['IPv6', 'fd00::1', 'fd00::2', '::ffff:192.0.2.2'],
])('among the peers of an Overlay over %s, and nothing has changed', async (name, local, peer, other) => {
  const ports = new ModelPorts()
  await using overlay = Overlay.over({ local }, ports)
  await overlay.setKeys([{ tag: 1, value: new Uint8Array(16) }])
  for (const call of ['addPeers', 'removePeers'] as const) {
    const refused = overlay[call]([peer, other])
    await expect(refused).rejects.toThrow(InvalidArgument)
    await expect(refused).rejects.toThrow(
      `peers[1] must be an ${name} address, as local (${local}) is: ${why}, not "${other}"`,
    )
  }
  expect(overlay.peers.size).toBe(0)
  expect(ports.kernel.states.size).toBe(0)
})

test('an IPv4 address written as IPv6 is one of IPv4', async () => {
  await using overlay = Overlay.over({ local: '::ffff:192.0.2.1' }, new ModelPorts())
  await overlay.setKeys([{ tag: 1, value: new Uint8Array(16) }])
  await overlay.addPeers(['::ffff:192.0.2.2', '192.0.2.3'])
  expect([...overlay.peers].map(({ address }) => address)).toEqual(['192.0.2.2', '192.0.2.3'])
})

test.each([
  ['192.0.2.1', 'fd00::1'],
  ['fd00::1', '203.0.113.1'],
])('in the address that peers know a node by: %s, %s', (local, advertise) => {
  expect(() => settings({ local, advertise })).toThrow(
    `advertise must be an address of local's family (${local}): ${why}, not "${advertise}"`,
  )
})

test.each([
  ['address: fd00::2', 4, 'nodes[1].address'],
  ['address: 192.0.2.2, advertise: fd00::2', 4, 'nodes[1].advertise'],
  ['address: 192.0.2.2', 6, 'nodes[1].address'],
  ['address: fd00::2, advertise: 192.0.2.2', 6, 'nodes[1].advertise'],
])('in a cluster file: %s after a node of IPv%i', (words, family, field) => {
  const first = family === 4 ? '192.0.2.1' : 'fd00::1'
  const file = `keys: k\nnetworks: []\nnodes:\n  - { name: a, address: ${first} }\n  - { name: b, ${words} }\n`
  expect(() => parseCluster('c.yaml', file)).toThrow(
    `${field} must be an IPv${family} address, as that of nodes[0] is: ${why}`,
  )
})
