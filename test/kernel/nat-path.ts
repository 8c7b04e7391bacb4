import { Fabric, type Host } from '../../lib/demo/hosts.js'
import type { Namespace } from '../../lib/demo/namespace.js'
import { Ending, NETLINK_NETFILTER } from '../../lib/native.js'
import { Channel } from '../../lib/kernel/channel.js'
import { PORT, VNI } from './mesh.js'

/** A node of an overlay, on this side or the other of NAT, and its addresses by family. */
export interface Node {
  readonly where: Namespace
  /** From 1: the last byte of its inner address, and of its link's hardware address. */
  readonly number: number
  readonly family: 4 | 6
  /** On the node itself. */
  readonly local: string
  /** That the others know it by. */
  readonly advertise: string
}

/** What a router translates, as rules of nftables for its two chains. */
export interface Translation {
  readonly prerouting?: string
  readonly postrouting?: string
}

/** IPCTNL_MSG_CT_DELETE of NFNL_SUBSYS_CTNETLINK (linux/netfilter/nfnetlink.h): without a tuple it is all. */
const DELETE_CONNECTIONS = (1 << 8) | 2
const NLM_F_REQUEST_ACK = 5

/** The UDP port of nodes, and those that a router gives in its place. */
export const NAT_PORT = 4500
export const MAPPED = [40000, 50000] as const

const addresses = {
  4: { inside: ['10.1.0.2', '10.2.0.2'], outside: ['192.0.2.9', '192.0.2.10', '192.0.2.2'] },
  6: { inside: ['fd01::2', 'fd02::2'], outside: ['2001:db8::9', '2001:db8::10', '2001:db8::2'] },
} as const

/**
 * Two nodes, each behind a router of its own, and one in the open; between routers and node a switch, of addresses for all
 * to use. The nodes behind routers live in their hosts' containers, so that all of a Fabric serves.
 */
export class NatPath implements AsyncDisposable {
  readonly fabric: Fabric

  private constructor(fabric: Fabric) {
    this.fabric = fabric
  }

  static async create(): Promise<NatPath> {
    const path = new NatPath(await Fabric.create({ hosts: [...addresses[4].outside], prefix: 'nat' }))
    try {
      for (const router of path.routers) await path.#putBehind(router)
      for (const [i, host] of path.fabric.hosts.entries()) {
        await host.ip([['address', 'add', `${addresses[6].outside[i]!}/64`, 'dev', 'eth0', 'nodad']])
      }
      return path
    } catch (error) {
      await path.fabric.close()
      throw error
    }
  }

  get routers(): readonly [Host, Host] {
    return this.fabric.hosts.slice(0, 2) as [Host, Host]
  }

  /** The node behind router 1 or 2, or, 3, that in the open. */
  node(number: 1 | 2 | 3, family: 4 | 6): Node {
    const host = this.fabric.hosts[number - 1]!
    const advertise = addresses[family].outside[number - 1]!
    const local = addresses[family].inside[number - 1] ?? advertise
    return { where: number === 3 ? host : host.container, number, family, local, advertise }
  }

  async #putBehind(router: Host): Promise<void> {
    const [four, six] = [addresses[4].inside[router.number - 1]!, addresses[6].inside[router.number - 1]!]
    const gateway = (address: string) => address.replace(/2$/, '1')
    // What comes to a port that leads nowhere just now.
    await router.run('nft', ['-f', '-'], {
      input: `table inet unmapped { counter unmapped { }
        chain input { type filter hook input priority 0; udp dport { ${[NAT_PORT, ...MAPPED].join(', ')} } counter name unmapped drop; }
      }`,
    })
    await router.run('sysctl', ['-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'])
    await router.ip([
      ['link', 'add', 'lan', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', router.container.name],
      ['address', 'add', `${gateway(four)}/24`, 'dev', 'lan'],
      ['address', 'add', `${gateway(six)}/64`, 'dev', 'lan', 'nodad'],
      ['link', 'set', 'lan', 'up'],
    ])
    await router.container.ip([
      ['link', 'set', 'lo', 'up'],
      ['address', 'add', `${four}/24`, 'dev', 'eth0'],
      ['address', 'add', `${six}/64`, 'dev', 'eth0', 'nodad'],
      ['link', 'set', 'eth0', 'up'],
      ['route', 'add', 'default', 'via', gateway(four)],
      ['route', 'add', 'default', 'via', gateway(six)],
    ])
  }

  /** Has a router translate so and no more, and forget the connections that it knew. */
  async translate(router: 1 | 2, { prerouting = '', postrouting = '' }: Translation): Promise<void> {
    const host = this.fabric.hosts[router - 1]!
    const input = `
      table inet translation
      delete table inet translation
      table inet translation {
        chain prerouting { type nat hook prerouting priority dstnat; ${prerouting}
        }
        chain postrouting { type nat hook postrouting priority srcnat; ${postrouting}
        }
      }
    `
    await host.run('nft', ['-f', '-'], { input })
    await forgetConnections(host)
  }

  /** All packets of the node behind a router, with its address turned and nothing else. */
  oneToOne(router: 1 | 2, family: 4 | 6): Promise<void> {
    const { local, advertise } = this.node(router, family)
    const ip = family === 4 ? 'ip' : 'ip6'
    return this.translate(router, {
      prerouting: `iifname eth0 ${ip} daddr ${advertise} dnat ${ip} to ${local}`,
      postrouting: `oifname eth0 ${ip} saddr ${local} snat ${ip} to ${advertise}`,
    })
  }

  /** As {@link keepPort} for what leaves: what comes in finds the way back, and no other. */
  mapPort(router: 1 | 2, outside: number): Promise<void> {
    const { local, advertise } = this.node(router, 4)
    return this.translate(router, {
      postrouting: `oifname eth0 ip saddr ${local} udp sport ${NAT_PORT} snat ip to ${advertise}:${outside}`,
    })
  }

  /** Packets that a router has dropped for want of a mapping. */
  async unmapped(router: 1 | 2): Promise<number> {
    const text = await this.fabric.hosts[router - 1]!.run('nft', [
      '-j',
      'list',
      'counters',
      'table',
      'inet',
      'unmapped',
    ])
    const { nftables } = JSON.parse(text) as { nftables: { counter?: { packets: number } }[] }
    return nftables.find(({ counter }) => counter !== undefined)!.counter!.packets
  }

  /** UDP of the node behind a router, from one port of its own, and to another of the router's, which it keeps for it. */
  keepPort(router: 1 | 2, port: number, outside: number): Promise<void> {
    const { local, advertise } = this.node(router, 4)
    return this.translate(router, {
      prerouting: `iifname eth0 udp dport ${outside} dnat ip to ${local}:${port}`,
      postrouting: `oifname eth0 ip saddr ${local} udp sport ${port} snat ip to ${advertise}:${outside}`,
    })
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.fabric.close()
  }
}

export async function forgetConnections({ netns }: Namespace): Promise<void> {
  const channel = await Channel.open(NETLINK_NETFILTER, { netns })
  try {
    const reply = await channel.run('conntrack', (socket, job) =>
      socket.request(job, DELETE_CONNECTIONS, NLM_F_REQUEST_ACK, new Uint8Array(4), 5000),
    )
    if (reply.ending !== Ending.complete) throw new Error(`conntrack: errno ${reply.errno} ${reply.message ?? ''}`)
  } finally {
    await channel.close()
  }
}

/** Inner address of a node. */
export function inner({ number }: Node): string {
  return `10.9.0.${number}`
}

/** Gives two nodes a link of the encrypted network to each other; who has which inner address is settled. */
export async function link(
  one: Node,
  other: Node,
  { checksum, port = PORT }: { checksum: boolean; port?: number },
): Promise<void> {
  const flags = {
    4: [checksum ? 'udpcsum' : 'noudpcsum'],
    6: checksum ? ['noudp6zerocsumtx', 'noudp6zerocsumrx'] : ['udp6zerocsumtx', 'udp6zerocsumrx'],
  }
  const hardware = ({ number }: Node) => `02:00:00:00:00:0${number}`
  for (const [here, there] of [
    [one, other],
    [other, one],
  ] as const) {
    const ends = ['local', here.local, 'remote', there.advertise]
    await here.where.ip([
      [
        'link',
        'add',
        'vx',
        'address',
        hardware(here),
        'mtu',
        '1280',
        'type',
        'vxlan',
        'id',
        String(VNI),
        'dstport',
        String(port),
        ...ends,
        ...flags[here.family],
      ],
      // What crosses the link is what was sent on purpose.
      ['link', 'set', 'vx', 'addrgenmode', 'none'],
      ['address', 'add', `${inner(here)}/24`, 'dev', 'vx'],
      ['link', 'set', 'vx', 'up'],
      ['neigh', 'replace', inner(there), 'lladdr', hardware(there), 'dev', 'vx', 'nud', 'permanent'],
    ])
  }
}

export async function unlink(...nodes: readonly Node[]): Promise<void> {
  for (const { where } of nodes) await where.ip([['link', 'delete', 'vx']])
}

/** Datagrams that a node threw away for their checksum (RFC 4113's counters as Linux extends them). */
export async function checksumErrors({ where, family }: Node): Promise<number> {
  if (family === 6) {
    const text = await where.run('cat', ['/proc/net/snmp6'])
    return Number(/^Udp6InCsumErrors\s+(\d+)$/m.exec(text)![1])
  }
  const lines = (await where.run('cat', ['/proc/net/snmp'])).split('\n').filter((line) => line.startsWith('Udp: '))
  const [names, counts] = lines.map((line) => line.split(' '))
  return Number(counts![names!.indexOf('InCsumErrors')])
}
