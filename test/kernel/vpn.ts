import type { Host } from '../../lib/demo/hosts.js'

/** VPNs beside the overlay: what other tools may have set up on the same hosts. */

/** Everything that one host sends another goes through an SA that is not ours: a VPN's, say. */
export async function throughOtherVpn(from: Host, to: Host): Promise<void> {
  const ends = ['src', from.address, 'dst', to.address]
  const aead = ['aead', 'rfc4106(gcm(aes))', `0x${'07'.repeat(20)}`, '128']
  const sa = [
    'xfrm',
    'state',
    'add',
    ...ends,
    'proto',
    'esp',
    'spi',
    '0x7777',
    'reqid',
    '7',
    'mode',
    'transport',
    ...aead,
  ]
  for (const host of [from, to]) await host.run('ip', sa)
  const template = ['tmpl', ...ends, 'proto', 'esp', 'reqid', '7', 'mode', 'transport']
  await from.run('ip', ['xfrm', 'policy', 'add', ...ends, 'dir', 'out', ...template])
}

/**
 * Joins two hosts by a route-based VPN: what either sends to the other goes through a tunnel between addresses of its own,
 * whose packets bear another reqid.
 */
export async function joinByVpn(one: Host, other: Host): Promise<void> {
  const aead = `aead rfc4106(gcm(aes)) 0x${'07'.repeat(20)} 128`
  const inside = `src ${one.address}/24 dst ${other.address}/24`
  const end = ({ number }: Host) => `198.51.100.${number}`
  const tunnel = (from: Host, to: Host) => `src ${end(from)} dst ${end(to)} proto esp reqid 7 mode tunnel`
  const state = (from: Host, to: Host) => tunnel(from, to).replace('proto esp', `proto esp spi 0x888${from.number}`)
  for (const [here, there] of [
    [one, other],
    [other, one],
  ] as const) {
    await here.ip(
      [
        `address add ${end(here)}/24 dev ${here.device}`,
        `link add vpn type xfrm dev ${here.device} if_id 42`,
        `link set vpn up`,
        `route add ${there.address} dev vpn src ${here.address}`,
        `xfrm state add ${state(here, there)} if_id 42 ${aead}`,
        `xfrm state add ${state(there, here)} if_id 42 ${aead}`,
        `xfrm policy add ${inside} dir out if_id 42 tmpl ${tunnel(here, there)}`,
        `xfrm policy add ${inside} dir in if_id 42 tmpl ${tunnel(there, here)}`,
      ].map((command) => command.split(' ')),
    )
  }
}
