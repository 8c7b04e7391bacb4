import { execFileSync } from 'node:child_process'
import { overlayMtu } from '../index.js'
import { Namespace } from './namespace.js'
import { run } from './processes.js'
import { Sniffer } from './sniffer.js'

export interface FabricOptions {
  /** How many, 1 to 200, or their outer addresses, of one family. */
  hosts: number | readonly string[]
  /** Family of the outer addresses made up: 192.0.2.k/24 or 2001:db8::k/64. Default: 4. */
  family?: 4 | 6
  /** What the namespaces' names begin with; the process's number follows. Default: 'xm'. */
  prefix?: string
}

export interface VxlanOptions {
  /** 0 to 2^24 - 1. */
  vni: number
  /** UDP port. Default: 4789. */
  port?: number
  /** Outer addresses of those to whom it floods. Default: all other hosts. */
  peers?: readonly string[]
  /** Whether UDP checksums are made: off, packets survive a NAT in ESP. Default: false. */
  checksum?: boolean
  /** Default: what fits, encrypted by Overlay's default suite, into 1500 bytes. */
  mtu?: number
}

/** A VXLAN link in a host's container. */
export interface VxlanLink {
  readonly vni: number
  readonly device: string
  /** Inner address, 10.0.n.k: n the network's number in the fabric, in order of appearance; k the host's. */
  readonly address: string
}

const MOST_HOSTS = 200

/** Fabrics not closed yet, and how many there ever were. */
const open = new Set<Fabric>()
let made = 0

/** Leaves nothing behind however the process ends, but for SIGKILL. */
function removeAll(): void {
  for (const fabric of open) fabric.removeNow()
}
process.on('exit', removeAll)

/** A handler keeps the signal from ending the process; where others handle it, that is their business. */
function onSignal(signal: NodeJS.Signals, number: number): () => void {
  const handler = () => {
    if (process.listenerCount(signal) > 1) return
    removeAll()
    process.exit(128 + number)
  }
  return handler
}
const onInterrupt = onSignal('SIGINT', 2)
const onTerminate = onSignal('SIGTERM', 15)

function remember(fabric: Fabric): void {
  if (open.size === 0) {
    process.on('SIGINT', onInterrupt)
    process.on('SIGTERM', onTerminate)
  }
  open.add(fabric)
}

function forget(fabric: Fabric): void {
  open.delete(fabric)
  if (open.size > 0) return
  process.off('SIGINT', onInterrupt)
  process.off('SIGTERM', onTerminate)
}

/**
 * Hosts, each in a network namespace, around a switch: a bridge in a namespace of its own. Made with `ip`, as root;
 * removed by `close()`, and when the process exits.
 */
export class Fabric implements AsyncDisposable {
  readonly family: 4 | 6
  readonly hosts: readonly Host[]
  /** The switch: its port to host k, from 1, is the device `port<k>`. */
  readonly switch: Namespace
  readonly #networks: number[] = []

  private constructor(name: string, addresses: readonly string[]) {
    this.family = addresses[0]!.includes(':') ? 6 : 4
    this.switch = new Namespace(`${name}-switch`)
    this.hosts = addresses.map((address, i) => new Host(this, `${name}-${i + 1}`, i + 1, address))
  }

  static async create({ hosts, family = 4, prefix = 'xm' }: FabricOptions): Promise<Fabric> {
    const addresses =
      typeof hosts === 'number' ? Array.from({ length: hosts }, (_, i) => hostAddress(family, i + 1)) : hosts
    if (addresses.length < 1 || addresses.length > MOST_HOSTS) throw new RangeError(`hosts: 1 to ${MOST_HOSTS}`)
    made++
    const fabric = new Fabric(`${prefix}${process.pid}-${made}`, addresses)
    remember(fabric)
    try {
      await fabric.#build()
      return fabric
    } catch (error) {
      await fabric.close()
      throw error
    }
  }

  /** A network's number in this fabric: the third byte of its inner addresses. */
  numberOf(vni: number): number {
    if (!this.#networks.includes(vni)) this.#networks.push(vni)
    return this.#networks.indexOf(vni)
  }

  /** Starts a sniffer on each of the switch's ports: what a host sends and what it gets passes there. */
  sniff(filter: string): Promise<Sniffer[]> {
    return Promise.all(this.hosts.map(({ number }) => Sniffer.start(this.switch, `port${number}`, filter)))
  }

  /** Removes all namespaces. What still runs in one keeps it alive, nameless, until it ends. */
  async close(): Promise<void> {
    if (!open.has(this)) return
    await run('ip', ['-force', '-batch', '-'], { input: this.#removal(), statuses: [0, 1] })
    forget(this)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** The same for a process that is about to end, and can wait for nothing. */
  removeNow(): void {
    try {
      execFileSync('ip', ['-force', '-batch', '-'], { input: this.#removal(), stdio: ['pipe', 'ignore', 'ignore'] })
    } catch {
      // One that was not made yet, or is gone: there is nobody left to tell.
    }
    forget(this)
  }

  #namespaces(): Namespace[] {
    return [this.switch, ...this.hosts.flatMap((host) => [host, host.container])]
  }

  #removal(): string {
    return this.#namespaces()
      .map(({ name }) => `netns delete ${name}\n`)
      .join('')
  }

  async #build(): Promise<void> {
    const add = this.#namespaces().map(({ name }) => `netns add ${name}\n`)
    await run('ip', ['-batch', '-'], { input: add.join('') })
    await this.switch.ip([
      // Without snooping nobody need ask for multicast before getting it; without delay a port forwards at once.
      ['link', 'add', 'bridge', 'type', 'bridge', 'mcast_snooping', '0', 'forward_delay', '0'],
      ['link', 'set', 'bridge', 'up'],
      ...this.hosts.flatMap(({ number, name, device }) => [
        ['link', 'add', `port${number}`, 'type', 'veth', 'peer', 'name', device, 'netns', name],
        ['link', 'set', `port${number}`, 'master', 'bridge'],
        ['link', 'set', `port${number}`, 'up'],
      ]),
    ])
    for (const host of this.hosts) {
      const { device, address } = host
      const [prefix, all] = this.family === 4 ? [[`${address}/24`], '0.0.0.0/0'] : [[`${address}/64`, 'nodad'], '::/0']
      await host.ip([
        ['link', 'set', 'lo', 'up'],
        ['link', 'set', device, 'up'],
        ['address', 'add', 'dev', device, ...prefix],
        // Addresses that a caller chose need not be of one prefix: all are on this link.
        ['route', 'add', all, 'dev', device],
      ])
    }
  }
}

/** A container host: its own namespace is the underlay's, its container's the overlay's. */
export class Host extends Namespace {
  /** From 1. */
  readonly number: number
  /** Outer address. */
  readonly address: string
  /** The device that has it. */
  readonly device = 'eth0'
  /** Where its VXLAN links live. */
  readonly container: Namespace
  readonly #fabric: Fabric

  constructor(fabric: Fabric, name: string, number: number, address: string) {
    super(name)
    this.number = number
    this.address = address
    this.container = new Namespace(`${name}-container`)
    this.#fabric = fabric
  }

  /**
   * Makes a VXLAN link in this namespace, whose socket and packets stay here, and moves it into the container's, as
   * container hosts do. It floods to its peers: no FDB but the all-zero entries is needed.
   */
  async addVxlan({ vni, port = 4789, peers, checksum = false, mtu }: VxlanOptions): Promise<VxlanLink> {
    const { family } = this.#fabric
    const others = peers ?? this.#fabric.hosts.filter((host) => host !== this).map(({ address }) => address)
    const device = `vx${vni}`
    const address = `10.0.${this.#fabric.numberOf(vni)}.${this.number}`
    await this.ip([
      [
        ...['link', 'add', device, 'type', 'vxlan', 'id', String(vni), 'dstport', String(port), 'local', this.address],
        ...checksumWords(family, checksum),
      ],
      ['link', 'set', device, 'netns', this.container.name],
    ])
    await this.container.ip([
      // No link-local address: what crosses the link is what was sent on purpose.
      ['link', 'set', device, 'addrgenmode', 'none', 'mtu', String(mtu ?? overlayMtu({ family }))],
      ['address', 'add', `${address}/24`, 'dev', device],
      ['link', 'set', device, 'up'],
    ])
    const floods = others.map((other) => `fdb append 00:00:00:00:00:00 dev ${device} dst ${other}\n`)
    await this.container.run('bridge', ['-batch', '-'], { input: floods.join('') })
    return { vni, device, address }
  }
}

/** The outer address of host k, from 1, where the caller has no wish (RFC 5737, RFC 3849). */
export function hostAddress(family: 4 | 6, number: number): string {
  return family === 4 ? `192.0.2.${number}` : `2001:db8::${number.toString(16)}`
}

function checksumWords(family: 4 | 6, checksum: boolean): string[] {
  if (family === 4) return [checksum ? 'udpcsum' : 'noudpcsum']
  return checksum ? ['noudp6zerocsumtx', 'noudp6zerocsumrx'] : ['udp6zerocsumtx', 'udp6zerocsumrx']
}
