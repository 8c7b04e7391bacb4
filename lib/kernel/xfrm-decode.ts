import { formatAddress } from '../base/address.js'
import { Key } from '../base/key.js'
import type { NativeRecords } from '../native.js'
import {
  Cipher,
  LITTLE_ENDIAN,
  NO_ALGORITHM,
  NO_KEY,
  Policy as P,
  RecordReader,
  State as S,
  Tail,
  WITHHELD_KEY,
} from './records.js'
import { SALT_BYTES } from './xfrm-keys.js'
import {
  actions,
  directions,
  FLAG_ESN,
  ipProtocols,
  nameOf,
  namesOf,
  policyFlags,
  policyTypes,
  shares,
  shownEncapTypes,
  shownModes,
  shownProtocols,
  stateDirections,
  stateExtraFlags,
  stateFlags,
  XFRMA,
} from './xfrm-names.js'
import { LIMIT_COUNTS, limitNames, SelectorLayout, TemplateLayout, UNLIMITED } from './xfrm-parts.js'
import type { Direction, Limits, Mark, Policy, Port, Selector, State, Template, Usage } from './xfrm-types.js'

/** Reads a dump with details, an object at a time: there may be a hundred thousand. Raw keys live until `wipe()`. */
export class DumpReader {
  /** At the present record. */
  protected readonly record: RecordReader
  readonly #rawKeys: readonly Uint8Array[]
  readonly #keys: (Key | undefined)[] = []
  readonly #algorithms: readonly string[]

  constructor({ records, keys, algorithms }: NativeRecords) {
    this.record = new RecordReader(records)
    this.#rawKeys = keys
    this.#algorithms = algorithms
  }

  next(): boolean {
    return this.record.next()
  }

  /** The present record, in a dump of states. */
  state(): State {
    const { record } = this
    const family = record.u8(S.family)
    const flags = record.u8(S.flags)
    const state: State = {
      source: formatAddress(record.address(S.source), 0, family),
      destination: formatAddress(record.address(S.destination), 0, family),
      spi: record.u32(S.spi),
      protocol: nameOf(record.u8(S.protocol), shownProtocols),
      mode: nameOf(record.u8(S.mode), shownModes),
      reqid: record.u32(S.reqid),
      replayWindow: record.u8(S.replayWindow),
      esn: (flags & FLAG_ESN) !== 0,
      flags: namesOf(flags & ~FLAG_ESN, stateFlags),
      extraFlags: [],
      limits: {},
      selector: anySelector(family),
      sequence: 0,
      replay: { sequence: 0n, outputSequence: 0n, bitmap: new Uint32Array(0) },
      current: { bytes: 0n, packets: 0n, added: new Date(0), used: undefined },
      lastUsed: undefined,
      statistics: { replayWindow: 0, replay: 0, integrityFailed: 0 },
    }
    this.#algorithmsOf(state)
    for (const [type, payload] of record.attributes()) putStateAttribute(state, type, fields(payload), payload, family)
    return state
  }

  /** The present record, in a dump of policies. */
  policy(): Policy {
    const { record } = this
    const direction = record.u8(P.direction)
    const policy: Policy = {
      direction: nameOf(direction % SOCKET_DIRECTIONS, directions) as Direction,
      socket: direction >= SOCKET_DIRECTIONS,
      selector: policySelector(record),
      action: nameOf(record.u8(P.action), actions),
      priority: record.u32(P.priority),
      index: record.u32(P.index),
      type: 'main',
      share: nameOf(record.u8(P.share), shares),
      flags: namesOf(record.u8(P.flags), policyFlags),
      limits: {},
      current: { bytes: 0n, packets: 0n, added: new Date(0), used: undefined },
      templates: [],
    }
    for (const [type, payload] of record.attributes()) putPolicyAttribute(policy, type, fields(payload), payload)
    return policy
  }

  /** Overwrites the raw keys; the {@link Key}s made of them stay. */
  wipe(): void {
    for (const key of this.#rawKeys) key.fill(0)
  }

  #algorithmsOf(state: State): void {
    const { record } = this
    const cipher = record.u8(S.cipher)
    if (cipher !== Cipher.none) {
      const name = this.#algorithms[record.u16(S.cipherAlgorithm)]!
      const index = record.u32(S.cipherKey)
      const key = record.u8(S.salted) === 0 ? this.#key(index) : this.#saltedKey(index, state.spi)
      if (cipher === Cipher.aead) state.aead = { name, key, icvBits: record.u16(S.icvBits) }
      else state.encryption = { name, key }
    }
    const auth = record.u16(S.authAlgorithm)
    if (auth !== NO_ALGORITHM) {
      state.auth = {
        name: this.#algorithms[auth]!,
        key: this.#key(record.u32(S.authKey)),
        truncateBits: record.u16(S.authTruncateBits),
      }
    }
  }

  /** One holder for all states of a key. */
  #key(index: number): Key | undefined {
    if (index === WITHHELD_KEY) return undefined
    if (index === NO_KEY) return new Key(new Uint8Array(0))
    return (this.#keys[index] ??= new Key(this.#rawKeys[index]!))
  }

  #saltedKey(index: number, spi: number): Key {
    const base = this.#rawKeys[index]!
    const whole = new Uint8Array(new ArrayBuffer(base.length + SALT_BYTES))
    whole.set(base)
    new DataView(whole.buffer).setUint32(base.length, spi)
    const key = new Key(whole)
    whole.fill(0)
    return key
  }
}

/** Directions from here on are those of socket policies (xfrm_policy_id2dir). */
const SOCKET_DIRECTIONS = 3

function fields(payload: Uint8Array): DataView {
  return new DataView(payload.buffer, payload.byteOffset, payload.byteLength)
}

function putStateAttribute(state: State, type: number, view: DataView, payload: Uint8Array, family: number): void {
  const word = (offset: number) => view.getUint32(offset, LITTLE_ENDIAN)
  switch (type) {
    case XFRMA.ALG_COMP:
      state.compression = { name: text(payload, 0, ALGORITHM_NAME_BYTES) }
      break
    case XFRMA.ENCAP:
      state.encap = {
        type: nameOf(view.getUint16(0, LITTLE_ENDIAN), shownEncapTypes),
        sourcePort: view.getUint16(2),
        destinationPort: view.getUint16(4),
        originalAddress: formatAddress(payload, 8, family),
      }
      break
    case XFRMA.REPLAY_VAL:
      // struct xfrm_replay_state: oseq, seq, bitmap
      state.replay = {
        sequence: BigInt(word(4)),
        outputSequence: BigInt(word(0)),
        bitmap: Uint32Array.of(word(8)),
      }
      break
    case XFRMA.REPLAY_ESN_VAL:
      // struct xfrm_replay_state_esn: bmp_len, oseq, seq, oseq_hi, seq_hi, replay_window, bmp
      state.replayWindow = word(20)
      state.replay = {
        sequence: (BigInt(word(16)) << 32n) | BigInt(word(8)),
        outputSequence: (BigInt(word(12)) << 32n) | BigInt(word(4)),
        bitmap: Uint32Array.from({ length: Math.min(word(0), view.byteLength / 4 - 6) }, (_, i) => word(24 + i * 4)),
      }
      break
    case XFRMA.COADDR:
      state.careOf = formatAddress(payload, 0, family)
      break
    case XFRMA.LASTUSED:
      state.lastUsed = date(view, 0)
      break
    case XFRMA.MARK:
      state.mark = mark(view)
      break
    case XFRMA.TFCPAD:
      state.tfcPadding = word(0)
      break
    case XFRMA.SA_EXTRA_FLAGS:
      state.extraFlags = namesOf(word(0), stateExtraFlags)
      break
    case XFRMA.SET_MARK:
      state.outputMark = { value: word(0), mask: state.outputMark?.mask ?? 0xffffffff }
      break
    case XFRMA.SET_MARK_MASK:
      state.outputMark = { value: state.outputMark?.value ?? 0, mask: word(0) }
      break
    case XFRMA.SA_DIR:
      state.direction = nameOf(view.getUint8(0), stateDirections)
      break
    case Tail.selector:
      state.selector = selector(view, payload)
      break
    case Tail.statistics:
      state.statistics = { replayWindow: word(0), replay: word(4), integrityFailed: word(8) }
      break
    case Tail.sequence:
      state.sequence = word(0)
      break
    default:
      putCommonAttribute(state, type, view, payload)
  }
}

function putPolicyAttribute(policy: Policy, type: number, view: DataView, payload: Uint8Array): void {
  switch (type) {
    case XFRMA.TMPL:
      for (let at = 0; at + TemplateLayout.bytes <= payload.length; at += TemplateLayout.bytes) {
        policy.templates.push(template(view, payload, at))
      }
      break
    case XFRMA.POLICY_TYPE:
      policy.type = nameOf(view.getUint8(0), policyTypes)
      break
    case XFRMA.MARK:
      policy.mark = mark(view)
      break
    default:
      putCommonAttribute(policy, type, view, payload)
  }
}

function putCommonAttribute(object: State | Policy, type: number, view: DataView, payload: Uint8Array): void {
  switch (type) {
    case XFRMA.SEC_CTX:
      // struct xfrm_user_sec_ctx: len, exttype, ctx_alg, ctx_doi, ctx_len, then the context
      object.securityContext = text(payload, 8, view.getUint16(6, LITTLE_ENDIAN))
      break
    case XFRMA.OFFLOAD_DEV:
      object.offload = { interfaceIndex: view.getInt32(0, LITTLE_ENDIAN), flags: view.getUint8(4) }
      break
    case XFRMA.IF_ID:
      object.ifId = view.getUint32(0, LITTLE_ENDIAN)
      break
    case Tail.lifetime:
      object.limits = limits(view)
      break
    case Tail.current:
      object.current = usage(view)
      break
  }
}

/** Of struct xfrm_algo: alg_name. */
const ALGORITHM_NAME_BYTES = 64

/** Text up to its zero, within `length` bytes. */
function text(payload: Uint8Array, offset: number, length: number): string {
  const bytes = payload.subarray(offset, offset + length)
  const end = bytes.indexOf(0)
  return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString()
}

function mark(view: DataView): Mark {
  return { value: view.getUint32(0, LITTLE_ENDIAN), mask: view.getUint32(4, LITTLE_ENDIAN) }
}

/** Seconds since 1970; 0: never. */
function date(view: DataView, offset: number): Date | undefined {
  const seconds = Number(view.getBigUint64(offset, LITTLE_ENDIAN))
  return seconds === 0 ? undefined : new Date(seconds * 1000)
}

/** struct xfrm_lifetime_cur */
function usage(view: DataView): Usage {
  return {
    bytes: view.getBigUint64(0, LITTLE_ENDIAN),
    packets: view.getBigUint64(8, LITTLE_ENDIAN),
    added: date(view, 16) ?? new Date(0),
    used: date(view, 24),
  }
}

function limits(view: DataView): Limits {
  const found: Record<string, bigint | number> = {}
  for (const [i, name] of limitNames.entries()) {
    const value = view.getBigUint64(i * 8, LITTLE_ENDIAN)
    if (i < LIMIT_COUNTS) {
      if (value !== UNLIMITED) found[name] = value
    } else if (value !== 0n) {
      found[name] = value > Number.MAX_SAFE_INTEGER ? value : Number(value)
    }
  }
  return found
}

function anySelector(family: number): Selector {
  const any = formatAddress(new Uint8Array(16), 0, family)
  return { source: `${any}/0`, destination: `${any}/0` }
}

function policySelector(record: RecordReader): Selector {
  const family = record.u8(P.family)
  const found: Selector = {
    source: `${formatAddress(record.address(P.source), 0, family)}/${record.u8(P.sourcePrefix)}`,
    destination: `${formatAddress(record.address(P.destination), 0, family)}/${record.u8(P.destinationPrefix)}`,
  }
  putSelectorRest(found, {
    protocol: record.u8(P.protocol),
    sourcePort: { value: record.u16(P.sourcePort), mask: record.u16(P.sourcePortMask) },
    destinationPort: { value: record.u16(P.destinationPort), mask: record.u16(P.destinationPortMask) },
    interfaceIndex: record.i32(P.interfaceIndex),
    user: record.u32(P.user),
  })
  return found
}

/** struct xfrm_selector */
export function selector(view: DataView, payload: Uint8Array): Selector {
  const family = view.getUint16(SelectorLayout.family, LITTLE_ENDIAN)
  const side = (address: number, prefix: number) => `${formatAddress(payload, address, family)}/${payload[prefix]!}`
  const found: Selector = {
    source: side(SelectorLayout.source, SelectorLayout.sourcePrefix),
    destination: side(SelectorLayout.destination, SelectorLayout.destinationPrefix),
  }
  putSelectorRest(found, {
    protocol: view.getUint8(SelectorLayout.protocol),
    sourcePort: {
      value: view.getUint16(SelectorLayout.sourcePort),
      mask: view.getUint16(SelectorLayout.sourcePortMask),
    },
    destinationPort: {
      value: view.getUint16(SelectorLayout.destinationPort),
      mask: view.getUint16(SelectorLayout.destinationPortMask),
    },
    interfaceIndex: view.getInt32(SelectorLayout.interfaceIndex, LITTLE_ENDIAN),
    user: view.getUint32(SelectorLayout.user, LITTLE_ENDIAN),
  })
  return found
}

/** What of a selector is only there if it selects. */
function putSelectorRest(
  found: Selector,
  rest: { protocol: number; sourcePort: Port; destinationPort: Port; interfaceIndex: number; user: number },
): void {
  if (rest.protocol !== 0) found.protocol = nameOf(rest.protocol, ipProtocols)
  if (rest.sourcePort.mask !== 0) found.sourcePort = rest.sourcePort
  if (rest.destinationPort.mask !== 0) found.destinationPort = rest.destinationPort
  if (rest.interfaceIndex !== 0) found.interfaceIndex = rest.interfaceIndex
  if (rest.user !== 0) found.user = rest.user
}

function template(view: DataView, payload: Uint8Array, at: number): Template {
  const family = view.getUint16(at + TemplateLayout.family, LITTLE_ENDIAN)
  return {
    source: formatAddress(payload, at + TemplateLayout.source, family),
    destination: formatAddress(payload, at + TemplateLayout.destination, family),
    spi: view.getUint32(at + TemplateLayout.spi),
    protocol: nameOf(view.getUint8(at + TemplateLayout.protocol), shownProtocols),
    mode: nameOf(view.getUint8(at + TemplateLayout.mode), shownModes),
    reqid: view.getUint32(at + TemplateLayout.reqid, LITTLE_ENDIAN),
    optional: view.getUint8(at + TemplateLayout.optional) !== 0,
    share: nameOf(view.getUint8(at + TemplateLayout.share), shares),
    authMask: view.getUint32(at + TemplateLayout.authMask, LITTLE_ENDIAN),
    encryptionMask: view.getUint32(at + TemplateLayout.encryptionMask, LITTLE_ENDIAN),
    compressionMask: view.getUint32(at + TemplateLayout.compressionMask, LITTLE_ENDIAN),
  }
}
