import { AF_INET, type Family } from '../base/address.js'
import { boolean, integer, U16, U32 } from '../base/check.js'
import { InvalidArgument, InvalidState } from '../base/errors.js'
import { Cipher, NO_ALGORITHM, NO_KEY, Operation, Policy, RecordWriter, State } from './records.js'
import { OLD_WINDOW, replayState, WIDEST_WINDOW } from './xfrm-replay.js'
import { keyBytes, SALT_BYTES, TableBuilder } from './xfrm-keys.js'
import {
  actions,
  bitsOf,
  codeOf,
  directions,
  FLAG_ESN,
  ipsecProtocols,
  MODE_TRANSPORT,
  modes,
  policyFlags,
  stateExtraFlags,
  stateFlags,
  XFRMA,
} from './xfrm-names.js'
import {
  known,
  putAddress,
  putEncap,
  putLimits,
  putMark,
  putOutputMark,
  putSelector,
  putStateSelector,
  putTemplates,
  putWord,
  sameFamily,
} from './xfrm-parts.js'
import type {
  AeadOptions,
  AuthOptions,
  EncryptionOptions,
  PolicyId,
  PolicyOptions,
  StateId,
  StateOptions,
  StateUpdate,
} from './xfrm-types.js'

/** Whether a record is being written, with the buffers that all batches share: a getter of its options is the caller's code. */
let writing = false

let takeBatch: (batch: XfrmBatch) => BatchContent

/** What a batch hands over when it is committed. */
export interface BatchContent {
  readonly records: Uint8Array
  readonly tables: TableBuilder
  /** Operations that add an object, or may: what the kernel's tables grow by. */
  readonly additions: number
}

/**
 * Operations on the SAD and SPD, in order. A value: it holds what is to be done until {@link Xfrm.commit} does it, and is
 * spent then. Each method checks its argument whole, and either appends one operation and returns its index, which is
 * what a failure of it bears, or throws {@link InvalidArgument} and appends nothing. Keys are copied, and the copies
 * overwritten once committed.
 */
export class XfrmBatch {
  readonly #writer = new RecordWriter()
  readonly #tables = new TableBuilder()
  #additions = 0
  #spent = false

  static {
    takeBatch = (batch) => batch.#take()
  }

  /** Operations so far. */
  get size(): number {
    return this.#writer.count
  }

  /** Adds an SA (XFRM_MSG_NEWSA). EEXIST if there is one of this mark, destination, SPI and protocol. */
  addState(state: StateOptions): number {
    return this.#add(Operation.addState, state, this.#state)
  }

  /** Changes what can be changed of an SA (XFRM_MSG_UPDSA). ESRCH if there is none. */
  updateState(state: StateUpdate): number {
    return this.#append(Operation.updateState, state, this.#stateUpdate)
  }

  /**
   * Deletes an SA (XFRM_MSG_DELSA). ESRCH if there is none. Where marks overlap, the kernel takes the first that matches,
   * not the one that fits best.
   */
  deleteState(state: StateId): number {
    return this.#append(Operation.deleteState, state, putStateId)
  }

  /** Adds an SP (XFRM_MSG_NEWPOLICY). EEXIST if there is one of this direction, selector, mark and interface id. */
  addPolicy(policy: PolicyOptions): number {
    return this.#add(Operation.addPolicy, policy, putPolicy)
  }

  /** Puts an SP in the place of the one of the same identity, or adds it where there is none (XFRM_MSG_UPDPOLICY). */
  updatePolicy(policy: PolicyOptions): number {
    return this.#add(Operation.updatePolicy, policy, putPolicy)
  }

  /** Deletes an SP (XFRM_MSG_DELPOLICY). ENOENT if there is none. */
  deletePolicy(policy: PolicyId): number {
    return this.#append(Operation.deletePolicy, policy, putPolicyId)
  }

  #add(operation: number, value: unknown, put: (into: RecordWriter, value: unknown) => void): number {
    const index = this.#append(operation, value, put)
    this.#additions++
    return index
  }

  #append(operation: number, value: unknown, put: (into: RecordWriter, value: unknown) => void): number {
    if (this.#spent) throw new InvalidState('batch: it was committed; make another')
    write(this.#writer, operation, value, put)
    return this.#writer.count - 1
  }

  readonly #state = (into: RecordWriter, value: unknown): void => {
    const state = known<StateOptions>(value, 'state', STATE)
    const { destination, spi, protocol, source, mode, reqid, esn = false, replayWindow = 0, flags, extraFlags } = state
    const { aead, auth, encryption, encap, mark, outputMark, ifId, limits, selector } = state
    const family = putDestination(into, destination, spi, protocol)
    sameFamily(family, putAddress(into, State.source, source, 'state', 'source'), 'state', 'source')
    into.u8(State.mode, mode === undefined ? MODE_TRANSPORT : codeOf(mode, 'state.mode', modes))
    if (reqid !== undefined) into.u32(State.reqid, integer(reqid, 'state.reqid', 0, U32))
    const bits = flags === undefined ? 0 : bitsOf(flags, 'state.flags', stateFlags)
    into.u8(State.flags, boolean(esn, 'state.esn') ? bits | FLAG_ESN : bits)
    this.#algorithms(into, spi, protocol, aead, auth, encryption)
    const wide = putWindow(into, replayWindow, esn)

    // Attributes stand in the order of their numbers.
    if (encap !== undefined) putEncap(into, encap, 'state.encap')
    putMark(into, mark, 'state.mark')
    if (wide) into.attribute(XFRMA.REPLAY_ESN_VAL, replayState(replayWindow))
    if (extraFlags !== undefined) {
      const extra = bitsOf(extraFlags, 'state.extraFlags', stateExtraFlags)
      if (extra !== 0) putWord(into, XFRMA.SA_EXTRA_FLAGS, extra)
    }
    putOutputMark(into, outputMark, 'state.outputMark')
    putInterfaceId(into, ifId, 'state.ifId')
    putLimits(into, limits, 'state.limits')
    if (selector !== undefined) putStateSelector(into, selector, 'state.selector', bits & AF_UNSPEC ? 0 : family)
  }

  #algorithms(
    into: RecordWriter,
    spi: number,
    protocol: StateOptions['protocol'],
    aead: StateOptions['aead'],
    auth: StateOptions['auth'],
    encryption: StateOptions['encryption'],
  ): void {
    into.u32(State.cipherKey, NO_KEY)
    into.u16(State.authAlgorithm, NO_ALGORITHM)
    into.u32(State.authKey, NO_KEY)
    if (protocol === 'ah') {
      if (auth === undefined) throw new InvalidArgument('state.auth', 'given: AH authenticates')
      if (aead ?? encryption)
        throw new InvalidArgument(`state.${aead ? 'aead' : 'encryption'}`, 'left out: AH does not encrypt')
    } else if (aead === undefined) {
      if (encryption === undefined) {
        throw new InvalidArgument('state.aead', 'given, or state.encryption (with state.auth beside it): ESP encrypts')
      }
    } else if (auth ?? encryption) {
      throw new InvalidArgument(`state.${auth ? 'auth' : 'encryption'}`, 'left out where state.aead does its work')
    }
    if (aead !== undefined) {
      const { name, key, icvBits } = known<AeadOptions>(aead, 'state.aead', AEAD)
      into.u8(State.cipher, Cipher.aead)
      into.u16(State.cipherAlgorithm, this.#tables.algorithm(name, 'state.aead.name'))
      into.u16(State.icvBits, integer(icvBits, 'state.aead.icvBits', 0, U16))
      const bytes = keyBytes(key, 'state.aead.key', 1)
      // A salt that is the SPI is C++'s to append: then one key serves many SAs, here and there.
      const salted = endsWith(bytes, spi)
      into.u8(State.salted, salted ? 1 : 0)
      into.u32(State.cipherKey, this.#tables.key(bytes, salted ? bytes.length - SALT_BYTES : bytes.length))
    }
    if (encryption !== undefined) {
      const { name, key } = known<EncryptionOptions>(encryption, 'state.encryption', ENCRYPTION)
      into.u8(State.cipher, Cipher.encryption)
      into.u16(State.cipherAlgorithm, this.#tables.algorithm(name, 'state.encryption.name'))
      const bytes = keyBytes(key, 'state.encryption.key', name === NULL_CIPHER ? 0 : 1)
      if (bytes.length > 0) into.u32(State.cipherKey, this.#tables.key(bytes, bytes.length))
    }
    if (auth !== undefined) {
      const { name, key, truncateBits } = known<AuthOptions>(auth, 'state.auth', AUTH)
      into.u16(State.authAlgorithm, this.#tables.algorithm(name, 'state.auth.name'))
      if (truncateBits !== undefined) {
        into.u16(State.authTruncateBits, integer(truncateBits, 'state.auth.truncateBits', 1, U16))
      }
      const bytes = keyBytes(key, 'state.auth.key', 1)
      into.u32(State.authKey, this.#tables.key(bytes, bytes.length))
    }
  }

  readonly #stateUpdate = (into: RecordWriter, value: unknown): void => {
    refuseUnchangeable(value)
    const state = known<StateUpdate>(value, 'state', STATE_UPDATE)
    const { destination, spi, protocol, source, encap, mark, outputMark, ifId, limits } = state
    putSource(into, source, putDestination(into, destination, spi, protocol))
    this.#standIn(into, protocol)
    if (encap !== undefined) putEncap(into, encap, 'state.encap')
    putMark(into, mark, 'state.mark')
    if (outputMark === 0 || (!putOutputMark(into, outputMark, 'state.outputMark') && outputMark !== undefined)) {
      throw new InvalidArgument(
        'state.outputMark',
        'other than 0: the kernel takes that for absent and changes nothing',
      )
    }
    putInterfaceId(into, ifId, 'state.ifId')
    putLimits(into, limits, 'state.limits')
  }

  /**
   * The kernel makes a whole SA of an update's message and copies from it what can change. So the message needs
   * algorithms, whichever: these are in every kernel that has ESP, or AH (both select them). The SA keeps its own.
   */
  #standIn(into: RecordWriter, protocol: StateUpdate['protocol']): void {
    into.u32(State.cipherKey, NO_KEY)
    into.u16(State.authAlgorithm, NO_ALGORITHM)
    into.u32(State.authKey, NO_KEY)
    if (protocol === 'esp') {
      into.u8(State.cipher, Cipher.aead)
      into.u16(State.cipherAlgorithm, this.#tables.algorithm('rfc4106(gcm(aes))', ''))
      into.u16(State.icvBits, 128)
      into.u32(State.cipherKey, this.#tables.key(noKey, 20))
    } else {
      into.u16(State.authAlgorithm, this.#tables.algorithm('hmac(sha256)', ''))
      into.u32(State.authKey, this.#tables.key(noKey, 32))
    }
  }

  #take(): BatchContent {
    if (this.#spent) throw new InvalidState('batch: it was committed before; make another')
    this.#spent = true
    return { records: this.#writer.take(), tables: this.#tables, additions: this.#additions }
  }
}

/** Takes a batch's content out of it: it is spent then. @throws InvalidState if it was */
export function take(batch: XfrmBatch): BatchContent {
  return takeBatch(batch)
}

/** The record that names one state, for asking. @throws InvalidArgument */
export function stateId(state: StateId): Uint8Array {
  const writer = new RecordWriter(256)
  write(writer, Operation.deleteState, state, putStateId)
  return writer.take()
}

/** The record that names one policy, for asking. @throws InvalidArgument */
export function policyId(policy: PolicyId): Uint8Array {
  const writer = new RecordWriter(256)
  write(writer, Operation.deletePolicy, policy, putPolicyId)
  return writer.take()
}

/**
 * Appends a record that `put` fills, or nothing. What is checked and what is written must be the same, so all here read
 * each property of the caller's once. @throws InvalidState if the caller's getters come back here
 */
function write(
  into: RecordWriter,
  operation: number,
  value: unknown,
  put: (into: RecordWriter, value: unknown) => void,
): void {
  if (writing) throw new InvalidState('batch: called by a getter of what is being added')
  writing = true
  into.begin(operation)
  try {
    put(into, value)
  } catch (error) {
    into.discard()
    throw error
  } finally {
    writing = false
  }
}

const STATE_ID = new Set<keyof StateId>(['destination', 'spi', 'protocol', 'source', 'mark'])
const STATE_UPDATE = new Set<keyof StateUpdate>([...STATE_ID, 'encap', 'outputMark', 'ifId', 'limits'])
const STATE = new Set<keyof StateOptions>([
  ...STATE_UPDATE,
  'mode',
  'reqid',
  'aead',
  'auth',
  'encryption',
  'replayWindow',
  'esn',
  'flags',
  'extraFlags',
  'selector',
])
const AEAD = new Set<keyof AeadOptions>(['name', 'key', 'icvBits'])
const AUTH = new Set<keyof AuthOptions>(['name', 'key', 'truncateBits'])
const ENCRYPTION = new Set<keyof EncryptionOptions>(['name', 'key'])
const POLICY_ID = new Set<keyof PolicyId>(['direction', 'selector', 'mark', 'ifId', 'index'])
const POLICY = new Set<keyof PolicyOptions>([...POLICY_ID, 'priority', 'action', 'flags', 'limits', 'templates'])

/** XFRM_STATE_AF_UNSPEC: a selector without addresses is of either family. */
const AF_UNSPEC = stateFlags.codes.get('af-unspec')!
const NULL_CIPHER = 'ecb(cipher_null)'
const noKey = new Uint8Array(32)

/** Whether a key of an AEAD has the SPI, in network order, as its salt, and something before it. */
function endsWith(key: Uint8Array, spi: number): boolean {
  const at = key.length - SALT_BYTES
  return (
    at > 0 &&
    key[at + 3] === (spi & 0xff) &&
    key[at + 2] === ((spi >>> 8) & 0xff) &&
    key[at + 1] === ((spi >>> 16) & 0xff) &&
    key[at] === spi >>> 24
  )
}

/** Family, destination, SPI and protocol. */
function putDestination(into: RecordWriter, destination: unknown, spi: unknown, protocol: unknown): Family {
  const family = putAddress(into, State.destination, destination, 'state', 'destination')
  into.u8(State.family, family)
  into.u32(State.spi, integer(spi, 'state.spi', 1, U32))
  into.u8(State.protocol, codeOf(protocol, 'state.protocol', ipsecProtocols))
  return family
}

function putSource(into: RecordWriter, source: unknown, family: Family): void {
  if (source === undefined) return
  sameFamily(family, putAddress(into, State.source, source, 'state', 'source'), 'state', 'source')
}

function putStateId(into: RecordWriter, value: unknown): void {
  const { destination, spi, protocol, source, mark } = known<StateId>(value, 'state', STATE_ID)
  putSource(into, source, putDestination(into, destination, spi, protocol))
  putMark(into, mark, 'state.mark')
}

/** Checks the window and writes it where the head can hold it; true if it takes struct xfrm_replay_state_esn. */
function putWindow(into: RecordWriter, window: number, esn: boolean): boolean {
  integer(window, 'state.replayWindow', 0, WIDEST_WINDOW)
  if (esn && window === 0)
    throw new InvalidArgument('state.replayWindow', 'above 0 with extended sequence numbers', window)
  const wide = esn || window > OLD_WINDOW
  if (!wide) into.u8(State.replayWindow, window)
  return wide
}

function putInterfaceId(into: RecordWriter, value: unknown, argument: string): void {
  if (value !== undefined) putWord(into, XFRMA.IF_ID, integer(value, argument, 1, U32))
}

function refuseUnchangeable(value: unknown): void {
  if (typeof value !== 'object' || value === null) return
  for (const name in value) {
    if (!(STATE as Set<string>).has(name) || (STATE_UPDATE as Set<string>).has(name)) continue
    throw new InvalidArgument(
      `state.${name}`,
      'left out: the kernel would accept it and change nothing. An update changes encapsulation ports, limits, output mark and interface id; for all else add another SA and delete this one',
    )
  }
}

function putPolicy(into: RecordWriter, value: unknown): void {
  const policy = known<PolicyOptions>(value, 'policy', POLICY)
  const { selector, direction, priority, action, flags, index, templates, mark, ifId, limits } = policy
  const family = putSelector(into, selector, 'policy.selector')
  into.u8(Policy.direction, codeOf(direction, 'policy.direction', directions))
  if (action !== undefined) into.u8(Policy.action, codeOf(action, 'policy.action', actions))
  if (priority !== undefined) into.u32(Policy.priority, integer(priority, 'policy.priority', 0, U32))
  if (flags !== undefined) into.u8(Policy.flags, bitsOf(flags, 'policy.flags', policyFlags))
  if (index !== undefined) into.u32(Policy.index, checkedIndex(index))
  if (templates !== undefined) putTemplates(into, templates, family)
  putMark(into, mark, 'policy.mark')
  putInterfaceId(into, ifId, 'policy.ifId')
  putLimits(into, limits, 'policy.limits')
}

function putPolicyId(into: RecordWriter, value: unknown): void {
  const { direction, selector, index, mark, ifId } = known<PolicyId>(value, 'policy', POLICY_ID)
  into.u8(Policy.direction, codeOf(direction, 'policy.direction', directions))
  if (index === undefined) {
    putSelector(into, selector, 'policy.selector')
  } else {
    if (selector !== undefined) throw new InvalidArgument('policy.selector', 'left out beside policy.index')
    into.u32(Policy.index, checkedIndex(index))
    into.u8(Policy.family, AF_INET)
  }
  putMark(into, mark, 'policy.mark')
  putInterfaceId(into, ifId, 'policy.ifId')
}

function checkedIndex(value: unknown): number {
  return integer(value, 'policy.index', 1, U32)
}
