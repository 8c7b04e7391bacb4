/**
 * Attacks on the guard that need no SA: nothing of an encrypted network gets past it in any shape, and what is not its
 * business does. Each packet is also seen to get through where there is no guard.
 */
import { afterAll, describe, expect, test } from 'vitest'
import { feedNetns, inNetns, withLink } from '../netns.js'
import { type Path, type Stop, withPath } from '../path.js'
import { countsFragments, guarding, isContradictory, isCut, isIllegal, isTiny } from '../attacks.js'
import { Probe } from '../probe.js'

/** Of another service, whose datagrams look like VXLAN of an encrypted network. */
const OTHER_PORT = 6081
const ENCRYPTED = 4096
const PLAIN = 5000
const SPOOFED = { 4: '192.0.2.77', 6: '2001:db8::77' }

const probe = new Probe()
afterAll(() => probe.close())

/** Rules of an administrator who lets everything in, out and through, wherever they can stand; they track connections. */
const ACCEPTING = `table inet admin {
  ${['prerouting', 'input', 'forward', 'output', 'postrouting']
    .flatMap((hook) =>
      [-400, -300, -151, 0, 301].map(
        (priority) => `chain ${hook}${priority + 400} {
          type filter hook ${hook} priority ${priority}; policy accept;
          ct state invalid,new,established,related,untracked accept
          accept
        }`,
      ),
    )
    .join('\n')}
}
`

/** Datagrams of more than one fragment cross the path, there and back, of a protocol that is not UDP too. */
async function pingInFragments({ near, far }: Path, family: 4 | 6): Promise<void> {
  await inNetns(near.netns, 'ping', '-c', '1', '-W', '5', '-s', '4000', far.address[family])
}

describe.each([
  [4, 4789],
  [6, 8472],
] as const)('every shape of IPv%i, port %i', (family, port) => {
  const ends = ({ near, far }: Path) => ({
    source: near.address[family],
    spoofed: SPOOFED[family],
    to: far.address[family],
  })

  /** What of three volleys, of an encrypted network, a plain one, and another service, arrives at the far end. */
  async function volleys(path: Path) {
    const networks = [
      [port, ENCRYPTED],
      [port, PLAIN],
      [OTHER_PORT, ENCRYPTED],
    ] as const
    const heard = await probe.heardDuring(path.far.netns, [port, OTHER_PORT], () =>
      probe.fire(path.near.netns, ends(path), networks),
    )
    const [encrypted, plain, other] = networks.map((network) => Object.keys(heard[network.join(' ')] ?? {}).sort())
    return { encrypted, plain, other }
  }

  /** What of an encrypted network can be read on the last wire. */
  async function readable(path: Path): Promise<string[]> {
    const fire = () => probe.fire(path.near.netns, ends(path), [[port, ENCRYPTED]])
    return Object.keys((await probe.sniffedDuring(path.far.netns, 'eth0', fire))[ENCRYPTED] ?? {})
  }

  test('is dropped on the way in, through and out; nothing else is, but what is illegal or too short to tell', () =>
    withPath(async (path) => {
      const all = (await probe.names(path.near.netns, ends(path))).sort()
      const possible = all.filter((name) => !isContradictory(name))
      const legal = possible.filter((name) => !isIllegal(name))
      const whole = legal.filter((name) => !isTiny(name))
      expect(await volleys(path)).toEqual({ encrypted: possible, plain: possible, other: possible })

      for (const [where, { netns }] of Object.entries(path) as [keyof Path, Stop][]) {
        await guarding({ netns, port, networks: [ENCRYPTED] }, async (firewall) => {
          // IPv4 is put together before it is received.
          const plain = where === 'far' && family === 4 ? legal : whole
          expect({ where, ...(await volleys(path)) }).toEqual({ where, encrypted: [], plain, other: legal })
          await pingInFragments(path, family)
          const { drops } = await firewall.read()
          expect(drops).toMatchObject({ diverted: 0, forged: 0 })
          expect(drops[where === 'far' ? 'in' : where === 'near' ? 'out' : 'forwarded']).toBeGreaterThan(all.length / 2)
          if (family === 6 && countsFragments()) expect(drops.fragments).toBeGreaterThan(0)

          // Of what others have cut, later fragments pass through and out, where nobody can put them together.
          expect(where === 'far' ? [] : (await readable(path)).filter((name) => !isCut(name))).toEqual([])
          // With connections tracked all is put together before the guard sees it.
          await feedNetns(netns, ACCEPTING, 'nft', '-f', '-')
          expect({ where, ...(await volleys(path)) }).toMatchObject({ where, encrypted: [] })
          if (where !== 'far') expect(await readable(path)).toEqual([])
          await inNetns(netns, 'nft', 'delete', 'table', 'inet', 'admin')
        })
      }
    }))
})

test('what a NAT rule turns to the VXLAN port is VXLAN', () =>
  withLink(async (one, other) => {
    const port = 4789
    const turn = `table inet admin {
      chain prerouting { type nat hook prerouting priority -199; udp dport ${OTHER_PORT} redirect to :${port}; }
    }`
    await feedNetns(other, turn, 'nft', '-f', '-')
    const send = () =>
      probe.heardDuring(other, [port], () =>
        probe.send(one, { to: ['192.0.2.2', '2001:db8::2'], port: OTHER_PORT, vnis: [ENCRYPTED] }),
      )
    expect(await send()).toEqual({ [`${port} ${ENCRYPTED}`]: { sent: 2 } })
    await guarding({ netns: other, port, networks: [ENCRYPTED] }, async () => expect(await send()).toEqual({}))
  }))

describe('datagrams that the kernel carries as one, the first of a plain network', () => {
  const port = 4789
  const sending = { to: ['192.0.2.2', '2001:db8::2'], port, vnis: [PLAIN, ENCRYPTED, ENCRYPTED] }
  const send = (from: string, to: string) => probe.heardDuring(to, [port], () => probe.train(from, sending))
  const all = { [`${port} ${PLAIN}`]: { train: 2 }, [`${port} ${ENCRYPTED}`]: { train: 4 } }

  test('are dropped where all of the port is encrypted; where it is not, a guard cannot see the others', () =>
    withLink(async (one, other) => {
      const networks = [ENCRYPTED]
      expect(await send(one, other)).toEqual(all)
      await guarding({ netns: other, port, networks }, async () => expect(await send(one, other)).toEqual(all))
      for (const [from, guarded] of [
        [one, other],
        [one, one],
        [other, other],
      ] as const) {
        const exclusively = { netns: guarded, port, networks, exclusive: true }
        await guarding(exclusively, async () => expect(await send(from, other)).toEqual({}))
      }
    }))
})
