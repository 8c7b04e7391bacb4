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

/** The UDP port of nodes. */
const NAT_PORT = 4500

/** Ports among which a router chooses one in its place, the first and the last. */
export type PortRange = readonly [number, number]
export const MAPPED: readonly [PortRange, PortRange] = [
  [40000, 40063],
  [50000, 50063],
]
const ranges = MAPPED.map((range) => range.join('-'))

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
      await Promise.all(path.routers.map((router) => path.#putBehind(router)))
      await path.fabric.hosts[2]!.ip([['address', 'add', `${addresses[6].outside[2]}/64`, 'dev', 'eth0', 'nodad']])
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
        chain input { type filter hook input priority 0; udp dport { ${[NAT_PORT, ...ranges].join(', ')} } counter name unmapped drop; }
      }`,
    })
    await router.run('sysctl', ['-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'])
    await router.ip([
      ['address', 'add', `${addresses[6].outside[router.number - 1]!}/64`, 'dev', 'eth0', 'nodad'],
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
    const host = this.routers[router - 1]!
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
    const { ip, local, advertise } = this.#turned(router, family)
    return this.translate(router, {
      prerouting: `iifname eth0 ${ip} daddr ${advertise} dnat ${ip} to ${local}`,
      postrouting: `oifname eth0 ${ip} saddr ${local} snat ${ip} to ${advertise}`,
    })
  }

  /** As {@link keepPort} for what leaves, at a port that the router chooses: what comes in finds the way back, and no other. */
  mapPort(router: 1 | 2, family: 4 | 6, range: PortRange): Promise<void> {
    const { advertise } = this.node(router, family)
    const ports = range.join('-')
    return this.#map(router, family, family === 4 ? `snat ip to ${advertise}:${ports}` : `masquerade to :${ports}`)
  }

  /** As {@link mapPort} over IPv4, at another address, which the router gets beside its own; returns the node as it then is. */
  async mapElsewhere(router: 1 | 2, address: string, range: PortRange): Promise<Node> {
    await this.routers[router - 1]!.ip([['address', 'replace', `${address}/24`, 'dev', 'eth0']])
    await this.#map(router, 4, `snat ip to ${address}:${range.join('-')}`)
    return { ...this.node(router, 4), advertise: address }
  }

  #map(router: 1 | 2, family: 4 | 6, to: string): Promise<void> {
    const { ip, local } = this.#turned(router, family)
    return this.translate(router, { postrouting: `oifname eth0 ${ip} saddr ${local} udp sport ${NAT_PORT} ${to}` })
  }

  /** Packets that a router has dropped for want of a mapping. */
  async unmapped(router: 1 | 2): Promise<number> {
    const text = await this.routers[router - 1]!.run('nft', '-j list counters table inet unmapped'.split(' '))
    const { nftables } = JSON.parse(text) as { nftables: { counter?: { packets: number } }[] }
    return nftables.find(({ counter }) => counter !== undefined)!.counter!.packets
  }

  /** UDP of the node behind a router, with its port turned into another of the router's, which it keeps for it. */
  keepPort(router: 1 | 2, family: 4 | 6, outside: number): Promise<void> {
    const { ip, local, advertise } = this.#turned(router, family)
    const at = (address: string, port: number) => `${family === 4 ? address : `[${address}]`}:${port}`
    return this.translate(router, {
      prerouting: `iifname eth0 ${ip} daddr ${advertise} udp dport ${outside} dnat ${ip} to ${at(local, NAT_PORT)}`,
      postrouting: `oifname eth0 ${ip} saddr ${local} udp sport ${NAT_PORT} snat ${ip} to ${at(advertise, outside)}`,
    })
  }

  #turned(router: 1 | 2, family: 4 | 6): { ip: string; local: string; advertise: string } {
    const { local, advertise } = this.node(router, family)
    return { ip: family === 4 ? 'ip' : 'ip6', local, advertise }
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

/** Hardware address of a node's link. */
export function hardware({ number }: Node): string {
  return `02:00:00:00:00:0${number}`
}

/** Inner address of a node. */
export function inner({ number }: Node): string {
  return `10.9.0.${number}`
}

/** What a link of the encrypted network is like. */
export interface LinkForm {
  readonly checksum: boolean
  /** VXLAN's. */
  readonly port?: number
}

/** Links nodes by twos. A link that is as it should be stays, for the next to use: making one takes a second in the lab. */
export class Links {
  #ends: readonly Node[] = []
  #form = ''

  /** Gives two nodes a link of the encrypted network to each other; who has which inner address is settled. */
  async link(one: Node, other: Node, { checksum, port = PORT }: LinkForm): Promise<void> {
    const form = JSON.stringify([one.advertise, other.advertise, checksum, port])
    if (form === this.#form) return
    await this.unlink()
    this.#ends = [one, other]
    await Promise.all([addLink(one, other, checksum, port), addLink(other, one, checksum, port)])
    this.#form = form
  }

  async unlink(): Promise<void> {
    const ends = this.#ends
    this.#ends = []
    this.#form = ''
    await Promise.all(ends.map(({ where }) => where.ip([['link', 'delete', 'vx']])))
  }
}

async function addLink(here: Node, there: Node, checksum: boolean, port: number): Promise<void> {
  const flags = {
    4: [checksum ? 'udpcsum' : 'noudpcsum'],
    6: checksum ? ['noudp6zerocsumtx', 'noudp6zerocsumrx'] : ['udp6zerocsumtx', 'udp6zerocsumrx'],
  }
  const vxlan = ['type', 'vxlan', 'id', String(VNI), 'dstport', String(port)]
  const ends = ['local', here.local, 'remote', there.advertise]
  await here.where.ip([
    ['link', 'add', 'vx', 'address', hardware(here), 'mtu', '1280', ...vxlan, ...ends, ...flags[here.family]],
    // What crosses the link is what was sent on purpose.
    ['link', 'set', 'vx', 'addrgenmode', 'none'],
    ['address', 'add', `${inner(here)}/24`, 'dev', 'vx'],
    ['link', 'set', 'vx', 'up'],
    ['neigh', 'replace', inner(there), 'lladdr', hardware(there), 'dev', 'vx', 'nud', 'permanent'],
  ])
}

/** What a node's kernel has thrown away, since the node was made. */
export interface Refused {
  /** Datagrams, for their checksum (RFC 4113's counters as Linux extends them). */
  checksums: number
  /** By XFRM: the counters that are not zero. */
  xfrm: Record<string, number>
}

/** All of it by one process a node, since starting one takes longest. */
export async function refused({ where, family }: Node): Promise<Refused> {
  const text = await where.run('cat', ['/proc/net/snmp', '/proc/net/snmp6', '/proc/net/xfrm_stat'])
  const counters = Array.from(text.matchAll(/^(\w+)\s+(\d+)$/gm), ([, name, count]) => [name!, Number(count)] as const)
  const [names, counts] = text
    .split('\n')
    .filter((line) => line.startsWith('Udp: '))
    .map((line) => line.split(' '))
  const six = counters.find(([name]) => name === 'Udp6InCsumErrors')![1]
  return {
    checksums: family === 6 ? six : Number(counts![names!.indexOf('InCsumErrors')]),
    xfrm: Object.fromEntries(counters.filter(([name, count]) => name.startsWith('Xfrm') && count !== 0)),
  }
}
