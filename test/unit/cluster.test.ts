import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadCluster, parseCluster } from '../../lib/cli/cluster.js'
import { FileError } from '../../lib/cli/document.js'
import { loadKeyFile, parseKeyFile } from '../../lib/cli/keyfile.js'

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'xfrmesh-test-'))
})
afterAll(() => rm(directory, { recursive: true }))

const whole = `\
port: 4790
suite: chacha20-poly1305
keys: secret/keys.yaml
networks:
  - { vni: 4096 }
  - { vni: 0 }
nodes:
  - { name: a, address: '2001:DB8:0::1' }
  - { name: b, address: '2001:db8::2', advertise: '2001:db8::3' }
`

const least = 'keys: k\nnetworks: []\nnodes: [{ name: a, address: 192.0.2.1 }]\n'

/** The message a thrower throws. */
function said(work: () => unknown): string {
  try {
    work()
  } catch (error) {
    if (error instanceof FileError) return error.message
    throw error
  }
  throw new Error('nothing was refused')
}

describe('a cluster file', () => {
  it('is read with its addresses canonical and its key file beside it', () => {
    expect(parseCluster('/etc/mesh/cluster.yaml', whole)).toEqual({
      port: 4790,
      suite: 'chacha20-poly1305',
      keys: '/etc/mesh/secret/keys.yaml',
      networks: [{ vni: 4096 }, { vni: 0 }],
      nodes: [
        { name: 'a', address: '2001:db8::1' },
        { name: 'b', address: '2001:db8::2', advertise: '2001:db8::3' },
      ],
    })
  })

  it('may be JSON, and leave out port and suite', () => {
    const json = JSON.stringify({ keys: '/k', networks: [], nodes: [{ name: 'a', address: '192.0.2.1' }] })
    expect(parseCluster('c.json', json)).toMatchObject({ port: 4789, suite: 'aes-gcm-64', keys: '/k' })
  })

  it.each([
    ['port: 0', 'line 1, column 7: port must be an integer from 1 to 65535'],
    ["port: '4789'", 'line 1, column 7: port must be an integer from 1 to 65535'],
    ['suite: aes', 'line 1, column 8: suite must be one of aes-gcm-64, aes-gcm-96, aes-gcm-128, chacha20-poly1305'],
    ['prot: 4789', "line 1, column 7: prot is unknown: did you mean 'port'?"],
    ['colour: red', 'line 1, column 9: colour is unknown: there are port, suite, keys, networks, nodes'],
    ['port: 1\nport: 2', 'line 2, column 1: not YAML: duplicate key'],
    ['port: [', 'not YAML: '],
    ['port: !!secret 1', 'line 1, column 7: not YAML: tag resolve failed'],
    ['port: &a 1\nsuite: *a', 'line 2, column 8: an alias: write it out'],
  ])('is refused for %j, by line and field', (line, expected) => {
    expect(said(() => parseCluster('c.yaml', `${line}\n${least}`))).toContain(expected)
  })

  it.each([
    ['vni: 4096', 'vni: 16777216', 'networks[0].vni must be an integer from 0 to 16777215'],
    ['vni: 4096', 'vin: 4096', "networks[0].vin is unknown: did you mean 'vni'?"],
    ['vni: 0', 'vni: 4096', 'networks[1].vni must be its own: networks.0.vni has the same'],
    ['name: b', 'name: a', 'nodes[1].name must be its own: nodes.0.name has the same'],
    ['name: b', "name: ''", "nodes[1].name must be the node's name"],
    ['name: b', 'nmae: b', "nodes[1].nmae is unknown: did you mean 'name'?"],
    ["'2001:db8::2'", "'2001:db8::1'", 'nodes[1].address must be its own: nodes.0.address has the same'],
    ["'2001:db8::3'", "'2001:db8::1'", 'nodes[1].advertise must be its own: nodes.0.address has the same'],
    ["'2001:db8::2'", '192.0.2.1', 'nodes[1].address must be an IPv6 address, as that of nodes[0] is'],
    ["'2001:db8::2'", "'ff02::1'", 'nodes[1].address must be the address of a host; ff02::1 is multicast'],
    ["'2001:db8::2'", "'fe80::1%eth0'", 'nodes[1].address must be an address without a zone'],
    ["address: '2001:db8::2',", '', 'nodes[1].address must be an address'],
    ['keys: secret/keys.yaml', '', 'keys must be a key file'],
  ])('is refused with %s for %s', (right, wrong, expected) => {
    expect(said(() => parseCluster('c.yaml', whole.replace(right, wrong)))).toContain(expected)
  })

  it('is refused, and not shown, if it has a key where the key file should be named', () => {
    const key = '00112233445566778899aabbccddeeff'
    const message = said(() => parseCluster('c.yaml', whole.replace('secret/keys.yaml', key)))
    expect(message).toContain("keys must be a key file's path")
    expect(message).not.toContain(key)
  })

  it('is refused if it is empty or another thing', () => {
    expect(said(() => parseCluster('c.yaml', ''))).toBe(
      'c.yaml: line 1, column 1: the file must be an object { port, suite, keys, networks, nodes }',
    )
    expect(said(() => parseCluster('c.yaml', '- 1'))).toContain('the file must be an object')
  })

  it('that is not there, or is a directory, is said to be so', async () => {
    await expect(loadCluster(join(directory, 'none.yaml'))).rejects.toThrow('none.yaml: there is no such file')
    await expect(loadCluster(directory)).rejects.toThrow('a directory, not a file')
  })
})

const key = '0123456789abcdef0123456789abcdef'
const keys = `- tag: 1\n  value: ${key}\n- { tag: 0x2, value: "00000000000000000000000000000000" }\n`

describe('a key file', () => {
  it('is a list, keys of nothing but digits included', () => {
    const bytes = Uint8Array.from(Buffer.from(key, 'hex'))
    expect(parseKeyFile('k', keys, 'aes-gcm-64')).toEqual([
      { tag: 1, value: bytes },
      { tag: 2, value: new Uint8Array(16) },
    ])
    const digits = '12345678901234567890123456789012'
    const [read] = parseKeyFile('k', `[{ tag: 4294967295, value: ${digits} }]`, 'aes-gcm-64')
    expect(read).toEqual({ tag: 0xffffffff, value: Uint8Array.from(Buffer.from(digits, 'hex')) })
  })

  it.each([
    ['tag: 1', 'tag: one', 'line 1, column 8: [0].tag must be an integer from 0 to 4294967295'],
    ['tag: 1', 'tag: 4294967296', '[0].tag must be an integer from 0 to 4294967295'],
    ['tag: 1', 'tag: 2', 'line 3, column 10: [1].tag must be its own: [0].tag is the same'],
    ['tag: 1\n', 'tag: 1\n  name: x\n', '[0] has a field that is neither tag nor value'],
    [key, key.slice(1), 'line 2, column 10: [0].value must be 32 or 48 or 64 hex digits, for aes-gcm-64'],
    [`value: ${key}`, 'valeu: x', '[0] has a field that is neither tag nor value'],
  ])('is refused with %j for %j', (right, wrong, expected) => {
    expect(said(() => parseKeyFile('k', keys.replace(right, wrong), 'aes-gcm-64'))).toContain(expected)
  })

  it('is refused with no keys, with too many, and with those of another suite', () => {
    expect(said(() => parseKeyFile('k', '[]', 'aes-gcm-64'))).toContain('the file must be a list of { tag, value }')
    const many = Array.from({ length: 17 }, (_, tag) => ({ tag, value: key }))
    expect(said(() => parseKeyFile('k', JSON.stringify(many), 'aes-gcm-64'))).toContain('at most 16 keys, not 17')
    expect(said(() => parseKeyFile('k', keys, 'chacha20-poly1305'))).toContain('64 hex digits, for chacha20-poly1305')
  })

  it.each([0o640, 0o604, 0o620, 0o601])('with mode %o is refused, and one with 600 read', async (mode) => {
    const file = join(directory, 'keys.yaml')
    await writeFile(file, keys)
    await chmod(file, mode)
    await expect(loadKeyFile(file, 'aes-gcm-64')).rejects.toThrow(
      `others than its owner have access to these keys (mode ${mode.toString(8)}): chmod 600`,
    )
    await chmod(file, 0o600)
    await expect(loadKeyFile(file, 'aes-gcm-64')).resolves.toHaveLength(2)
  })

  it('that is a directory, or is not there, is said to be so', async () => {
    await expect(loadKeyFile(directory, 'aes-gcm-64')).rejects.toThrow('not a regular file')
    await expect(loadKeyFile(join(directory, 'none'), 'aes-gcm-64')).rejects.toThrow('there is no such file')
  })

  it('never shows what is in it, however broken it is', () => {
    const secret = 'c0ffee00c0ffee11c0ffee22c0ffee33'
    const around = fc.constantFrom(
      '',
      '- ',
      '- tag: 1\n  value: ',
      '{',
      '"',
      '*',
      '&',
      '!',
      '!!',
      '? ',
      '|\n ',
      '%',
      '@',
      '\t',
      ': ',
      '[',
      '- {',
      'x: ',
    )
    fc.assert(
      fc.property(around, around, around, fc.boolean(), (before, between, after, whole) => {
        const value = whole ? secret : secret.slice(1)
        const text = `${before}${value}${between}\n${after}${value}\n- tag: ${value}\n  ${value}: ${value}`
        try {
          parseKeyFile('k', text, 'aes-gcm-64')
        } catch (error) {
          const shown = `${inspect(error, { depth: 10, showHidden: true })} ${JSON.stringify(error)}`
          expect(error).toBeInstanceOf(FileError)
          expect(shown.toLowerCase()).not.toContain(secret.slice(4, 12))
        }
      }),
      { numRuns: 500 },
    )
  })
})
