import { setTimeout as sleep } from 'node:timers/promises'
import {
  Overlay,
  overlayMtu,
  Unsupported,
  type CallOptions,
  type KeyInput,
  type Report,
  type SuiteName,
} from '../index.js'
import { Fabric, type Host, type VxlanLink } from './hosts.js'
import { ping, RunningPing, type Pinged } from './ping.js'
import { cleartext, ESP, stopAll, type Sniffed, type Sniffer } from './sniffer.js'
import type { Show } from './show.js'

/** What is to be shown. */
export interface DemoInput {
  port: number
  suite: SuiteName
  /** The first is primary; the rotation prunes it. */
  keys: readonly KeyInput[]
  /** The key to rotate to: its tag is none of theirs. */
  nextKey: KeyInput
  /** All are encrypted; the first has links and traffic. */
  networks: readonly number[]
  /** The hosts that are made, at least two, and their outer addresses. */
  hosts: readonly { readonly name: string; readonly address: string }[]
  /** Outer addresses of further peers, programmed on every host; nobody is there. */
  peers: readonly string[]
  policies: 'shared' | 'per-peer'
  exclusive: boolean
}

/** Work that the kernel was given, on all hosts. */
export interface Work {
  /** Netlink operations. */
  operations: number
  /** From calls to results, the hosts one after the other. */
  elapsedMs: number
  operationsPerSecond: number
}

export interface DemoResult {
  /** Before encryption: the ping passes, and what the sniffers see of it shows that they see. */
  before: { ping: Pinged; cleartext: Sniffed }
  /** Networks encrypted, no peers yet. */
  closed: { ping: Pinged }
  /** The hosts, added to each other first: here the kernel loads its modules. */
  hosts: Work & { count: number }
  /** The further peers, in one call on each host. */
  peers: Work & { perHost: number }
  /** Each pinged by the first host; a packet counts on both links that it crosses. */
  through: { ping: Pinged; esp: Sniffed }
  rotation: {
    add: Work
    primary: Work
    prune: Work
    ping: Pinged
    /** Counters of /proc/net/xfrm_stat that moved meanwhile, of all hosts. */
    xfrmErrors: Record<string, number>
  }
  /** Peers removed, networks still encrypted. */
  removal: Work & { ping: Pinged }
  /** What is in the kernel after all is removed, of all hosts. */
  left: { states: number; policies: number; rulesets: number }
  /** VXLAN in the clear, on all links, from the encryption to the end. */
  cleartext: Sniffed
  /** What should not have been; empty if all went well. */
  problems: string[]
}

const PINGS = 10
const ROTATION_PING_MS = 10
/** Ping goes on this long before the rotation, between its steps and after it. */
const PAUSE_MS = 500

/**
 * Encrypts a VXLAN network between hosts made for it, with real traffic, rotates keys under that traffic, and takes all
 * down again. Needs root, and a kernel with ESP.
 *
 * @throws XfrmeshError, CommandError. What was lost, leaked or left is no error but in the result's `problems`.
 */
export async function runDemo(input: DemoInput, show: Show): Promise<DemoResult> {
  if (process.getuid?.() !== 0) {
    throw new Unsupported('CAP_SYS_ADMIN', 'the demo makes network namespaces: run it as root')
  }
  await using fabric = await Fabric.create({ hosts: input.hosts.map(({ address }) => address) })
  return await new Demo(input, show, fabric).run()
}

/** One host's part. */
interface Member {
  readonly name: string
  readonly host: Host
  readonly overlay: Overlay
  /** Outer addresses of the other hosts. */
  readonly others: readonly string[]
}

class Demo {
  readonly #input: DemoInput
  readonly #show: Show
  readonly #fabric: Fabric
  #links: VxlanLink[] = []
  #members: Member[] = []

  constructor(input: DemoInput, show: Show, fabric: Fabric) {
    this.#input = input
    this.#show = show
    this.#fabric = fabric
  }

  async run(): Promise<DemoResult> {
    try {
      const before = await this.#inTheClear()
      await this.#encrypt()
      const sniffers = await this.#fabric.sniff(cleartext(this.#input.port))
      const closed = await this.#closed()
      const hosts = await this.#addHosts()
      const peers = await this.#addPeers()
      const through = await this.#through()
      const rotation = await this.#rotate()
      const removal = await this.#removePeers()
      const left = await this.#takeDown()
      const seen = await this.#leaked(sniffers)
      const result = { before, closed, hosts, peers, through, rotation, removal, left, cleartext: seen }
      return { ...result, problems: problems(result) }
    } finally {
      await Promise.all(this.#members.map(({ overlay }) => overlay.close()))
    }
  }

  async #inTheClear(): Promise<DemoResult['before']> {
    const { hosts } = this.#fabric
    const { port, suite } = this.#input
    const vni = this.#input.networks[0]!
    this.#show.part(
      `${hosts.length} hosts, each in a network namespace, and a VXLAN link (VNI ${vni}, UDP port ${port}) on each`,
    )
    for (const host of hosts) {
      const mtu = overlayMtu({ family: this.#fabric.family, suite })
      this.#links.push(await host.addVxlan({ vni, port, mtu }))
    }
    const sniffers = await this.#fabric.sniff(cleartext(port))
    const seen = await this.#pingAll(3)
    const clear = await stopAll(sniffers)
    this.#show.line(`${pinged(seen)}; in the clear, so far: tcpdump sees ${packets(clear.packets)} of VXLAN`)
    return { ping: seen, cleartext: clear }
  }

  async #encrypt(): Promise<void> {
    const { networks, hosts, port, suite, policies, exclusive } = this.#input
    this.#show.part(`Encrypting ${count(networks.length, 'network')}`)
    for (const [i, host] of this.#fabric.hosts.entries()) {
      const { netns, address: local } = host
      const overlay = await Overlay.open({ local, netns, port, suite, policies, exclusive })
      const others = hosts.map(({ address }) => address).filter((address) => address !== local)
      this.#members.push({ name: hosts[i]!.name, host, overlay, others })
      await overlay.addNetworks(networks)
    }
  }

  async #closed(): Promise<DemoResult['closed']> {
    const seen = await this.#pingAll(3)
    this.#show.line(`${pinged(seen)}: there are no peers yet, and nothing passes without encryption`)
    return { ping: seen }
  }

  async #addHosts(): Promise<DemoResult['hosts']> {
    const { keys } = this.#input
    this.#show.part(
      `${count(keys.length, 'key')} on each host, and the hosts as each other's peers (now the kernel loads ESP)`,
    )
    for (const { overlay } of this.#members) await overlay.setKeys(keys)
    const work = await this.#each('adding hosts', ({ overlay, others }, options) => overlay.addPeers(others, options))
    return { ...work, count: this.#members.length }
  }

  async #addPeers(): Promise<DemoResult['peers']> {
    const { peers } = this.#input
    this.#show.part(`${count(peers.length, 'further peer')} on each host, in one call`)
    const work = await this.#each('adding peers', ({ overlay }, options) => overlay.addPeers(peers, options))
    return { ...work, perHost: peers.length }
  }

  async #through(): Promise<DemoResult['through']> {
    this.#show.part('Ping through the encrypted network')
    const sniffers = await this.#fabric.sniff(ESP)
    const seen = await this.#pingAll(PINGS)
    const esp = await stopAll(sniffers)
    this.#show.line(`${pinged(seen)}; tcpdump sees ${packets(esp.packets)} of ESP on the links`)
    return { ping: seen, esp }
  }

  async #rotate(): Promise<DemoResult['rotation']> {
    const { nextKey, keys } = this.#input
    const old = keys[0]!.tag
    this.#show.part(
      `Rotating from key ${old} to key ${nextKey.tag} on all hosts, a ping every ${ROTATION_PING_MS} ms meanwhile`,
    )
    const errorsBefore = await this.#xfrmErrors()
    const [first] = this.#fabric.hosts
    const pings = this.#links
      .slice(1)
      .map(({ address }) => RunningPing.start(first!.container, address, { intervalMs: ROTATION_PING_MS }))
    const turn = async (label: string, change: Parameters<Overlay['updateKeys']>[0]) => {
      await sleep(PAUSE_MS)
      return this.#each(label, ({ overlay }, options) => overlay.updateKeys(change, options))
    }
    const add = await turn(`adding key ${nextKey.tag}`, { add: nextKey })
    const primary = await turn(`making key ${nextKey.tag} primary`, { primary: nextKey.tag })
    const prune = await turn(`pruning key ${old}`, { prune: old })
    await sleep(PAUSE_MS)
    const seen = sum(await Promise.all(pings.map((running) => running.stop())))
    const xfrmErrors = difference(errorsBefore, await this.#xfrmErrors())
    this.#show.line(pinged(seen))
    return { add, primary, prune, ping: seen, xfrmErrors }
  }

  async #removePeers(): Promise<DemoResult['removal']> {
    this.#show.part('Removing the peers')
    const work = await this.#each('removing peers', ({ overlay, others }, options) =>
      overlay.removePeers([...others, ...this.#input.peers], options),
    )
    const seen = await this.#pingAll(3)
    this.#show.line(`${pinged(seen)}: closed again`)
    return { ...work, ping: seen }
  }

  async #takeDown(): Promise<DemoResult['left']> {
    const left = { states: 0, policies: 0, rulesets: 0 }
    for (const [i, { host, overlay }] of this.#members.entries()) {
      // What a link sends once its network is not encrypted leaves in the clear.
      await host.container.run('ip', ['link', 'delete', this.#links[i]!.device])
      await overlay.removeNetworks(this.#input.networks)
      left.states += await host.states()
      left.policies += await host.policies()
      if ((await host.ruleset()).trim() !== '') left.rulesets++
    }
    this.#show.line(
      `left in the kernel: ${left.states} SAs, ${left.policies} policies, ${left.rulesets} nftables tables`,
    )
    return left
  }

  async #leaked(sniffers: readonly Sniffer[]): Promise<Sniffed> {
    const seen = await stopAll(sniffers)
    this.#show.line(
      `in the clear, on all links, since the encryption: ${packets(seen.packets)} (tcpdump missed ${seen.dropped})`,
    )
    return seen
  }

  /** Pings every other host from the first one's container. */
  async #pingAll(times: number): Promise<Pinged> {
    const [first] = this.#fabric.hosts
    const all = this.#links.slice(1).map(({ address }) => ping(first!.container, address, { count: times }))
    return sum(await Promise.all(all))
  }

  /** Does something on each host in turn, showing how far it is. */
  async #each(label: string, work: (member: Member, options: CallOptions) => Promise<Report>): Promise<Work> {
    const done: Work[] = []
    for (const member of this.#members) {
      const shown = `${member.name}: ${label}`
      const started = performance.now()
      const { operations } = await work(member, {
        onProgress: ({ done, total }) => {
          this.#show.progress(shown, done, total)
        },
      })
      const one = workOf(operations, performance.now() - started)
      this.#show.line(`${shown}: ${speed(one)}`)
      done.push(one)
    }
    return total(done)
  }

  async #xfrmErrors(): Promise<Record<string, number>> {
    const all: Record<string, number> = {}
    for (const host of this.#fabric.hosts) {
      for (const [name, value] of Object.entries(await host.xfrmErrors())) all[name] = (all[name] ?? 0) + value
    }
    return all
  }
}

function sum(all: readonly Pinged[]): Pinged {
  return all.reduce((a, b) => ({ sent: a.sent + b.sent, received: a.received + b.received, lost: a.lost + b.lost }))
}

function difference(before: Record<string, number>, after: Record<string, number>): Record<string, number> {
  const moved = Object.entries(after).map(([name, value]): [string, number] => [name, value - (before[name] ?? 0)])
  return Object.fromEntries(moved.filter(([, by]) => by !== 0))
}

/** What a result has in it that should not be, a sentence each. */
export function problems(result: Omit<DemoResult, 'problems'>): string[] {
  const { before, closed, through, rotation, removal, left, cleartext: clear } = result
  const moved = Object.entries(rotation.xfrmErrors).map(([name, by]) => `${name} ${by}`)
  const found: [boolean, string][] = [
    [before.ping.lost > 0, `before encryption ${before.ping.lost} of ${before.ping.sent} pings were lost`],
    [
      before.cleartext.packets === 0,
      'the sniffers saw no VXLAN when it was in the clear: what they say is worth nothing',
    ],
    [closed.ping.received > 0, `${closed.ping.received} pings came through before there were peers`],
    [through.ping.lost > 0, `${through.ping.lost} of ${through.ping.sent} pings were lost`],
    // Request and answer, each on two links.
    [through.esp.packets < 4 * through.ping.received, 'there was less ESP on the links than pings came through'],
    [rotation.ping.sent === 0, 'nothing was sent during the rotation'],
    [rotation.ping.lost > 0, `${rotation.ping.lost} of ${rotation.ping.sent} pings were lost during the rotation`],
    [moved.length > 0, `XFRM counted errors during the rotation: ${moved.join(', ')}`],
    [removal.ping.received > 0, `${removal.ping.received} pings came through after the peers were removed`],
    [left.states > 0, `${left.states} SAs were left in the kernel`],
    [left.policies > 0, `${left.policies} policies were left in the kernel`],
    [left.rulesets > 0, 'nftables tables were left in the kernel'],
    [clear.packets > 0, `${packets(clear.packets)} of an encrypted network crossed the links in the clear`],
    [
      clear.dropped > 0,
      `tcpdump missed ${packets(clear.dropped)}: that there was nothing else in the clear is not proved`,
    ],
  ]
  return found.flatMap(([is, text]) => (is ? [text] : []))
}

function pinged({ sent, received }: Pinged): string {
  return `ping: ${count(sent, 'packet')} sent, ${number(received)} received`
}

function packets(n: number): string {
  return count(n, 'packet')
}

/** Numbers as people read them. */
export function number(value: number): string {
  return Math.round(value).toLocaleString('en-US')
}

export function count(n: number, what: string): string {
  return `${number(n)} ${what}${n === 1 ? '' : 's'}`
}

/** As in 4,004 operations in 312 ms, 12,833 a second; the rate where there was enough to measure one. */
export function speed({ operations, elapsedMs, operationsPerSecond }: Work): string {
  const work = `${count(operations, 'operation')} in ${number(elapsedMs)} ms`
  return operations < 100 ? work : `${work}, ${number(operationsPerSecond)} a second`
}

/** Work done, with its rate; 0 for none. */
export function workOf(operations: number, elapsedMs: number): Work {
  return { operations, elapsedMs, operationsPerSecond: elapsedMs > 0 ? (operations / elapsedMs) * 1000 : 0 }
}

/** Work done one after the other. */
export function total(all: readonly Work[]): Work {
  return workOf(
    all.reduce((sum, { operations }) => sum + operations, 0),
    all.reduce((sum, { elapsedMs }) => sum + elapsedMs, 0),
  )
}
