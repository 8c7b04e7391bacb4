// Seeds for the fuzz targets out of test/data's captures: a file a message, as the decoders read them; and a file of each
// message's attributes after a head of zeros, which comes near to a record.
// usage: node native/test/seeds.js DIRECTORY
import { Buffer } from 'node:buffer'
import { createHash } from 'node:crypto'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'

const to = process.argv[2]
const NETLINK_HEADER = 16

/** Of a record, and of what stands in messages before their attributes, by message type (linux/xfrm.h, nfnetlink.h, neighbour.h). */
const families = {
  xfrm: { head: 72, fixed: (type) => ({ 0x10: 224, 0x13: 168, 0x19: 168, 0x1a: 224 })[type] },
  nft: { head: 24, fixed: () => 4 },
  route: { head: 56, fixed: () => 12 },
}

function save(kind, bytes) {
  mkdirSync(`${to}/${kind}`, { recursive: true })
  writeFileSync(`${to}/${kind}/${createHash('sha1').update(bytes).digest('hex')}`, bytes)
}

for (const [family, { head, fixed }] of Object.entries(families)) {
  for (const { sent = [], received = [] } of JSON.parse(readFileSync(`test/data/${family}.json`, 'utf8'))) {
    for (const hex of [...sent, ...received]) save(`${family}_decode`, Buffer.from(hex, 'hex'))
    for (const hex of sent) {
      const message = Buffer.from(hex, 'hex')
      const skip = fixed(message.readUInt16LE(4))
      if (skip === undefined) continue
      save(`${family}_encode`, Buffer.concat([Buffer.alloc(head), message.subarray(NETLINK_HEADER + skip)]))
    }
  }
}

// Attachments: how many, how many addresses each has, and their texts (masquerade_attachments_fuzz.cc).
save(
  'masquerade_encode',
  Buffer.from(
    '\x02\x02\x01net\0eth0\0one\0' + '192.168.1.2/24\0' + '2001:db8::2/64\0net\0eth0\0two\0::ffff:10.0.0.1/8\0',
    'latin1',
  ),
)
