import { Fabric, type Host } from '../../lib/demo/hosts.js'
import { ping, type RunningPing } from '../../lib/demo/ping.js'
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
  /** Packets between pods, in the clear. */
  clear: number
  esp: number
}

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

/** What a node is to the others. */
export function remoteOf(number: number, more: Partial<RemoteNode> = {}): RemoteNode {
  return {
    name: `node${number}`,
    addresses: [`192.0.2.${number}`, `2001:db8::${number}`],
    subnets: [`10.${number}.0.0/24`, `fd00:${number}::/64`],
    bootId: bootIdOf(number),
    ...more,
  }
}

/** Ends pings. @returns how many were lost, of all */
export async function lostIn(pings: readonly RunningPing[]): Promise<number> {
  const all = await Promise.all(pings.map((running) => running.stop()))
  console.log('pings', ...all)
  return all.reduce((sum, { lost }) => sum + lost, 0)
}

/** Runs `work` with a cluster, and removes all of it. */
export async function withCluster(count: number, work: (cluster: Cluster) => Promise<void>): Promise<void> {
  await using fabric = await Fabric.create({ hosts: count, prefix: 'xn' })
  const cluster = new Cluster(fabric)
  try {
    await cluster.build()
    await work(cluster)
  } finally {
    await cluster.close()
  }
}

export class Cluster {
  readonly hosts: readonly Host[]
  readonly #fabric: Fabric
  readonly #opened: NodeEncryption[] = []

  constructor(fabric: Fabric) {
    this.#fabric = fabric
    this.hosts = fabric.hosts
  }

  async build(): Promise<void> {
    for (const host of this.hosts) {
      const { number, container } = host
      for (const name of ['net.ipv4.ip_forward', 'net.ipv6.conf.all.forwarding'])
        await host.run('sysctl', ['-qw', `${name}=1`])
      await container.run('sysctl', ['-qw', 'net.ipv6.conf.default.accept_dad=0'])
      await host.ip([
        ['address', 'add', `2001:db8::${number}/64`, 'dev', 'eth0', 'nodad'],
        ['link', 'add', 'pod', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', container.name],
        ['address', 'add', `10.${number}.0.1/24`, 'dev', 'pod'],
        ['address', 'add', `fd00:${number}::1/64`, 'dev', 'pod', 'nodad'],
        ['link', 'set', 'pod', 'up'],
        ...this.hosts.flatMap((other) =>
          other === host
            ? []
            : [
                ['route', 'add', `10.${other.number}.0.0/24`, 'via', other.address],
                ['route', 'add', `fd00:${other.number}::/64`, 'via', `2001:db8::${other.number}`],
              ],
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
    await Promise.all(this.hosts.map((from) => this.#ready(from)))
    // At the switch's ports, before anything of ours could look away.
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
          meta l4proto esp counter name esp${number}
        }
      `,
    )
    await this.#fabric.switch.run('nft', ['-f', '-'], { input: `table netdev taps {${chains.join('')}}\n` })
  }

  /** Waits until all other pods answer a host's: new links carry IPv6 when the kernel has looked at them, seconds later. */
  async #ready(from: Host): Promise<void> {
    for (const { number } of this.hosts) {
      for (const family of [4, 6] as const) {
        while ((await ping(from.container, podAddress(number, family), { count: 1, timeoutMs: 100 })).lost > 0);
      }
    }
  }

  /** Opens the encryption of a node, which knows nobody yet. */
  async open(host: Host, more: Partial<NodeEncryptionOptions> = {}): Promise<NodeEncryption> {
    const { addresses, subnets, bootId } = remoteOf(host.number)
    const local = { addresses, subnets: subnets!, bootId, ...more.local }
    const opened = await NodeEncryption.open({ netns: host.netns, keys: keysOf(3), ...more, local })
    this.#opened.push(opened)
    return opened
  }

  /** What a node's others are. */
  others(host: Host, more: (number: number) => Partial<RemoteNode> = () => ({})): RemoteNode[] {
    return this.hosts.filter((other) => other !== host).map(({ number }) => remoteOf(number, more(number)))
  }

  /** What each node has sent so far. */
  async sent(): Promise<Sent[]> {
    const { nftables } = JSON.parse(await this.#fabric.switch.run('nft', ['-j', 'list', 'counters'])) as {
      nftables: { counter?: { name: string; packets: number } }[]
    }
    const packets = (name: string) => nftables.find(({ counter }) => counter?.name === name)!.counter!.packets
    return this.hosts.map(({ number }) => ({ clear: packets(`clear${number}`), esp: packets(`esp${number}`) }))
  }

  async close(): Promise<void> {
    await Promise.all(this.#opened.map((each) => each.close()))
  }
}
