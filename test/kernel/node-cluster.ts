import { Fabric, type Host } from '../../lib/demo/hosts.js'
import { ping, type Pinged, RunningPing } from '../../lib/demo/ping.js'
import {
  NodeEncryption,
  type NodeEncryptionOptions,
  type NodeKeys,
  parseKeys,
  type RemoteNode,
} from '../../lib/node/index.js'

/** Nodes of a cluster around a switch, each with a pod in a namespace of its own, over IPv4 and IPv6. */

/** What a node sent so far, as its port of the switch saw it. */
export interface Sent {
  /** Packets between pods, and of the overlay, in the clear. */
  clear: number
  esp: number
}

export const FAMILIES = [4, 6] as const

/** A key file's current key, of one id; no two are alike. */
export function keysOf(id: number): NodeKeys {
  const key = Array.from({ length: 20 }, (_, i) => ((id * 31 + i * 7) & 0xff).toString(16).padStart(2, '0')).join('')
  return parseKeys(`${id} rfc4106(gcm(aes)) ${key} 128\n`)
}

/** A boot id. */
export function bootIdOf(number: number, boot = 1): string {
  return `00000000-0000-4000-8000-${String(number).padStart(6, '0')}${String(boot).padStart(6, '0')}`
}

export const podAddress = (number: number, family: 4 | 6): string =>
  family === 4 ? `10.${number}.0.2` : `fd00:${number}::2`
const nodeAddress = (number: number, family: 4 | 6) => (family === 4 ? `192.0.2.${number}` : `2001:db8::${number}`)
/** A node's second address, where overlay traffic ends. */
export const overlayAddress = (number: number, family: 4 | 6): string =>
  family === 4 ? `203.0.113.${number}` : `2001:db8:1::${number}`
const range = (number: number, family: 4 | 6) => (family === 4 ? `10.${number}.0.0/24` : `fd00:${number}::/64`)

/** What a node is to the others. */
export function remoteOf(number: number, more: Partial<RemoteNode> = {}): RemoteNode {
  return {
    name: `node${number}`,
    addresses: FAMILIES.map((family) => nodeAddress(number, family)),
    subnets: FAMILIES.map((family) => range(number, family)),
    bootId: bootIdOf(number),
    ...more,
  }
}

/** Runs `work` with a cluster, and removes all of it. */
export async function withCluster(count: number, work: (cluster: Cluster) => Promise<void>): Promise<void> {
  await using cluster = await Cluster.create(count)
  await work(cluster)
}

export class Cluster implements AsyncDisposable {
  readonly hosts: readonly Host[]
  readonly #fabric: Fabric
  readonly #opened = new Set<NodeEncryption>()

  private constructor(fabric: Fabric) {
    this.#fabric = fabric
    this.hosts = fabric.hosts
  }

  static async create(count: number): Promise<Cluster> {
    const cluster = new Cluster(await Fabric.create({ hosts: count, prefix: 'xn' }))
    try {
      await Promise.all(cluster.hosts.map((host) => cluster.#connect(host)))
      await Promise.all(cluster.hosts.map((host) => cluster.#ready(host)))
      await cluster.#tap()
      return cluster
    } catch (error) {
      await cluster[Symbol.asyncDispose]()
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#opened].map((each) => each.close()))
    await this.#fabric.close()
  }

  async #connect(host: Host): Promise<void> {
    const { number, container } = host
    const forwarding = ['net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1']
    await Promise.all([
      host.run('sysctl', ['-qw', ...forwarding, 'net.ipv6.conf.default.accept_dad=0']),
      container.run('sysctl', ['-qw', 'net.ipv6.conf.default.accept_dad=0']),
    ])
    await host.ip([
      ['address', 'add', `${nodeAddress(number, 6)}/64`, 'dev', 'eth0', 'nodad'],
      ...FAMILIES.map((family) => overlayAddressWords(number, family)),
      ['link', 'add', 'pod', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', container.name],
      ['address', 'add', `10.${number}.0.1/24`, 'dev', 'pod'],
      ['address', 'add', `fd00:${number}::1/64`, 'dev', 'pod', 'nodad'],
      ['link', 'set', 'pod', 'up'],
      ...this.#othersOf(host).flatMap((other) =>
        FAMILIES.map((family) => ['route', 'add', range(other, family), 'via', nodeAddress(other, family)]),
      ),
    ])
    await container.ip([
      ['link', 'set', 'lo', 'up'],
      ['address', 'add', `${podAddress(number, 4)}/24`, 'dev', 'eth0'],
      ['address', 'add', `${podAddress(number, 6)}/64`, 'dev', 'eth0', 'nodad'],
      ['link', 'set', 'eth0', 'up'],
      ['route', 'add', 'default', 'via', `10.${number}.0.1`],
      ['route', 'add', '::/0', 'via', `fd00:${number}::1`],
    ])
  }

  /** Waits until the other pods answer a host's: new links carry IPv6 when the kernel has looked at them, seconds later. */
  async #ready(from: Host): Promise<void> {
    for (const number of this.#othersOf(from)) {
      for (const family of FAMILIES) {
        while ((await ping(from.container, podAddress(number, family), { count: 1, timeoutMs: 100 })).lost > 0);
      }
    }
  }

  /** Counts at the switch's ports, before anything of ours could look away. */
  async #tap(): Promise<void> {
    const chains = this.hosts.map(
      ({ number }) => `
        counter clear${number} { }
        counter esp${number} { }
        chain port${number} {
          type filter hook ingress device port${number} priority 0;
          ip saddr 10.0.0.0/8 counter name clear${number} accept
          ip daddr 10.0.0.0/8 counter name clear${number} accept
          ip6 saddr fd00::/16 counter name clear${number} accept
          ip6 daddr fd00::/16 counter name clear${number} accept
          udp dport 8472 counter name clear${number} accept
          meta l4proto esp counter name esp${number}
        }
      `,
    )
    await this.#fabric.switch.run('nft', ['-f', '-'], { input: `table netdev taps {${chains.join('')}}\n` })
  }

  /** Opens the encryption of a node, which knows nobody yet. */
  async open(host: Host, more: Partial<NodeEncryptionOptions> = {}): Promise<NodeEncryption> {
    const { addresses, subnets, bootId } = remoteOf(host.number)
    const local = { addresses, subnets: subnets!, bootId, ...more.local }
    const opened = await NodeEncryption.open({ netns: host.netns, keys: keysOf(3), ...more, local })
    this.#opened.add(opened)
    return opened
  }

  /** What a node's others are. */
  others(host: Host, more: (number: number) => Partial<RemoteNode> = () => ({})): RemoteNode[] {
    return this.#othersOf(host).map((number) => remoteOf(number, more(number)))
  }

  /** What each node has sent so far. */
  async sent(): Promise<Sent[]> {
    const { nftables } = JSON.parse(await this.#fabric.switch.run('nft', ['-j', 'list', 'counters'])) as {
      nftables: { counter?: { name: string; packets: number } }[]
    }
    const packets = (name: string) => nftables.find(({ counter }) => counter?.name === name)!.counter!.packets
    return this.hosts.map(({ number }) => ({ clear: packets(`clear${number}`), esp: packets(`esp${number}`) }))
  }

  /** Sniffers at all ports of the switch, by tcpdump, of what is between pods in the clear. */
  sniff(): ReturnType<Fabric['sniff']> {
    return this.#fabric.sniff('net 10.0.0.0/8 or ip6 net fd00::/16')
  }

  /** Pings from each pod to the next, over both families, until it is stopped. */
  traffic(
    pairs = this.hosts.map((from, i): [Host, Host] => [from, this.hosts[(i + 1) % this.hosts.length]!]),
  ): Traffic {
    return new Traffic(pairs)
  }

  /**
   * What Cilium's datapath does with marks, by nftables: gives what leaves for another node, or its overlay, the mark of
   * that node and key; and ESP that comes in the mark of the node that it came from.
   */
  async datapath(host: Host, keyId: number): Promise<void> {
    const numbers = this.#othersOf(host)
    const hex = (number: number) => number.toString(16).padStart(4, '0')
    const map = (name: string, type: string, entries: (number: number) => [string, string]) => {
      const elements = numbers.map((number) => entries(number).join(' : ')).join(', ')
      return `map ${name} { type ${type} : mark; flags interval; elements = { ${elements} } }`
    }
    const out = (number: number) => `0x${hex(number)}${keyId.toString(16)}e00`
    const rules = FAMILIES.map((family) =>
      family === 4 ? (['4', 'ip', 'ipv4_addr'] as const) : (['6', 'ip6', 'ipv6_addr'] as const),
    )
    const maps = rules.flatMap(([version, , type], i) => {
      const family = FAMILIES[i]!
      return [
        map(`pods${version}`, type, (number) => [range(number, family), out(number)]),
        map(`overlay${version}`, type, (number) => [overlayAddress(number, family), out(number)]),
        map(`from${version}`, type, (number) => [
          `${nodeAddress(number, family)} : 0x${hex(number)}0d00, ${overlayAddress(number, family)}`,
          `0x${hex(number)}0d00`,
        ]),
      ]
    })
    const input = `
      table inet datapath { }
      delete table inet datapath
      table inet datapath {
        ${maps.join('\n')}
        chain in {
          type filter hook prerouting priority -300;
          ${rules.map(([v, ip]) => `meta l4proto esp meta mark set ${ip} saddr map @from${v}`).join('\n')}
          meta mark & 0xf00 == 0xd00 accept
          ${rules.map(([v, ip]) => `meta mark set ${ip} daddr map @pods${v}`).join('\n')}
        }
        chain out {
          type route hook output priority -300;
          ${rules.map(([v, ip]) => `udp dport 8472 meta mark set ${ip} daddr map @overlay${v}`).join('\n')}
        }
      }
    `
    await host.run('nft', ['-f', '-'], { input })
  }

  #othersOf(host: Host): number[] {
    return this.hosts.filter((other) => other !== host).map(({ number }) => number)
  }
}

/** Pings at work. */
export class Traffic {
  readonly #pings: readonly RunningPing[]

  constructor(pairs: readonly (readonly [Host, Host])[]) {
    this.#pings = pairs.flatMap(([from, to]) =>
      FAMILIES.map((family) => RunningPing.start(from.container, podAddress(to.number, family), { intervalMs: 20 })),
    )
  }

  /** Waits until each was answered that often more. */
  async flows(times = 5): Promise<void> {
    const wanted = this.#pings.map(({ received }) => received + times)
    while (this.#pings.some(({ received }, i) => received < wanted[i]!))
      await new Promise((resolve) => setTimeout(resolve, 20))
  }

  /** Ends them; what came of all. */
  async stop(): Promise<Pinged> {
    const all = await Promise.all(this.#pings.map((running) => running.stop()))
    return all.reduce((sum, { sent, received, lost }) => ({
      sent: sum.sent + sent,
      received: sum.received + received,
      lost: sum.lost + lost,
    }))
  }
}

function overlayAddressWords(number: number, family: 4 | 6): string[] {
  const [length, ...nodad] = family === 4 ? ['24'] : ['64', 'nodad']
  return ['address', 'add', `${overlayAddress(number, family)}/${length}`, 'dev', 'eth0', ...nodad]
}
