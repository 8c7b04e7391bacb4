import { inNetns, ip, join, withLink, withNetns } from './netns.js'

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
      await inNetns(router, 'sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1')
      await join(
        { netns: router, device: 'eth1', addresses: ['198.51.100.1/24', '2001:db8:1::1/64'] },
        {
          netns: far,
          device: 'eth0',
          addresses: ['198.51.100.2/24', '2001:db8:1::2/64'],
          more: ['route add default via 198.51.100.1', 'route add default via 2001:db8:1::1'],
        },
      )
      await ip(near, ['route add default via 192.0.2.2', 'route add default via 2001:db8::2'])
      return work({
        near: { netns: near, address: { 4: '192.0.2.1', 6: '2001:db8::1' } },
        router: { netns: router, address: { 4: '192.0.2.2', 6: '2001:db8::2' } },
        far: { netns: far, address: { 4: '198.51.100.2', 6: '2001:db8:1::2' } },
      })
    }),
  )
}
