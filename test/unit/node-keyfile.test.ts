import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { InvalidArgument } from '../../lib/base/errors.js'
import { reveal } from '../../lib/base/key.js'
import { KeyFileError, loadKeysFile, type NodeKey, parseKeys } from '../../lib/node/index.js'
import { everythingSaid, traces } from './secrets.js'

const AES = '44434241343332312423222114131211f4f3f2f1'
const HALF = '0123456789abcdef0123456789abcdef'

const hex = (key: { key: Parameters<typeof reveal>[0] } | undefined) =>
  key && Buffer.from(reveal(key.key)).toString('hex')
const plain = ({ id, address, aead, auth, encryption }: NodeKey) => [
  id,
  address,
  ...[aead, auth, encryption].flatMap((each) => (each ? [each.name, hex(each)] : [])),
  ...(aead ? [aead.icvBits] : []),
]

/**
 * What Cilium accepts: its own test data, and each way of writing that its code lets pass. What it makes of the texts here
 * and below was learnt by running its parser alone (LoadIPSecKeys, as it was in November 2026).
 */
const accepted: [what: string, text: string, keys: unknown[][], keyId: number, overhead: number, cilium: number][] = [
  ['an AEAD', `4 rfc4106(gcm(aes)) ${AES} 128\n`, [[4, undefined, 'rfc4106(gcm(aes))', AES, 128]], 4, 16, 16],
  ['no line end', `4 rfc4106(gcm(aes)) ${AES} 128`, [[4, undefined, 'rfc4106(gcm(aes))', AES, 128]], 4, 16, 16],
  ['a carriage return', `4 rfc4106(gcm(aes)) ${AES} 96\r\n`, [[4, undefined, 'rfc4106(gcm(aes))', AES, 96]], 4, 12, 12],
  [
    'an ICV that the kernel refuses',
    `4 rfc4106(gcm(aes)) ${AES} 256\n`,
    [[4, undefined, 'rfc4106(gcm(aes))', AES, 256]],
    4,
    32,
    32,
  ],
  [
    'a plus after the id',
    `3+ rfc4106(gcm(aes)) ${AES} 128\n`,
    [[3, undefined, 'rfc4106(gcm(aes))', AES, 128]],
    3,
    16,
    16,
  ],
  [
    'a sign before the id',
    `+3 rfc4106(gcm(aes)) ${AES} 128\n`,
    [[3, undefined, 'rfc4106(gcm(aes))', AES, 128]],
    3,
    16,
    16,
  ],
  [
    'zeros before numbers',
    `03 rfc4106(gcm(aes)) ${AES} 0128\n`,
    [[3, undefined, 'rfc4106(gcm(aes))', AES, 128]],
    3,
    16,
    16,
  ],
  ['0x', `3 rfc4106(gcm(aes)) 0x${AES} 128\n`, [[3, undefined, 'rfc4106(gcm(aes))', AES, 128]], 3, 16, 16],
  [
    'hex in capitals',
    `3 rfc4106(gcm(aes)) ${AES.toUpperCase()} 128\n`,
    [[3, undefined, 'rfc4106(gcm(aes))', AES, 128]],
    3,
    16,
    16,
  ],
  ['an empty key', '3 rfc4106(gcm(aes)) "" 128\n', [[3, undefined, 'rfc4106(gcm(aes))', '', 128]], 3, 16, 16],
  ['the last id', `15 rfc4106(gcm(aes)) ${AES} 128\n`, [[15, undefined, 'rfc4106(gcm(aes))', AES, 128]], 15, 16, 16],
  [
    'authentication and encryption',
    `1 hmac(sha256) ${HALF} cbc(aes) ${HALF}\n`,
    [[1, undefined, 'hmac(sha256)', HALF, 'cbc(aes)', HALF]],
    1,
    16,
    32,
  ],
  [
    'several keys, the last one current',
    `1 hmac(sha256) ${HALF} cbc(aes) ${HALF}\n2 hmac(sha256) 0x${HALF} cbc(aes) ${HALF}\n`,
    [
      [1, undefined, 'hmac(sha256)', HALF, 'cbc(aes)', HALF],
      [2, undefined, 'hmac(sha256)', HALF, 'cbc(aes)', HALF],
    ],
    2,
    16,
    32,
  ],
  [
    'no keys to speak of',
    '3 digest_null "" cipher_null 0x\n',
    [[3, undefined, 'digest_null', '', 'cipher_null', '']],
    3,
    0,
    0,
  ],
]

describe.each([{ strict: true }, { strict: false }])('$strict', (options) => {
  test.each(accepted)('takes %s', (_, text, keys, keyId, overhead, ciliumOverhead) => {
    const parsed = parseKeys(text, options)
    expect(parsed.keys.map(plain)).toEqual(keys)
    expect(parsed).toMatchObject({ keyId, overhead, ciliumOverhead })
  })

  /** What Cilium refuses, by where it is wrong. */
  test.each<[what: string, text: string, line: number, column: number, says: RegExp]>([
    ['an empty line', `4 rfc4106(gcm(aes)) ${AES} 128\n\n`, 2, 1, /empty|key id/],
    ['a lone id', '4\n', 1, 1, /1 fields/],
    ['two fields', '4 rfc4106(gcm(aes))\n', 1, 1, /2 fields/],
    ['three fields', `4 rfc4106(gcm(aes)) ${AES}\n`, 1, 1, /3 fields/],
    ['seven fields', `4 hmac(sha256) ${HALF} cbc(aes) ${HALF} 10.0.0.1 more\n`, 1, 1, /7 fields/],
    ['id 0', `0 rfc4106(gcm(aes)) ${AES} 128\n`, 1, 1, /key id must be 1 to 15/],
    ['id 16', `16 rfc4106(gcm(aes)) ${AES} 128\n`, 1, 1, /key id must be 1 to 15/],
    ['id 254', `254 rfc4106(gcm(aes)) ${AES} 128\n`, 1, 1, /key id must be 1 to 15/],
    ['an AEAD of another name', `4 gcm(aes) ${AES} 128\n`, 1, 3, /must begin with rfc/],
    ['an odd number of digits', `4 rfc4106(gcm(aes)) ${AES}f 128\n`, 1, 21, /hex digits/],
    ['0X', `4 rfc4106(gcm(aes)) 0X${AES} 128\n`, 1, 21, /hex digits/],
    ['0x twice', `4 rfc4106(gcm(aes)) 0x0x${AES} 128\n`, 1, 21, /hex digits/],
    ['what is no hex', '6 test abcdefghijklmnopqrstuvwzyzABCDEF test abcdefghijklmnopqrstuvwzyzABCDEF\n', 1, 8, /hex/],
    ['an ICV of 64 bits', `4 rfc4106(gcm(aes)) ${AES} 64\n`, 1, 62, /96, 128, 256 bits/],
    ['an ICV that is no number', `4 rfc4106(gcm(aes)) ${AES} 128x\n`, 1, 62, /96, 128, 256 bits/],
    ['two spaces', `4  rfc4106(gcm(aes)) ${AES} 128\n`, 1, 3, /must not be empty/],
    ['a space before the id', ` 4 rfc4106(gcm(aes)) ${AES} 128\n`, 1, 1, /key id|empty/],
    [
      'an id in use',
      `7 hmac(sha256) ${HALF} cbc(aes) ${HALF}\n7 digest_null "" cipher_null ""\n`,
      2,
      1,
      /increment the key id/,
    ],
    ['no address', `4 hmac(sha256) ${HALF} cbc(aes) ${HALF} 10.0.0\n`, 1, 91, /an IPv4 or IPv6 address|no more/],
    ['a lone plus', `+ rfc4106(gcm(aes)) ${AES} 128\n`, 1, 1, /key id|there must be/],
    ['tabs', `4\trfc4106(gcm(aes))\t${AES}\t128\n`, 1, 1, /key id|fields/],
    ['a comment', `4 rfc4106(gcm(aes)) ${AES} 128\n# the next one\n`, 2, 1, /key id|there must be/],
  ])('refuses %s, and says where', (_, text, line, column, says) => {
    expect(() => parseKeys(text, options)).toThrow(
      expect.objectContaining({ code: 'ERR_XFRMESH_KEY_FILE', line, column }),
    )
    expect(() => parseKeys(text, options)).toThrow(says)
  })

  /** What Cilium lets pass, though nothing can come of it. */
  test.each([
    ['no line', ''],
    ['a negative id, which it takes for 253', `-3 rfc4106(gcm(aes)) ${AES} 128\n`],
    ['a space at the end, after which 128 is a cipher', `4 rfc4106(gcm(aes)) ${AES} 128 \n`],
    ['an empty name', '4 digest_null ""  ""\n'],
    ['an empty key', '4 rfc4106(gcm(aes))  128\n'],
    ['a key for a name', `4 ${AES} ${HALF} cbc(aes) ${HALF}\n`],
    [
      'an id that comes back',
      `1 rfc4106(gcm(aes)) ${AES} 128\n2 rfc4106(gcm(aes)) ${AES} 128\n1 rfc4106(gcm(aes)) ${AES} 128\n`,
    ],
    ['a key longer than any hash, of which it dies later', `1 rfc4106(gcm(aes)) ${'ab'.repeat(65)} 128\n`],
  ])('refuses %s', (_, text) => {
    expect(() => parseKeys(text, options)).toThrow(KeyFileError)
  })

  test('refuses the ids that are in use', () => {
    const text = `4 rfc4106(gcm(aes)) ${AES} 128\n`
    expect(() => parseKeys(text, { ...options, inUse: [3, 4] })).toThrow(
      /line 1, column 1: key id 4 is in use: increment/,
    )
    expect(parseKeys(text, { ...options, inUse: [3] }).keyId).toBe(4)
    expect(parseKeys(text, { ...options, inUse: new Set([3]) }).keyId).toBe(4)
  })

  test.each<[unknown, RegExp]>([
    [5, /^options\.inUse must be an iterable of key ids, as in \[3, 4\]/],
    [null, /^options\.inUse must be an iterable/],
    [{}, /^options\.inUse must be an iterable/],
    ['4', /^options\.inUse must be an iterable/],
    [['4'], /^options\.inUse\[0\] must be an integer from 1 to 15/],
    [[3, 16], /^options\.inUse\[1\] must be an integer from 1 to 15/],
    [[0], /^options\.inUse\[0\]/],
  ])('refuses %j for ids in use', (inUse, says) => {
    const parse = () => parseKeys(`4 rfc4106(gcm(aes)) ${AES} 128\n`, { ...options, inUse: inUse as Iterable<number> })
    expect(parse).toThrow(InvalidArgument)
    expect(parse).toThrow(says)
  })

  test('no error shows a key, wherever it stands', () => {
    const key = Buffer.from(AES, 'hex')
    for (const text of [
      `${AES} rfc4106(gcm(aes)) 128 4`,
      `4 ${AES} rfc4106(gcm(aes)) 128`,
      `4 rfc4106(gcm(aes)) ${AES}x 128`,
      `4 rfc4106(gcm(aes)) 128 ${AES}`,
      `4 hmac(sha256) ${AES} cbc(aes) ${AES} ${AES}`,
      `4 hmac(sha256) ${AES}`,
      `a${AES.slice(1)} hmac(sha256) ${AES} cbc(aes)`,
    ]) {
      const error = (() => {
        try {
          parseKeys(text, options)
        } catch (error) {
          return error
        }
        throw new Error(`was taken: ${text}`)
      })()
      expect(traces(key, everythingSaid(error))).toEqual([])
    }
    expect(traces(key, everythingSaid(parseKeys(`4 rfc4106(gcm(aes)) ${AES} 128`, options)))).toEqual([])
  })
})

/** What Cilium took once, and refuses today. */
test.each<[what: string, text: string, keys: unknown[][], line: number, column: number, says: RegExp]>([
  [
    'no key id',
    `hmac(sha256) ${HALF} cbc(aes) ${HALF}\n`,
    [[1, undefined, 'hmac(sha256)', HALF, 'cbc(aes)', HALF]],
    ...[1, 1, /the first field must be a key id from 1 to 15/],
  ],
  [
    'no key id, and empty keys',
    'digest_null "" cipher_null ""\n',
    [[1, undefined, 'digest_null', '', 'cipher_null', '']],
    ...[1, 1, /the first field must be a key id/],
  ],
  [
    'no key id before an AEAD',
    `rfc4106(gcm(aes)) ${AES} 128\n`,
    [[1, undefined, 'rfc4106(gcm(aes))', AES, 128]],
    ...[1, 1, /the first field must be a key id/],
  ],
  [
    'no key id, and an address',
    `hmac(sha256) ${HALF} cbc(aes) ${HALF} 10.0.0.1\n`,
    [[1, '10.0.0.1', 'hmac(sha256)', HALF, 'cbc(aes)', HALF]],
    ...[1, 1, /the first field must be a key id/],
  ],
  [
    'a key of an address beside that of all others',
    `5 hmac(sha256) ${HALF} cbc(aes) ${HALF}\n5 hmac(sha256) ${HALF} cbc(aes) ${HALF} 2001:DB8::0:1\n`,
    [
      [5, undefined, 'hmac(sha256)', HALF, 'cbc(aes)', HALF],
      [5, '2001:db8::1', 'hmac(sha256)', HALF, 'cbc(aes)', HALF],
    ],
    ...[2, 91, /no keys of one address any more/],
  ],
  [
    'another ICV',
    `4 rfc4106(gcm(aes)) ${AES} 128\n5 rfc4106(gcm(aes)) ${AES} 96\n`,
    [
      [4, undefined, 'rfc4106(gcm(aes))', AES, 128],
      [5, undefined, 'rfc4106(gcm(aes))', AES, 96],
    ],
    ...[2, 62, /the overhead must stay that of the line before, 16 bytes/],
  ],
  [
    'another length of the authentication key',
    `2 hmac(sha256) 0x${HALF} cbc(aes) ${HALF}\n3 digest_null "" cipher_null ""\n`,
    [
      [2, undefined, 'hmac(sha256)', HALF, 'cbc(aes)', HALF],
      [3, undefined, 'digest_null', '', 'cipher_null', ''],
    ],
    ...[2, 15, /the overhead must stay/],
  ],
] as [string, string, unknown[][], number, number, RegExp][])(
  'takes %s, but not with strict',
  (_, text, keys, line, column, says) => {
    const parsed = parseKeys(text)
    expect(parsed.keys.map(plain)).toEqual(keys)
    expect(parsed.keyId).toBe(keys.at(-1)![0])
    expect(() => parseKeys(text, { strict: true })).toThrow(expect.objectContaining({ line, column }))
    expect(() => parseKeys(text, { strict: true })).toThrow(says)
  },
)

test('columns of a line without a key id are its own', () => {
  expect(() => parseKeys(`hmac(sha256) ${HALF} cbc(aes) xyz`)).toThrow(/^line 1, column 56: a key must be hex/)
})

test('a file is read as its text, and one that is not there is the error that it is', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'xfrmesh-keys-'))
  try {
    await writeFile(join(directory, 'keys'), `3 rfc4106(gcm(aes)) ${AES} 128\n`)
    expect((await loadKeysFile(join(directory, 'keys'))).keyId).toBe(3)
    await expect(loadKeysFile(join(directory, 'none'))).rejects.toMatchObject({ code: 'ENOENT' })
  } finally {
    await rm(directory, { recursive: true })
  }
})

test('refuses what is no text, and misspelled options', () => {
  expect(() => parseKeys(undefined as unknown as string)).toThrow(InvalidArgument)
  expect(() => parseKeys('', { strikt: true } as object)).toThrow(/did you mean 'strict'/)
})
