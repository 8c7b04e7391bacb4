import { expect } from 'vitest'
import { Fabric, type FabricOptions, type Host, type VxlanLink } from '../../lib/demo/hosts.js'
import type { Namespace } from '../../lib/demo/namespace.js'
import { ping, RunningPing } from '../../lib/demo/ping.js'
import { deriveSpi, Overlay, type OverlayOptions } from '../../lib/index.js'
import { keyOf } from './keys.js'

/** VXLAN's port, and the network that the tests encrypt. */
export const PORT = 4789
export const VNI = 4096
/** A network beside it, which they do not. */
export const PLAIN = 5000

/**
 * Gives every host a link of each network. Who has which inner address is settled: what crosses the links is what was sent
 * on purpose, and nothing waits for an answer to "who has".
 */
export async function linkAll(fabric: Fabric, vnis: readonly number[], port = PORT): Promise<void> {
  for (const vni of vnis) {
    const links = await Promise.all(fabric.hosts.map((host) => host.addVxlan({ vni, port })))
    const hardware = await Promise.all(fabric.hosts.map((host, i) => hardwareAddress(host.container, links[i]!)))
    for (const [i, host] of fabric.hosts.entries()) {
      await host.container.ip(
        links.flatMap(({ device, address }, j) =>
          i === j ? [] : [['neigh', 'replace', address, 'lladdr', hardware[j]!, 'dev', device, 'nud', 'permanent']],
        ),
      )
    }
  }
}

export async function hardwareAddress(where: Namespace, { device }: VxlanLink): Promise<string> {
  const [link] = JSON.parse(await where.run('ip', ['-j', 'link', 'show', device])) as { address: string }[]
  return link!.address
}

/** Inner address of a host in a network. */
export function inner(fabric: Fabric, host: Host, vni = VNI): string {
  return `10.0.${fabric.numberOf(vni)}.${host.number}`
}

/** Packets that a network's link has received in a host's container. */
export async function received({ container }: Host, vni = VNI): Promise<number> {
  const text = await container.run('ip', ['-j', '-s', 'link', 'show', `vx${vni}`])
  const [link] = JSON.parse(text) as { stats64: { rx: { packets: number } } }[]
  return link!.stats64.rx.packets
}

/** Hosts around a switch, and what else a test opens on them: all goes with it. */
export async function withFabric(
  options: FabricOptions,
  work: (fabric: Fabric, open: (host: Host, more?: Partial<OverlayOptions>) => Promise<Overlay>) => Promise<void>,
): Promise<void> {
  await using fabric = await Fabric.create(options)
  const overlays: Overlay[] = []
  try {
    await work(fabric, async (host, more) => {
      const overlay = await Overlay.open({ local: host.address, netns: host.netns, ...more })
      overlays.push(overlay)
      return overlay
    })
  } finally {
    await Promise.all(overlays.map((overlay) => overlay.close()))
  }
}

/** SPIs of all SAs in a namespace, as `ip` lists them, in order. */
export async function spis(where: Namespace): Promise<number[]> {
  const text = await where.run('ip', ['xfrm', 'state'])
  return Array.from(text.matchAll(/ spi (0x[0-9a-f]{8})/g), ([, spi]) => Number(spi)).sort((a, b) => a - b)
}

/** SPIs that a host should have SAs of, in order: from each peer under each key, and to each peer under the first. */
export function expectedSpis(local: string, peers: readonly string[], [primary, ...more]: readonly number[]): number[] {
  const reverse = peers.flatMap((peer) => [primary!, ...more].map((tag) => deriveSpi(peer, local, tag)))
  return [...reverse, ...peers.map((peer) => deriveSpi(local, peer, primary!))].sort((a, b) => a - b)
}

/** The outer addresses of all other hosts. */
export function others(fabric: Fabric, host: Host): string[] {
  return fabric.hosts.filter((other) => other !== host).map(({ address }) => address)
}

/** Packets that one host has sent so far. */
export interface Sent {
  /** VXLAN of the encrypted network, in the clear, on whatever port. */
  clear: number
  esp: number
}

/** Counts, at the switch's port of each host, what comes from it: before anything of ours could look away. */
export class Taps {
  readonly #switch: Namespace

  private constructor(where: Namespace) {
    this.#switch = where
  }

  static async set(fabric: Fabric): Promise<Taps> {
    const chains = fabric.hosts.map(
      ({ number }) => `
        counter clear${number} { }
        counter esp${number} { }
        chain port${number} {
          type filter hook ingress device port${number} priority 0;
          meta l4proto udp @th,64,32 0x08000000 @th,96,24 ${VNI} counter name clear${number}
          meta l4proto esp counter name esp${number}
        }
      `,
    )
    await fabric.switch.run('nft', ['-f', '-'], { input: `table netdev taps {${chains.join('')}}\n` })
    return new Taps(fabric.switch)
  }

  /** What a host has sent so far. */
  async sent({ number }: Host): Promise<Sent> {
    return (await this.#read())[number - 1]!
  }

  /** What all have sent so far, by one look. */
  async total(): Promise<Sent> {
    return (await this.#read()).reduce((sum, each) => ({ clear: sum.clear + each.clear, esp: sum.esp + each.esp }))
  }

  /** What it sends while the work lasts. */
  async sentDuring(host: Host, work: () => Promise<unknown>): Promise<Sent> {
    const before = await this.sent(host)
    await work()
    const after = await this.sent(host)
    return { clear: after.clear - before.clear, esp: after.esp - before.esp }
  }

  /** By host. */
  async #read(): Promise<Sent[]> {
    const { nftables } = JSON.parse(await this.#switch.run('nft', ['-j', 'list', 'counters'])) as {
      nftables: { counter?: { name: string; packets: number } }[]
    }
    const sent: Sent[] = []
    for (const { counter } of nftables) {
      const [, what, number] = /^(clear|esp)(\d+)$/.exec(counter?.name ?? '') ?? []
      if (what !== undefined) (sent[Number(number) - 1] ??= { ...nothing })[what as keyof Sent] = counter!.packets
    }
    return sent
  }
}

/** Pings that nobody may answer: a few, soon given up. */
export const COUNT = 3
export const few = { count: COUNT, intervalMs: 20, timeoutMs: 300 }

/** Sends from one host's container to the other's; returns how much of it arrived on the other's link. */
export async function arrived(fabric: Fabric, from: Host, to: Host): Promise<number> {
  const before = await received(to)
  await ping(from.container, inner(fabric, to), few)
  return (await received(to)) - before
}

/** Sends from one host's container to the other's; returns what left. */
export function left(taps: Taps, fabric: Fabric, from: Host, to: Host): Promise<Sent> {
  return taps.sentDuring(from, () => ping(from.container, inner(fabric, to), few))
}

/** A ping through a network that is not encrypted, from beginning to end of the work: it loses nothing. */
export async function besidePlain(fabric: Fabric, work: () => Promise<void>): Promise<void> {
  const [one, other] = fabric.hosts as [Host, Host]
  const pinging = RunningPing.start(one.container, inner(fabric, other, PLAIN), { intervalMs: 50 })
  await work()
  const { sent, lost } = await pinging.stop()
  expect(lost).toBe(0)
  expect(sent).toBeGreaterThan(0)
}

export const nothing: Sent = { clear: 0, esp: 0 }
export const clear: Sent = { clear: COUNT, esp: 0 }
export const esp: Sent = { clear: 0, esp: COUNT }

export function flush(host: Host, what: 'state' | 'policy'): Promise<string> {
  return host.run('ip', ['xfrm', what, 'flush'])
}

/** Encrypts the network on a host with one key, for all others. */
export async function encrypt(fabric: Fabric, host: Host, overlay: Overlay): Promise<void> {
  await overlay.addNetworks([VNI])
  await overlay.setKeys([keyOf(1)])
  await overlay.addPeers(others(fabric, host))
}
