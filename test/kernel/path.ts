import { basename } from 'node:path'
import { inNetns, settled, withLink, withNetns } from './netns.js'

/** An end of a path, or what stands between: a namespace, and its addresses by family. */
export interface Stop {
  readonly netns: string
  readonly address: { readonly 4: string; readonly 6: string }
}

export interface Path {
  readonly near: Stop
  /** Forwards between the two. Its addresses are those on the near side. */
  readonly router: Stop
  readonly far: Stop
}

/** Two hosts and a router between them, which translates nothing. */
export function withPath<T>(work: (path: Path) => Promise<T>): Promise<T> {
  return withLink((near, router) =>
    withNetns(async (far) => {
      const ip = (netns: string, ...words: string[]) => inNetns(netns, 'ip', ...words)
      await inNetns(far, 'sysctl', '-qw', 'net.ipv6.conf.default.accept_dad=0')
      await inNetns(router, 'sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1')
      await ip(router, 'link', 'add', 'eth1', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', basename(far))
      await ip(router, 'address', 'add', '198.51.100.1/24', 'dev', 'eth1')
      await ip(router, 'address', 'add', '2001:db8:1::1/64', 'dev', 'eth1', 'nodad')
      await ip(router, 'link', 'set', 'eth1', 'up')
      await ip(far, 'address', 'add', '198.51.100.2/24', 'dev', 'eth0')
      await ip(far, 'address', 'add', '2001:db8:1::2/64', 'dev', 'eth0', 'nodad')
      await ip(far, 'link', 'set', 'eth0', 'up')
      for (const [netns, next4, next6] of [
        [near, '192.0.2.2', '2001:db8::2'],
        [far, '198.51.100.1', '2001:db8:1::1'],
      ] as const) {
        await ip(netns, 'route', 'add', 'default', 'via', next4)
        await ip(netns, '-6', 'route', 'add', 'default', 'via', next6)
      }
      await settled(far)
      return work({
        near: { netns: near, address: { 4: '192.0.2.1', 6: '2001:db8::1' } },
        router: { netns: router, address: { 4: '192.0.2.2', 6: '2001:db8::2' } },
        far: { netns: far, address: { 4: '198.51.100.2', 6: '2001:db8:1::2' } },
      })
    }),
  )
}
