import { describe, expect, test } from 'vitest'
import { AF_INET6 } from '../../lib/base/address.js'
import { InvalidArgument, XfrmeshError } from '../../lib/base/errors.js'
import type { AttributeWriter } from '../../lib/kernel/netlink-attributes.js'
import { linkNamed, newLink, readLinks } from '../../lib/kernel/link.js'
import { readNamespaceIds } from '../../lib/kernel/namespace-id.js'
import { readVxlan, VXLAN, writeVxlan, type VxlanSettings } from '../../lib/kernel/vxlan.js'
import { createVxlan, deleteVxlan, listVxlan, type VxlanOptions } from '../../lib/vxlan/index.js'

const link = { name: 'vx', vni: 1 }
const name = /^options\.name must be a link's name: 1 to 15 bytes/
const mac = /^options\.mac must be/

describe('createVxlan refuses', () => {
  test.each<[options: unknown, message: RegExp]>([
    [undefined, /^options must be an object/],
    ['vx', /^options must be an object/],
    [{ ...link, vin: 1 }, /^options\.vin must be left out: .*did you mean 'vni'/],
    [{ vni: 1 }, name],
    [{ ...link, name: '' }, name],
    [{ ...link, name: 'sixteen-letters-' }, name],
    [{ ...link, name: 'bytes-are-cöüñ!' }, name],
    [{ ...link, name: 'à' }, name],
    [{ ...link, name: '.' }, name],
    ...[' ', '\t', '\n', '\0', '/', ':', '%'].map((letter): [unknown, RegExp] => [
      { ...link, name: `a${letter}b` },
      name,
    ]),
    [{ ...link, name: '..' }, name],
    [{ ...link, name: '\ud800' }, name],
    [{ ...link, name: 7 }, name],
    [{ name: 'vx' }, /^options\.vni must be an integer from 0 to 16777215/],
    [{ ...link, vni: -1 }, /^options\.vni must be/],
    [{ ...link, vni: 2 ** 24 }, /^options\.vni must be/],
    [{ ...link, vni: 1.5 }, /^options\.vni must be/],
    [{ ...link, vni: '1' }, /^options\.vni must be/],
    [{ ...link, port: 0 }, /^options\.port must be an integer from 1 to 65535/],
    [{ ...link, port: 65536 }, /^options\.port must be/],
    [{ ...link, mtu: 67 }, /^options\.mtu must be an integer from 68 to 65535/],
    [{ ...link, mtu: 65536 }, /^options\.mtu must be/],
    [{ ...link, ttl: 256 }, /^options\.ttl must be an integer from 0 to 255/],
    [{ ...link, tos: -1 }, /^options\.tos must be/],
    [{ ...link, family: 10 }, /^options\.family must be 4 or 6/],
    [{ ...link, local: '192.0.2.300' }, /^options\.local must be an IPv4 or IPv6 address/],
    [{ ...link, local: '239.1.1.1' }, /^options\.local must be the address of a host; 239\.1\.1\.1 is multicast/],
    [{ ...link, local: '0.0.0.0' }, /^options\.local must be the address of a host/],
    [{ ...link, local: 'fe80::1%eth0' }, /^options\.local must be an address without a zone/],
    [{ ...link, remote: '239.1.1.1' }, /^options\.remote must be the address of a host; 239\.1\.1\.1 is multicast/],
    [{ ...link, group: '192.0.2.1', device: 'eth0' }, /^options\.group must be a multicast address/],
    [{ ...link, group: '239.1.1.1' }, /^options\.device must be given with a group/],
    [
      { ...link, group: '239.1.1.1', remote: '192.0.2.1', device: 'eth0' },
      /^options\.group must be left out with a remote/,
    ],
    [{ ...link, local: '192.0.2.1', remote: '2001:db8::1' }, /^options\.remote must be an IPv4 address: .* one family/],
    [{ ...link, local: '2001:db8::1', group: '239.1.1.1', device: 'eth0' }, /^options\.group must be an IPv6 address/],
    [{ ...link, family: 6, local: '::ffff:192.0.2.1' }, /^options\.local must be an IPv6 address/],
    [{ ...link, device: 'a/b' }, /^options\.device must be a link's name/],
    [{ ...link, bridge: '' }, /^options\.bridge must be a link's name/],
    [{ ...link, mac: '02:00:00:00:00' }, mac],
    [{ ...link, mac: '02-00-00-00-00-01' }, mac],
    [{ ...link, mac: '02:00:00:00:00:0g' }, mac],
    [{ ...link, mac: '01:00:5e:00:00:01' }, /^options\.mac must be the Ethernet address of one host/],
    [{ ...link, mac: 'ff:ff:ff:ff:ff:ff' }, /^options\.mac must be the Ethernet address of one host/],
    [{ ...link, mac: '00:00:00:00:00:00' }, /^options\.mac must be the Ethernet address of one host/],
    ...(['learning', 'proxy', 'l2miss', 'l3miss', 'udpChecksum', 'up', 'replace'] as const).map(
      (option): [unknown, RegExp] => [
        { ...link, [option]: 1 },
        new RegExp(`^options\\.${option} must be true or false`),
      ],
    ),
    [{ ...link, netns: '' }, /^options\.netns must be a network namespace's path/],
    [{ ...link, moveTo: -1 }, /^options\.moveTo must be a network namespace's path/],
    [[link, { ...link, vni: -1 }], /^options\[1\]\.vni must be/],
    [[link, undefined], /^options\[1\] must be an object/],
  ])('%o', async (options, message) => {
    const refused = createVxlan(options as VxlanOptions)
    await expect(refused).rejects.toThrow(InvalidArgument)
    await expect(refused).rejects.toThrow(message)
  })
})

test.each<[options: unknown, message: RegExp]>([
  [{}, /^options\.vni must be an integer/],
  [{ name: 'vx', vni: 1 }, /^options\.vni must be left out with a name/],
  [{ name: 'vx', port: 1 }, /^options\.port must be left out with a name/],
  [{ vni: 1, port: 0 }, /^options\.port must be/],
  [{ name: 'a b' }, name],
  [{ name: 'vx', moveTo: '/run/netns/a' }, /^options\.moveTo must be left out/],
  [[{ name: 'vx' }, { vni: -1 }], /^options\[1\]\.vni must be/],
])('deleteVxlan refuses %o', async (options, message) => {
  await expect(deleteVxlan(options as { name: string })).rejects.toThrow(message)
})

test('listVxlan refuses what is no namespace', async () => {
  await expect(listVxlan({ netns: {} as string })).rejects.toThrow(/^options\.netns must be/)
  await expect(listVxlan({ vni: 1 } as object)).rejects.toThrow(/^options\.vni must be left out/)
})

describe('messages', () => {
  /** A message as the kernel would answer: header, then a payload. */
  function message(type: number, payload: Uint8Array): Uint8Array {
    const header = Buffer.alloc(16)
    header.writeUInt32LE(16 + payload.length)
    header.writeUInt16LE(type, 4)
    return Buffer.concat([header, payload])
  }

  const settings: VxlanSettings = {
    ...{ vni: 0x123456, port: 4790, family: AF_INET6, local: undefined, destination: undefined, deviceIndex: 7 },
    ...{ ttl: 3, tos: 4, learning: false, proxy: true, l2miss: undefined, l3miss: undefined, udpChecksum: false },
  }
  const payload = newLink({
    ...{ name: 'vx', kind: VXLAN, up: true, mtu: 1400, mac: Uint8Array.of(2, 0, 0, 0, 0, 1), master: 9 },
    data: (writer) => writeVxlan(writer, settings),
    namespace: 5,
  })

  test('of a link are read as they were written', () => {
    const [link, ...others] = readLinks(Buffer.concat([message(16, payload), message(3, linkNamed({ index: 1 }))]))
    expect(others).toEqual([])
    const { data, ...general } = link!
    expect(general).toEqual({
      ...{ index: 0, name: 'vx', up: true, mtu: 1400, mac: '02:00:00:00:00:01', master: 9, kind: 'vxlan' },
      linkNamespace: undefined,
    })
    expect(readVxlan(data!)).toMatchObject({
      ...{ vni: 0x123456, port: 4790, family: 6, remote: '::', deviceIndex: 7, ttl: 3, tos: 4, learning: false },
      ...{ proxy: true, udpChecksum: false, udpZeroChecksum6Tx: true, udpZeroChecksum6Rx: true, l2miss: false },
    })
  })

  test('of what only newer kernels know say nothing, or what they have', () => {
    const read = (...attributes: [type: number, payload: number[]][]) => {
      const data = (writer: AttributeWriter) => {
        writeVxlan(writer, settings)
        for (const [type, bytes] of attributes) writer.bytes(type, Uint8Array.from(bytes))
      }
      const link = newLink({
        ...{ name: 'vx', kind: VXLAN, up: true, mtu: 1400, mac: undefined, master: undefined, namespace: undefined },
        data,
      })
      const { localBypass, flowLabelPolicy, reservedBits, multicastRoute } = readVxlan(
        readLinks(message(16, link))[0]!.data!,
      )
      return { localBypass, flowLabelPolicy, reservedBits, multicastRoute }
    }
    const silent = {
      ...{ localBypass: undefined, flowLabelPolicy: undefined, reservedBits: undefined, multicastRoute: undefined },
    }
    expect(read()).toEqual(silent)
    expect(read([31, [0]])).toEqual({ ...silent, localBypass: false })
    expect(read([31, [1]])).toEqual({ ...silent, localBypass: true })
    expect(read([32, [0, 0, 0, 0]])).toEqual({ ...silent, flowLabelPolicy: 'fixed' })
    expect(read([32, [1, 0, 0, 0]])).toEqual({ ...silent, flowLabelPolicy: 'inherit' })
    const reservedBits = { flags: 0xf7ffffff, vni: 0xff }
    expect(read([33, [0xf7, 0xff, 0xff, 0xff, 0, 0, 0, 0xff]])).toEqual({ ...silent, reservedBits })
    expect(read([34, [0]])).toEqual({ ...silent, multicastRoute: false })
    expect(read([34, [1]])).toEqual({ ...silent, multicastRoute: true })
    // One that is none yet.
    expect(read([32, [2, 0, 0, 0]])).toEqual(silent)
    for (const attribute of [
      [31, [1, 0]],
      [32, [0]],
      [33, [0, 0, 0, 0]],
      [34, []],
    ] as [number, number[]][]) {
      expect(() => read(attribute)).toThrow(new RegExp(`attribute ${attribute[0]} has ${attribute[1].length} bytes`))
    }
  })

  test('that lead out of themselves are refused, whichever byte is wrong', () => {
    const whole = message(16, payload)
    let refused = 0
    for (let at = 0; at < whole.length; at++) {
      for (const value of [0, 1, 0x7f, 0xff]) {
        const bytes = Uint8Array.from(whole)
        bytes[at] = value
        try {
          for (const { data } of readLinks(bytes)) if (data !== undefined) readVxlan(data)
          readNamespaceIds(bytes)
        } catch (error) {
          expect(error).toBeInstanceOf(XfrmeshError)
          expect(error).toMatchObject({ code: 'ERR_XFRMESH_MALFORMED' })
          refused++
        }
      }
    }
    expect(refused).toBeGreaterThan(100)
  })
})
