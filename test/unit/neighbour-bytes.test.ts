import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { familyOf, keyText, parseKey } from '../../lib/base/address-key.js'
import { formatMac, parseMac } from '../../lib/base/packed-mac.js'
import { Neighbour, NeighbourOperation, NeighbourReader, NeighbourWriter } from '../../lib/kernel/neighbour-records.js'
import { RecordReader } from '../../lib/kernel/records.js'
import { native } from '../../lib/native.js'

interface Capture {
  name: string
  command: string
  sent: string[]
  received: string[]
  text: string
}

const captures = JSON.parse(readFileSync(new URL('../data/route.json', import.meta.url), 'utf8')) as Capture[]

const NDMSG_BYTES = 12
const STATE = 16 + 8
/** Set by `bridge` in every entry (linux/neighbour.h). */
const NUD_NOARP = 0x40

interface Parts {
  type: number
  flags: number
  fixed: string
  attributes: Record<number, string>
}

/** So that the order of attributes does not count. */
function parts(message: Buffer): Parts {
  const copy = Buffer.from(message)
  copy.writeUInt16LE(copy.readUInt16LE(STATE) & ~NUD_NOARP, STATE)
  const attributes: Record<number, string> = {}
  for (let at = 16 + NDMSG_BYTES; at + 4 <= copy.length;) {
    const length = copy.readUInt16LE(at)
    attributes[copy.readUInt16LE(at + 2)] = copy.subarray(at + 4, at + length).toString('hex')
    at += (length + 3) & ~3
  }
  const fixed = copy.subarray(16, 16 + NDMSG_BYTES).toString('hex')
  return { type: copy.readUInt16LE(4), flags: copy.readUInt16LE(6) & ~NLM_F_ACK, fixed, attributes }
}
const NLM_F_ACK = 4

function packed(address: string, mac: string): { addresses: Uint32Array; macs: Uint32Array } {
  const addresses = new Uint32Array(4)
  const macs = new Uint32Array(2)
  parseKey(address, new Uint8Array(addresses.buffer), 0)
  parseMac(mac, new Uint8Array(macs.buffer), 2)
  return { addresses, macs }
}

/** Links of the captures, by name. */
const LINKS: Record<string, number> = { vx0: 100, vx1: 101 }

/** The message of ours that does what a command of `ip neigh` or `bridge fdb` does. */
function ours(command: string): Buffer {
  const words = command.split(' ')
  const after = (word: string) => words[words.indexOf(word) + 1]!
  const operation = words[2] === 'del' ? NeighbourOperation.delete : NeighbourOperation.set
  const writer = new NeighbourWriter(LINKS[after('dev')]!, 1)
  const isFdb = words[0] === 'bridge'
  const { addresses, macs } = isFdb ? packed(after('dst'), words[3]!) : packed(words[3]!, after('lladdr'))
  if (isFdb) writer.fdb(operation, macs, 0, addresses, 0)
  else writer.neighbour(operation, addresses, 0, macs, 0)
  return Buffer.from(native.encodeNeighbours(writer.take()))
}

describe('what is sent is what ip and bridge send', () => {
  const plain = captures.filter(({ command }) => /^(ip neigh|bridge fdb) (replace|del) /.test(command))
  // `ip` names no MAC where it deletes a neighbour, and the kernel asks for none.
  const others = /port|via|static|dynamic|stale|extern_learn|nhid|master|neigh del/
  const same = plain.filter(({ command }) => !others.test(command))
  test.each(same)('$name', ({ command, sent }) => {
    expect(parts(ours(command))).toEqual(parts(Buffer.from(sent.at(-1)!, 'hex')))
  })
  test('and most of what was captured is compared', () => expect(same.length).toBeGreaterThan(11))
})

interface Shown {
  dst?: string
  dev?: string
  ifname?: string
  lladdr?: string
  mac?: string
  flags?: string[]
  extern_learn?: null
  state: string | string[]
  master?: string
  nhid?: number
  port?: number
  vni?: number
  viaIf?: string
}

describe('what is read of a dump is what ip and bridge print of it', () => {
  const lists = captures.filter(({ name }) => name.startsWith('list '))
  test.each(lists)('$name', ({ received, text }) => {
    const messages = Buffer.concat(received.map((hex) => Buffer.from(hex, 'hex')))
    const records = native.decodeNeighbours(messages)
    // What stands in a bridge's own FDB is not a link's, and those of other links are passed over in C++ or the kernel.
    const printed = (JSON.parse(text) as Shown[]).filter(({ master }) => master === undefined)
    const reader = new NeighbourReader(records)
    const fields = new RecordReader(records)
    const found = []
    const mac = new Uint32Array(2)
    const address = new Uint32Array(4)
    while (reader.next() && fields.next()) {
      reader.mac(mac)
      reader.destination(address)
      found.push({
        link: fields.i32(Neighbour.interfaceIndex),
        mac: formatMac(new Uint8Array(mac.buffer), 2),
        address: reader.hasNexthop ? undefined : keyText(new Uint8Array(address.buffer), 0, familyOf(address, 0)),
        permanent: reader.isPermanent,
        plain: reader.isPlain,
      })
    }
    const isFdb = printed.some(({ mac }) => mac !== undefined)
    expect(found.filter(({ link }) => link !== BRIDGE)).toEqual(
      printed
        .filter(({ ifname }) => ifname !== 'br0')
        .map((each) => ({
          link: LINKS[(each.dev ?? each.ifname)!],
          mac: each.lladdr ?? each.mac,
          address: each.dst,
          permanent: [each.state].flat().some((state) => state.toLowerCase() === 'permanent') && !isLearned(each),
          plain: !isFdb || [each.port, each.vni, each.viaIf, each.nhid].every((field) => field === undefined),
        })),
    )
    expect(found.length).toBeGreaterThan(3)
  })
  test('and there are lists of each kind', () => expect(lists.length).toBe(3))
})

const BRIDGE = 102

function isLearned({ flags, extern_learn }: Shown): boolean {
  return extern_learn === null || flags?.includes('extern_learn') === true
}
