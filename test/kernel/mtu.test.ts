/**
 * The MTU that overlayMtu computes is exact: the largest packet that a link of it lets through leaves the host whole, and
 * one byte more does not.
 */
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import type { Fabric, Host } from '../../lib/demo/hosts.js'
import { overlayMtu, type Overlay, type SuiteName } from '../../lib/index.js'
import { Xfrm, XfrmBatch } from '../../lib/kernel/xfrm.js'
import { suites } from '../../lib/overlay/suites.js'
import { inner, linkAll, others, VNI, withFabric } from './mesh.js'
import { python } from './netns.js'

const program = fileURLToPath(new URL('mtu.py', import.meta.url))

/** All remainders by ESP's alignment around Ethernet's MTU, a jumbo frame, and what IP guarantees (RFC 791, RFC 8200). */
const paths = { 4: [576, 1499, 1500, 1501, 1502, 9001], 6: [1280, 1499, 1500, 1501, 1502, 9001] } as const
const ALIGN = 4

/** For all devices but those under test. */
const ROOM = 9500

interface Left {
  lengths: number[]
  fragments: number
  answered: boolean
}

/** Sends through the first host's link at one path MTU and one of the link's after the other: mtu.py. */
class Probe {
  readonly #running
  readonly #answers: AsyncIterator<string>

  constructor({ family, hosts, switch: middle }: Fabric, address: string, link: string) {
    const words = {
      ...{ family, hosts: hosts.map(({ netns }) => netns), switch: middle.netns, port: 'port1' },
      ...{ container: hosts[0]!.container.netns, link, address },
    }
    this.#running = middle.start(python, ['-B', program, JSON.stringify(words)])
    this.#answers = createInterface(this.#running.child.stdout!)[Symbol.asyncIterator]()
  }

  async at(path: number, mtu: number): Promise<{ fits: Left; refused: boolean; over: Left }> {
    this.#running.child.stdin!.write(`${path} ${mtu}\n`)
    const answer = await this.#answers.next()
    if (answer.done === true) throw new Error(this.#running.errors())
    return JSON.parse(answer.value) as Awaited<ReturnType<Probe['at']>>
  }

  async end(): Promise<void> {
    this.#running.child.stdin!.end()
    await this.#running.ended
  }
}

/** Has the two encrypt the network for each other under this suite. */
async function encrypt(fabric: Fabric, suite: SuiteName, open: (host: Host) => Promise<Overlay>): Promise<Overlay[]> {
  const value = new Uint8Array(suites[suite].keyBytes[0]!).fill(7)
  return Promise.all(
    fabric.hosts.map(async (host) => {
      const overlay = await open(host)
      await overlay.addNetworks([VNI])
      await overlay.setKeys([{ tag: 1, value }])
      await overlay.addPeers(others(fabric, host))
      return overlay
    }),
  )
}

/** Puts the ESP of a host's SAs into UDP. */
async function encapsulate({ netns }: Host): Promise<void> {
  const encap = { type: 'espinudp', sourcePort: 4500, destinationPort: 4500 } as const
  const xfrm = await Xfrm.open({ netns })
  try {
    const batch = new XfrmBatch()
    for await (const { source, destination, spi, reqid, aead } of xfrm.states()) {
      const id = { source, destination, spi, protocol: 'esp' } as const
      batch.deleteState(id)
      batch.addState({ ...id, reqid, aead: { ...aead!, key: aead!.key! }, encap })
    }
    expect(await xfrm.commit(batch)).toMatchObject({ applied: 4, failures: [] })
  } finally {
    await xfrm.close()
  }
}

const PATH = 1500

/** What came of a megabyte that TCP sent through the link, in packets. */
interface Burst {
  /** That were larger than the path takes when they came to be encrypted: many segments, handed over as one. */
  large: number
  /** That left the host as ESP. */
  encrypted: number
  /** Of them those that the path does not take, and fragments. */
  unfit: number
}

async function burst({ hosts, switch: middle }: Fabric, address: string): Promise<Burst> {
  const [here, there] = hosts as [Host, Host]
  await here.run('nft', ['-f', '-'], {
    input: `table inet burst { counter large { }
      chain output { type filter hook output priority raw; udp dport 4789 meta length > ${PATH} counter name large; }
    }`,
  })
  await middle.run('nft', ['-f', '-'], {
    input: `table netdev burst { counter encrypted { }; counter unfit { }
      chain sent { type filter hook ingress device port1 priority 0
        meta l4proto esp counter name encrypted
        meta length > ${PATH} counter name unfit
        ip frag-off & 0x3fff != 0 counter name unfit
        exthdr frag exists counter name unfit
      }
    }`,
  })
  const server = there.container.start('iperf3', ['--server', '--one-off'])
  while ((await there.container.run('ss', ['-Hltn', 'sport = :5201'])) === '') await sleep(20)
  await here.container.run('iperf3', ['--client', address, '--bytes', '1M'])
  await server.ended
  const lists = await Promise.all([here, middle].map((where) => where.run('nft', ['-j', 'list', 'counters'])))
  const counters = lists.flatMap((list) => {
    const { nftables } = JSON.parse(list) as { nftables: { counter?: { name: string; packets: number } }[] }
    return nftables.flatMap(({ counter }) => (counter ? [[counter.name, counter.packets] as const] : []))
  })
  const { large, encrypted, unfit } = Object.fromEntries(counters)
  return { large: large!, encrypted: encrypted!, unfit: unfit! }
}

test.each([4, 6] as const)('over IPv%i, under each suite, bare and in UDP', (family) =>
  withFabric({ hosts: 2, family }, async (fabric, open) => {
    const [here, there] = fabric.hosts as [Host, Host]
    await linkAll(fabric, [VNI])
    // Where a link's MTU comes to reach IPv6's least, the kernel announces itself there.
    await here.container.run('sysctl', ['-qw', 'net.ipv6.conf.all.disable_ipv6=1'])
    const link = `vx${VNI}`
    const roomy = (device: string, mtu = ROOM) => ['link', 'set', device, 'mtu', String(mtu)]
    await fabric.switch.ip(['port1', 'port2', 'bridge'].map((device) => roomy(device)))
    await there.ip([roomy(there.device)])
    await there.container.ip([roomy(link, ROOM - 200)])

    // What segmentation offload has put together is cut up before it is encrypted (moby issue 33133).
    const overlays = await encrypt(fabric, 'aes-gcm-64', (host) => open(host))
    const { large, encrypted: cut, unfit } = await burst(fabric, inner(fabric, there))
    expect(large).toBeGreaterThan(0)
    expect(cut).toBeGreaterThan(large)
    expect(unfit).toBe(0)
    await Promise.all(overlays.map((overlay) => overlay.close({ flush: true })))

    const probe = new Probe(fabric, inner(fabric, there), link)
    for (const suite of Object.keys(suites) as SuiteName[]) {
      const overlays = await encrypt(fabric, suite, (host) => open(host, { suite }))
      for (const nat of [false, true]) {
        if (nat) await Promise.all(fabric.hosts.map(encapsulate))
        for (const path of paths[family]) {
          const mtu = overlayMtu({ mtu: path, family, suite, nat })
          const { fits, refused, over } = await probe.at(path, mtu)
          const about = `${suite}${nat ? ' in UDP' : ''}, a path of ${path}, a link of ${mtu}`
          expect(fits, about).toEqual({ lengths: [expect.any(Number)], fragments: 0, answered: true })
          expect(fits.lengths[0], about).toBeLessThanOrEqual(path)
          expect(fits.lengths[0], about).toBeGreaterThan(path - ALIGN)
          expect(refused, about).toBe(true)
          // What does not fit is cut into fragments over IPv4, and lost over IPv6.
          const lengths = family === 4 ? [expect.any(Number), expect.any(Number)] : []
          expect(over, about).toEqual({ lengths, fragments: lengths.length, answered: family === 4 })
        }
      }
      await Promise.all(overlays.map((overlay) => overlay.close({ flush: true })))
    }
    await probe.end()
  }),
)
