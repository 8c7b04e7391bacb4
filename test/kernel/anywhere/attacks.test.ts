/**
 * Attacks on the guard that need no SA: nothing of an encrypted network gets past it in any shape, and what is not its
 * business does. Each packet is also seen to get through where there is no guard.
 */
import { describe, expect, test } from 'vitest'
import { Nft } from '../../../lib/kernel/nft.js'
import { Firewall, type FirewallOptions } from '../../../lib/overlay/firewall.js'
import { feedNetns, inNetns, withLink } from '../netns.js'
import { type Path, type Stop, withPath } from '../path.js'
import { heardDuring, isContradictory, isIllegal, isTiny, shapeNames, volley } from '../volley.js'

const PORT = 4789
/** Of another service, whose datagrams look like VXLAN of an encrypted network. */
const OTHER_PORT = 6081
const ENCRYPTED = 4096
const PLAIN = 5000
const SPOOFED = { 4: '192.0.2.77', 6: '2001:db8::77' }

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

/** Runs `work` with a guard of the encrypted network in a namespace, and takes it away again. */
async function guarding<T>(
  netns: string,
  work: (firewall: Firewall) => Promise<T>,
  more?: Partial<FirewallOptions>,
): Promise<T> {
  await using nft = await Nft.open({ netns })
  const firewall = new Firewall({ nft, mark: 0x58464d, port: PORT, ...more })
  await firewall.apply({ add: [ENCRYPTED] })
  try {
    return await work(firewall)
  } finally {
    await firewall.remove()
  }
}

/** What of three volleys, of an encrypted network, a plain one, and another service, arrives at the far end. */
async function volleys({ near, far }: Path, family: 4 | 6) {
  const networks = [`${PORT}/${ENCRYPTED}`, `${PORT}/${PLAIN}`, `${OTHER_PORT}/${ENCRYPTED}`].join(',')
  const heard = await heardDuring(far.netns, [PORT, OTHER_PORT], () =>
    volley(near.netns, 'fire', near.address[family], SPOOFED[family], far.address[family], networks),
  )
  const names = (port: number, vni: number) => Object.keys(heard[`${port} ${vni}`] ?? {}).sort()
  return { encrypted: names(PORT, ENCRYPTED), plain: names(PORT, PLAIN), other: names(OTHER_PORT, ENCRYPTED) }
}

/** Datagrams of more than one fragment cross the path, there and back, of a protocol that is not UDP too. */
async function pingInFragments({ near, far }: Path, family: 4 | 6): Promise<void> {
  await inNetns(near.netns, 'ping', '-c', '1', '-W', '5', '-s', '4000', far.address[family])
}

describe.each([4, 6] as const)('every shape of IPv%i', (family) => {
  test('is dropped on the way in, through and out; nothing else is, but what is illegal or too short to tell', () =>
    withPath(async (path) => {
      const all = (await shapeNames(path.near.netns, family)).sort()
      const possible = all.filter((name) => !isContradictory(name))
      const legal = possible.filter((name) => !isIllegal(name))
      const whole = legal.filter((name) => !isTiny(name))
      expect(await volleys(path, family)).toEqual({ encrypted: possible, plain: possible, other: possible })

      for (const [where, { netns }] of Object.entries(path) as [keyof Path, Stop][]) {
        await guarding(netns, async (firewall) => {
          // IPv4 is put together before it is received.
          const plain = where === 'far' && family === 4 ? legal : whole
          expect({ where, ...(await volleys(path, family)) }).toEqual({ where, encrypted: [], plain, other: legal })
          await pingInFragments(path, family)
          const { drops } = await firewall.read()
          expect(drops).toMatchObject({ diverted: 0, forged: 0 })
          expect(drops[where === 'far' ? 'in' : where === 'near' ? 'out' : 'forwarded']).toBeGreaterThan(all.length / 2)
          if (family === 6) expect(drops.fragments).toBeGreaterThan(0)

          // With connections tracked all is put together before the guard sees it.
          await feedNetns(netns, ACCEPTING, 'nft', '-f', '-')
          expect({ where, ...(await volleys(path, family)) }).toMatchObject({ where, encrypted: [] })
          await inNetns(netns, 'nft', 'delete', 'table', 'inet', 'admin')
        })
      }
    }))
})

test('what a NAT rule turns to the VXLAN port is VXLAN', () =>
  withLink(async (one, other) => {
    const turn = `table inet admin {
      chain prerouting { type nat hook prerouting priority -199; udp dport ${OTHER_PORT} redirect to :${PORT}; }
    }`
    await feedNetns(other, turn, 'nft', '-f', '-')
    const send = () => heardDuring(other, [PORT], () => volley(one, 'train', '192.0.2.2', OTHER_PORT, ENCRYPTED))
    expect(await send()).toEqual({ [`${PORT} ${ENCRYPTED}`]: { train: 1 } })
    await guarding(other, async () => expect(await send()).toEqual({}))
  }))

describe('datagrams that the kernel carries as one, the first of a plain network', () => {
  const ends = '192.0.2.2,2001:db8::2'
  const send = (from: string, to: string) =>
    heardDuring(to, [PORT], () => volley(from, 'train', ends, PORT, `${PLAIN},${ENCRYPTED},${ENCRYPTED}`))
  const all = { [`${PORT} ${PLAIN}`]: { train: 2 }, [`${PORT} ${ENCRYPTED}`]: { train: 4 } }

  test('are dropped where all of the port is encrypted; where it is not, a guard cannot see the others', () =>
    withLink(async (one, other) => {
      expect(await send(one, other)).toEqual(all)
      await guarding(other, async () => expect(await send(one, other)).toEqual(all))
      for (const [from, guarded] of [
        [one, other],
        [one, one],
        [other, other],
      ] as const) {
        await guarding(guarded, async () => expect(await send(from, other)).toEqual({}), { exclusive: true })
      }
    }))
})
