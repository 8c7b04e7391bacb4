/** What a node has programmed is what `ip` leaves, given the same by hand. */
import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import { NodeEncryption, parseKeys, type RemoteNode } from '../../lib/node/index.js'
import { objects } from './dump.js'
import { withNetns } from './netns.js'
import { bootIdOf } from './node-cluster.js'
import { ipBatch } from './xfrm-oracle.js'

/** So many bytes that are an id's. */
const secret = (id: number, length: number) =>
  Buffer.from(Array.from({ length }, (_, i) => id * 16 + i)).toString('hex')

/** A key file's algorithms: its line, and what `ip` is told of them, given what derives from a secret. */
interface Algorithms {
  line: (id: number) => string
  words: (id: number, derived: (secret: string) => string) => string
}
const GCM: Algorithms = {
  line: (id) => `${id} rfc4106(gcm(aes)) ${secret(id, 20)} 128`,
  words: (id, derived) => `aead rfc4106(gcm(aes)) 0x${derived(secret(id, 20))} 128`,
}
const CBC: Algorithms = {
  line: (id) => `${id} hmac(sha512) ${secret(id, 64)} cbc(aes) ${secret(id, 32)}`,
  words: (id, derived) => `auth hmac(sha512) 0x${derived(secret(id, 64))} enc cbc(aes) 0x${derived(secret(id, 32))}`,
}
const BOOTS: Readonly<Record<number, string>> = { 1: bootIdOf(1), 2: bootIdOf(2), 3: bootIdOf(3) }

/** A tunnel: the number of the node at its other end, its ends, and what it is for. */
interface Ends {
  node: number
  here: string
  there: string
  reqid: 1 | 2
  any: string
  /** What the node's pods have here and there. */
  local: string[]
  remote: string[]
}

const LOCAL = { 4: ['10.1.0.0/24'], 6: ['fd00:1::/64'] }
const pods = (node: number, remote4: string[], remote6: string[]): Ends[] => [
  { node, here: '192.0.2.1', there: `192.0.2.${node}`, reqid: 1, any: '0.0.0.0', local: LOCAL[4], remote: remote4 },
  { node, here: '2001:db8::1', there: `2001:db8::${node}`, reqid: 1, any: '::', local: LOCAL[6], remote: remote6 },
]
const overlays = (node: number): Ends[] => [
  { node, here: '203.0.113.1', there: `203.0.113.${node}`, reqid: 2, any: '0.0.0.0', local: [], remote: [] },
  { node, here: '2001:db8:1::1', there: `2001:db8:1::${node}`, reqid: 2, any: '::', local: [], remote: [] },
]
const TUNNELS = [
  ...pods(2, ['10.2.0.0/24', '10.22.0.0/25'], ['fd00:2::/64']),
  ...overlays(2),
  ...pods(3, ['10.3.0.0/24'], ['fd00:3::/64', 'fd00:33::/48']),
]
const remoteNode = (number: number, marked: boolean): RemoteNode => {
  const own = TUNNELS.filter(({ node }) => node === number)
  return {
    name: `node${number}`,
    addresses: own.filter(({ reqid }) => reqid === 1).map(({ there }) => there),
    subnets: own.flatMap(({ remote }) => remote),
    overlay: own.filter(({ reqid }) => reqid === 2).map(({ there }) => there),
    bootId: BOOTS[number]!,
    ...(marked && { id: number }),
  }
}

/** An address as bytes, four or sixteen. */
function packed(text: string): number[] {
  if (!text.includes(':')) return text.split('.').map(Number)
  const [head = '', tail = ''] = text.split('::')
  const words = (part: string) => (part === '' ? [] : part.split(':').map((word) => parseInt(word, 16)))
  const [first, last] = [words(head), words(tail)]
  const all = [...first, ...Array<number>(8 - first.length - last.length).fill(0), ...last]
  return all.flatMap((word) => [word >> 8, word & 255])
}

/** Key, source, destination, and the boot ids of both, hashed: by SHA-512 if the key is longer than SHA-256's result. */
function derived(key: string, source: string, destination: string, from: number, to: number): string {
  const input = [...Buffer.from(key, 'hex'), ...packed(source), ...packed(destination)]
  const hash = createHash(key.length > 64 ? 'sha512' : 'sha256').update(Uint8Array.from(input))
  return hash.update(`${BOOTS[from]!}${BOOTS[to]!}`).digest('hex').slice(0, key.length)
}

const hex = (number: number) => `0x${(number >>> 0).toString(16)}`

/** The commands that give a node its tunnels, by the description of them. */
class Hand {
  readonly #marked: boolean
  readonly #algorithms: Algorithms

  constructor(marked: boolean, algorithms: Algorithms) {
    this.#marked = marked
    this.#algorithms = algorithms
  }

  /** Of whoever is at the other end. */
  shared(): string[] {
    if (!this.#marked) return []
    const families = [
      ['0.0.0.0/0', '0.0.0.0', '192.0.2.1'],
      ['::/0', '::', '2001:db8::1'],
    ] as const
    return families.flatMap(([all, any, here]) => [
      `xfrm policy add src ${all} dst ${all} dir out action block priority 100 mark 0xe00 mask 0xf00`,
      `xfrm policy add src ${all} dst ${all} dir in priority 1 mark 0xd00 mask 0xf00 tmpl src ${any} dst ${here} proto esp reqid 1 mode tunnel`,
      `xfrm policy add src ${all} dst ${all} dir in mark 0x200 mask 0xf00 tmpl src ${any} dst ${here} proto esp reqid 1 mode tunnel level use`,
      `xfrm policy add src ${all} dst ${all} dir fwd priority 2975 tmpl src ${any} dst ${here} proto esp reqid 1 mode tunnel level use`,
    ])
  }

  /** What decrypts under a key. */
  inbound({ node, here, there, reqid }: Ends, id: number): string {
    const output = reqid === 2 ? '0x1d00' : '0xd00'
    const marks = this.#marked
      ? `mark ${hex((node << 16) | 0xd00)} mask 0xffff0f00 output-mark ${output} mask 0xffffff00`
      : ''
    const words = this.#algorithms.words(id, (key) => derived(key, there, here, node, 1))
    return `xfrm state add ${this.#state(there, here, reqid, id)} ${marks} ${words}`
  }

  /** What encrypts under a key. */
  outbound({ node, here, there, reqid }: Ends, id: number): string {
    const marks = this.#marked
      ? `mark ${hex((node << 16) | (id << 12) | 0xe00)} mask 0xffffff00 output-mark 0xe00 mask 0xffffff00`
      : ''
    const words = this.#algorithms.words(id, (key) => derived(key, here, there, 1, node))
    return `xfrm state add ${this.#state(here, there, reqid, id)} ${marks} ${words}`
  }

  /** What leads into a tunnel. */
  out(ends: Ends, id: number, verb = 'add'): string[] {
    const { node, here, there, reqid } = ends
    const template = `tmpl src ${here} dst ${there} proto esp spi ${this.#spi(here, id)} reqid ${reqid} mode tunnel`
    const mark = this.#marked ? ` mark ${hex((node << 16) | (id << 12) | 0xe00)} mask 0xffffff00` : ''
    return this.#selections(ends).map(([ours, theirs, port]) => {
      const source = this.#marked && reqid === 1 ? `${ends.any}/0` : ours
      return `xfrm policy ${verb} src ${source} dst ${theirs}${port} dir out${mark} ${template}`
    })
  }

  /** What lets out of it. */
  in(ends: Ends): string[] {
    const { here, there, reqid } = ends
    const template = `tmpl src ${there} dst ${here} proto esp reqid ${reqid} mode tunnel`
    if (this.#marked) {
      if (reqid === 1) return []
      return [`xfrm policy add src ${there} dst ${here} dir in mark 0xd00 mask 0xf00 ${template}`]
    }
    return this.#selections(ends).flatMap(([ours, theirs, port]) => [
      `xfrm policy add src ${theirs} dst ${ours}${port} dir in ${template}`,
      ...(reqid === 1 ? [`xfrm policy add src ${theirs} dst ${ours} dir fwd ${template} level use`] : []),
    ])
  }

  /** The same commands, to take away what they made. */
  static undone(commands: readonly string[]): string[] {
    return commands.map((command) => {
      const [, what] = /^xfrm \w+ \w+ (.*?) (?:reqid|tmpl|mark|priority|action) /.exec(command)!
      const [mark = ''] = / mark \S+ mask \S+/.exec(command) ?? []
      return `${command.split(' ', 2).join(' ')} delete ${what}${mark}`
    })
  }

  #selections({ here, there, reqid, local, remote }: Ends): [ours: string, theirs: string, port: string][] {
    if (reqid === 2) return [[here, there, this.#marked ? '' : ' proto udp dport 8472']]
    return (this.#marked ? [''] : local).flatMap((ours) =>
      remote.map((theirs): [string, string, string] => [ours, theirs, '']),
    )
  }

  #state(source: string, destination: string, reqid: number, id: number): string {
    const spi = this.#spi(source, id)
    return `src ${source} dst ${destination} proto esp spi ${spi} reqid ${reqid} mode tunnel replay-window 1024 flag esn`
  }

  /** The key's id; without marks beside the lower 28 bits of the sender's address, folded. */
  #spi(sender: string, id: number): string {
    if (this.#marked) return hex(id)
    const bytes = packed(sender)
    let word = 0
    for (let i = 0; i < bytes.length; i += 4) {
      word ^= (bytes[i]! << 24) | (bytes[i + 1]! << 16) | (bytes[i + 2]! << 8) | bytes[i + 3]!
    }
    return hex((((word ^ (word >>> 28)) & 0xfffffff) << 4) | id)
  }
}

/** `ip` gives no SA an output mark of 0 with a mask: what it lists of one of decrypted packets is that, but for the mark. */
const zeroed = (state: string) => state.replace(/output-mark 0x1?d00\/0xffffff00/, 'output-mark 0x0/0xffffff00')

test.each<[marks: false | 'cilium', algorithms: string, of: Algorithms, zeroOutputMark?: boolean]>([
  [false, 'an AEAD', GCM],
  [false, 'authentication and encryption', CBC],
  ['cilium', 'an AEAD', GCM],
  ['cilium', 'authentication and encryption', CBC, true],
])('with marks %s and %s, at every step of a rotation, and when a node goes', (marks, _, algorithms, zero = false) =>
  withNetns((theirs) =>
    withNetns(async (ours) => {
      const marked = marks !== false
      const hand = new Hand(marked, algorithms)
      const keysOf = (id: number) => parseKeys(algorithms.line(id))
      const local = {
        addresses: ['192.0.2.1', '2001:db8::1'],
        subnets: [...LOCAL[4], ...LOCAL[6]],
        overlay: ['203.0.113.1', '2001:db8:1::1'],
        bootId: BOOTS[1]!,
      }
      await using node = await NodeEncryption.open({
        netns: ours,
        local,
        keys: keysOf(3),
        marks,
        ...(marked && { proxy: true, zeroOutputMark: zero }),
      })
      const same = async (commands: readonly string[], states: number, policies: number) => {
        await ipBatch(theirs, commands)
        const left = await objects(theirs, 'state')
        const expected = [zero ? left.map(zeroed) : left, await objects(theirs, 'policy')]
        expect(expected.map(({ length }) => length)).toEqual([states, policies])
        expect(await objects(ours, 'state')).toEqual(expected[0])
        expect(await objects(ours, 'policy')).toEqual(expected[1])
      }
      const each = (of: (ends: Ends) => string | string[]) => TUNNELS.flatMap(of)

      await node.upsert([remoteNode(2, marked), remoteNode(3, marked)])
      const all = [
        ...hand.shared(),
        ...each((ends) => [hand.inbound(ends, 3), hand.outbound(ends, 3), ...hand.out(ends, 3), ...hand.in(ends)]),
      ]
      await same(all, 12, marked ? 8 + 6 + 2 + 2 : 6 * 3 + 2 * 2)

      await node.prepare(keysOf(4))
      await same(
        each((ends) => hand.inbound(ends, 4)),
        18,
        marked ? 18 : 22,
      )

      await node.commit()
      const old = each((ends) => hand.outbound(ends, 3))
      const turned = each((ends) => [hand.outbound(ends, 4), ...hand.out(ends, 4, marked ? 'add' : 'update')])
      await same(marked ? turned : [...turned, ...Hand.undone(old)], marked ? 24 : 18, marked ? 26 : 22)

      await node.reclaim({ after: 0 })
      const gone = each((ends) => [
        hand.inbound(ends, 3),
        ...(marked ? [hand.outbound(ends, 3), ...hand.out(ends, 3)] : []),
      ])
      await same(Hand.undone(gone), 12, marked ? 18 : 22)

      await node.remove(['node2'])
      const away = TUNNELS.filter((ends) => ends.node === 2).flatMap((ends) => [
        ...[hand.inbound(ends, 4), hand.outbound(ends, 4)],
        ...[...hand.out(ends, 4), ...hand.in(ends)],
      ])
      await same(Hand.undone(away), 4, marked ? 8 + 3 : 9)
    }),
  ),
)
