import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { policyId, stateId, take, XfrmBatch } from '../../lib/kernel/xfrm-batch.js'
import { XFRMA } from '../../lib/kernel/xfrm-names.js'
import { DumpReader } from '../../lib/kernel/xfrm-decode.js'
import type { PolicyId, PolicyOptions, StateId, StateOptions, StateUpdate } from '../../lib/kernel/xfrm.js'
import { native } from '../../lib/native.js'
import { policyText, stateText } from './ip-text.js'
import { ipCommand, type IpCommand } from './ip-words.js'

interface Capture {
  name: string
  command: string
  sent: string[]
  received: string[]
  text: string
}

const captures = JSON.parse(readFileSync(new URL('../data/xfrm.json', import.meta.url), 'utf8')) as Capture[]

/** What `ip` can set and XfrmBatch leaves to a key daemon: sequence numbers taken over, and the acquire that is answered. */
const NOT_OURS = [
  'state: sequence numbers',
  'state: sequence numbers, ESN',
  'state: sequence of the acquire it answers',
]
/** What XfrmBatch refuses before the kernel can. */
const REFUSED = 'add a policy of too many templates: EINVAL'

/** A message's parts, so that the order of attributes does not count; nor do flags, which XFRM tells nothing by. */
function parts(message: Buffer): { type: number; fixed: string; attributes: Record<number, string> } {
  const type = message.readUInt16LE(4)
  const size = FIXED[type]
  if (size === undefined) throw new Error(`message type ${type}`)
  const attributes: Record<number, string> = {}
  for (let at = 16 + size; at + 4 <= message.length;) {
    const length = message.readUInt16LE(at)
    attributes[message.readUInt16LE(at + 2)] = message.subarray(at + 4, at + length).toString('hex')
    at += (length + 3) & ~3
  }
  return {
    type,
    fixed: message.subarray(16, 16 + size).toString('hex'),
    attributes,
  }
}

/** What ip says in another way, or not at all, and means the same. */
function normalized(message: Buffer): Buffer {
  const copy = Buffer.from(message)
  if (FIXED[copy.readUInt16LE(4)] !== 224) return copy
  // The kernel gives a state's selector the state's family if it has none.
  if (copy.readUInt16LE(SELECTOR_FAMILY) === 0) copy.writeUInt16LE(copy.readUInt16LE(STATE_FAMILY), SELECTOR_FAMILY)
  const rest: Buffer[] = [copy.subarray(0, 16 + 224)]
  for (let at = 16 + 224; at + 4 <= copy.length; at += (copy.readUInt16LE(at) + 3) & ~3) {
    const attribute = copy.subarray(at, at + ((copy.readUInt16LE(at) + 3) & ~3))
    const type = attribute.readUInt16LE(2)
    // ip leaves what it found in struct xfrm_encap_tmpl's padding.
    if (type === XFRMA.ENCAP) attribute.writeUInt16LE(0, 10)
    rest.push(type === XFRMA.REPLAY_ESN_VAL ? wholeReplayState(attribute) : attribute)
  }
  return Buffer.concat(rest)
}

/** The kernel takes a replay state with its bitmap, or without, which then is empty. */
function wholeReplayState(attribute: Buffer): Buffer {
  const length = 4 + 24 + attribute.readUInt32LE(4) * 4
  const whole = Buffer.alloc(length)
  attribute.copy(whole)
  whole.writeUInt16LE(length)
  return whole
}

/** Of struct xfrm_usersa_info, after the header. */
const SELECTOR_FAMILY = 16 + 40
const STATE_FAMILY = 16 + 212

/** Sizes of what precedes the attributes: xfrm_usersa_info, xfrm_usersa_id, xfrm_userpolicy_info, xfrm_userpolicy_id. */
const FIXED: Record<number, number> = {
  0x10: 224,
  0x1a: 224,
  0x11: 24,
  0x12: 24,
  0x13: 168,
  0x19: 168,
  0x14: 64,
  0x15: 64,
}

function encoded({ object, action, options }: IpCommand): Buffer {
  const batch = new XfrmBatch()
  const policy = options as unknown as PolicyOptions
  const state = options as unknown as StateOptions
  if (object === 'state') {
    if (action === 'add') batch.addState(state)
    else batch.deleteState(state)
  } else if (action === 'add') {
    batch.addPolicy(policy)
  } else if (action === 'update') {
    batch.updatePolicy(policy)
  } else {
    batch.deletePolicy(policy)
  }
  const { records, tables } = take(batch)
  return Buffer.from(native.encode(records, tables.keys, tables.algorithms))
}

const commands = captures
  .map((capture) => ({
    ...capture,
    read: [...NOT_OURS, REFUSED].includes(capture.name) ? undefined : ipCommand(capture.command),
  }))
  .filter((capture) => capture.read !== undefined)

describe('what XfrmBatch sends is what ip sends', () => {
  const same = commands.filter(
    ({ read }) => read!.action !== 'get' && !(read!.object === 'state' && read!.action === 'update'),
  )
  test.each(same)('$name', ({ sent, read }) => {
    expect(parts(normalized(encoded(read!)))).toEqual(parts(normalized(Buffer.from(sent.at(-1)!, 'hex'))))
  })
  test('and most of what was captured is compared', () => expect(same.length).toBeGreaterThan(75))
})

describe('what names an object is what ip sends to get it', () => {
  const gets = commands.filter(({ read }) => read!.action === 'get')
  test.each(gets)('$name', ({ sent, read }) => {
    const { object, options } = read!
    const id =
      object === 'state' ? stateId(identity(options) as unknown as StateId) : policyId(options as unknown as PolicyId)
    const { fixed, attributes } = parts(Buffer.from(native.encode(id, [], [])))
    expect({ fixed, attributes }).toEqual(omitType(parts(Buffer.from(sent.at(-1)!, 'hex'))))
  })
})

describe('updates of states carry to the kernel what it changes, with algorithms of no account', () => {
  const updates = commands.filter(({ read }) => read!.object === 'state' && read!.action === 'update')
  test.each(updates)('$name', ({ sent, read }) => {
    const { source, destination, spi, protocol, encap, limits } = read!.options
    const batch = new XfrmBatch()
    const update = { source, destination, spi, protocol, ...(encap ? { encap } : {}), ...(limits ? { limits } : {}) }
    batch.updateState(update as unknown as StateUpdate)
    const { records, tables } = take(batch)
    const ours = parts(normalized(Buffer.from(native.encode(records, tables.keys, tables.algorithms))))
    const theirs = parts(normalized(Buffer.from(sent.at(-1)!, 'hex')))
    expect(ours.type).toBe(theirs.type)
    expect(withoutReqid(ours.fixed)).toBe(withoutReqid(theirs.fixed))
    expect(ours.attributes[XFRMA.ENCAP]).toBe(theirs.attributes[XFRMA.ENCAP])
    expect(ours.attributes[XFRMA_ALG_AEAD]).toMatch(/0{40}$/)
  })
  test('both kinds were captured', () => expect(updates.length).toBeGreaterThan(1))
})

describe('what is read of a dump is what ip prints of it', () => {
  const devices = { 2: 'd0' }
  const shown = captures.filter(({ command, text }) => command.startsWith('ip -d -s xfrm') && text.startsWith('src '))
  test.each(shown)('$name', ({ command, received, text }) => {
    const policies = command.includes(' policy ')
    const messages = Buffer.concat(received.map((hex) => Buffer.from(hex, 'hex')))
    const reader = new DumpReader(native.decode(messages, true))
    const found: string[] = []
    while (reader.next())
      found.push(policies ? policyText(reader.policy(), devices) : stateText(reader.state(), devices))
    // The kernel's dump has all; ip picks what its command line asks for.
    const printed = text.trimEnd().split(/\n(?=src )/)
    expect(found.filter((each) => printed.includes(each))).toEqual(printed)
    if (!command.includes('dst')) expect(found).toEqual(printed)
  })
  test('and they are many', () => expect(shown.length).toBeGreaterThan(9))
})

const XFRMA_ALG_AEAD = 18

function identity({ source, destination, spi, protocol, mark }: Record<string, unknown>): Record<string, unknown> {
  return { source, destination, spi, protocol, ...(mark === undefined ? {} : { mark }) }
}

function omitType({ fixed, attributes }: ReturnType<typeof parts>): Omit<ReturnType<typeof parts>, 'type'> {
  return { fixed, attributes }
}

/** Of struct xfrm_usersa_info. An update cannot change it, and does not say it. */
function withoutReqid(fixed: string): string {
  const at = 208 * 2
  return `${fixed.slice(0, at)}00000000${fixed.slice(at + 8)}`
}
