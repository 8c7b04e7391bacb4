import { ADDRESS_BYTES, formatAddress } from '../base/address.js'
import type { Failure } from '../base/errors.js'
import { LITTLE_ENDIAN, Policy, State } from '../kernel/records.js'
import { type Form, mayShare, sharedPolicies, SharedPolicy } from './form.js'
import type { Keyring } from './keyring.js'
import type { PeerTable } from './peers.js'
import { claimant, claimedKey, SpiIndex } from './spi-index.js'
import { RESERVED_SPIS } from './spi.js'

/**
 * What makes what is what should be: a value, made without touching anything.
 *
 * Phases come in an order that never breaks what works: all that decrypts is added, then what encrypts, then policies
 * turn to it; only then is the old removed, what encrypts first. Whoever carries a plan out does phase after phase, a
 * phase's operations in order; calls {@link settle} for each operation's outcome, in order; and before each phase takes
 * out of it, by {@link without}, the peers for whom an operation failed: they keep what they have. If any of phase
 * 'guard' fails, nothing may follow.
 */
export interface Plan {
  /** VNIs to guard before phase 'guard', and to guard no more after the last phase. */
  readonly networks: { readonly add: readonly number[]; readonly remove: readonly number[] }
  readonly phases: readonly Phase[]
  /** What was found, before anything is sent, that can't be. These peers keep what they have. */
  readonly failures: readonly PlanFailure[]
  /** Messages that it sends. */
  readonly operations: number
  /** SAs that two peers share, so that adding or removing one of the two takes no message. */
  readonly shares: number
}

export const phaseNames = [
  'guard',
  'decrypt',
  'encrypt',
  'select',
  'retire encryption',
  'retire decryption',
  'retire policies',
] as const
export type PhaseName = (typeof phaseNames)[number]

/** Operations of one phase: pairs [head, subject]. See {@link Op} for both. */
export interface Phase {
  readonly name: PhaseName
  readonly ops: Uint32Array
}

/** A failure and the peer's slot that it is about. */
export interface PlanFailure extends Failure {
  readonly peer: number
}

/**
 * Codes of operations. A head is the code and, above it, the slot of the key concerned (see {@link codeOf},
 * {@link keyOf}); the subject is a peer's slot, unless said otherwise.
 */
export const Op = {
  addInbound: 1,
  /** Claims an SA that another peer, whose SPI and key are the same, has already: no message. */
  shareInbound: 2,
  /** Gives an SA the peer's UDP port: the one thing about it that the kernel can change. */
  updateInbound: 3,
  deleteInbound: 4,
  /** Gives up a claim on an SA that another peer still has: no message. */
  unshareInbound: 5,
  addOutbound: 6,
  updateOutbound: 7,
  deleteOutbound: 8,
  /** A peer's own policy. The key is that whose SPI the template names. */
  addPolicy: 9,
  updatePolicy: 10,
  deletePolicy: 11,
  /** The subject is one of {@link SharedPolicy}. */
  addShared: 12,
  updateShared: 13,
  deleteShared: 14,
  /** The subject is where the record starts in `stale.states.records`. */
  deleteStaleState: 15,
  /** The subject is where the record starts in `stale.policies.records`. */
  deleteStalePolicy: 16,
} as const
export type OpCode = (typeof Op)[keyof typeof Op]

const opNames: Readonly<Record<OpCode, string>> = {
  [Op.addInbound]: 'add inbound SA',
  [Op.shareInbound]: 'share inbound SA',
  [Op.updateInbound]: 'update inbound SA',
  [Op.deleteInbound]: 'delete inbound SA',
  [Op.unshareInbound]: 'unshare inbound SA',
  [Op.addOutbound]: 'add outbound SA',
  [Op.updateOutbound]: 'update outbound SA',
  [Op.deleteOutbound]: 'delete outbound SA',
  [Op.addPolicy]: 'add policy',
  [Op.updatePolicy]: 'update policy',
  [Op.deletePolicy]: 'delete policy',
  [Op.addShared]: 'add policy',
  [Op.updateShared]: 'update policy',
  [Op.deleteShared]: 'delete policy',
  [Op.deleteStaleState]: 'delete stale SA',
  [Op.deleteStalePolicy]: 'delete stale policy',
}

export function opHead(code: OpCode, key: number): number {
  return code | (key << 8)
}

export function codeOf(head: number): OpCode {
  return (head & 0xff) as OpCode
}

/** Slot of the key that an operation is about. */
export function keyOf(head: number): number {
  return head >>> 8
}

/** In a set of failed peers: something failed that is about none. */
export const NO_PEER = -1

/** Whether it takes a message: the rest is book-keeping alone. */
export function hasMessage(code: OpCode): boolean {
  return code !== Op.shareInbound && code !== Op.unshareInbound
}

/** What the operation does, as reports name it: `add inbound SA`. */
export function opName(code: OpCode): string {
  return opNames[code]
}

/** Whether the subject is a peer's slot. */
export function concernsPeer(code: OpCode): boolean {
  return code <= Op.deletePolicy
}

/** Some records of a dump: `at` are their offsets in bytes. */
export interface RecordList {
  readonly records: Uint8Array
  readonly at: ArrayLike<number>
}

/** What is installed, as far as is known; {@link settle} keeps it so. */
export interface Is {
  /** Masks and policies of the peers, and their references, which are what should be. */
  readonly peers: PeerTable
  /** Claims of all inbound SAs installed: just those that the peers' inbound masks say. */
  readonly claims: SpiIndex
  /** Mask of {@link SharedPolicy} installed. */
  sharedPolicies: number
  /** VNIs guarded. */
  readonly networks: ReadonlySet<number>
}

/** What a look at the kernel found beside what is as it should be. */
export interface Damage {
  /**
   * SAs that should be and are, but other than they should be: by peer's slot, masks of key slots, which the peer's own
   * masks do not have. The kernel can't change these, so each is deleted right before it is added. Those that differ in
   * their ports alone are in the masks, and `installedPort` says it.
   */
  readonly states?: ReadonlyMap<number, { readonly inbound: number; readonly outbound: number }>
  /** Mask of {@link SharedPolicy} that are installed, but other than they should be. Peers' own: POLICY_DIFFERS. */
  readonly sharedPolicies?: number
  /** Objects of ours that should not be and no peer accounts for. */
  readonly stale?: { readonly states: RecordList; readonly policies: RecordList }
}

/** What should be, beside the peers' references. */
export interface Should {
  readonly form: Form
  readonly keyring: Keyring
  /** VNIs to guard. */
  readonly networks: ReadonlySet<number>
}

export interface Scope {
  /** Slots of the peers to plan for, each once; all if left out. The rest of the plan is always made. */
  readonly peers?: ArrayLike<number>
  readonly damage?: Damage
}

/** The plan that makes `is` what `should` be. */
export function plan(is: Is, should: Should, scope: Scope = {}): Plan {
  const planner = new Planner(is, should, scope)
  while (!planner.step(Number.MAX_SAFE_INTEGER));
  return planner.finish()
}

/**
 * Makes a plan in steps, for whoever has more to do than to wait for 100,000 peers. Between steps nothing of what was
 * given may change.
 */
export class Planner {
  readonly #is: Is
  readonly #should: Should
  readonly #scope: Scope
  readonly #phases: Record<PhaseName, Ops>
  readonly #failures: PlanFailure[] = []
  /** Claims that this plan adds. */
  readonly #adding = new SpiIndex()
  readonly #all: number
  readonly #primary: number
  readonly #mayShare: boolean
  #next = 0
  /** Peers looked at. */
  #looked = 0
  #shares = 0

  constructor(is: Is, should: Should, scope: Scope = {}) {
    this.#is = is
    this.#should = should
    this.#scope = scope
    this.#phases = Object.fromEntries(phaseNames.map((name) => [name, new Ops()])) as Record<PhaseName, Ops>
    this.#all = should.keyring.all
    this.#primary = should.keyring.primary
    this.#mayShare = mayShare(should.form)
  }

  /** Plans for up to that many peers more; true once there are no more. */
  step(peers: number): boolean {
    const listed = this.#scope.peers
    const table = this.#is.peers
    const end = listed?.length ?? table.end
    const stop = Math.min(end, this.#next + peers)
    for (; this.#next < stop; this.#next++) {
      const slot = listed?.[this.#next] ?? this.#next
      if (!table.has(slot)) continue
      this.#looked++
      this.#peer(slot)
    }
    return this.#next === end
  }

  /** The plan, once all steps are done. */
  finish(): Plan {
    const phases = this.#phases
    this.#sharedPolicies()
    const { stale } = this.#scope.damage ?? {}
    for (let i = 0; i < (stale?.states.at.length ?? 0); i++) {
      phases['retire decryption'].push(Op.deleteStaleState, stale!.states.at[i]!)
    }
    // Where the shared policy of phase 'guard' takes over, stale ones go before the SAs that they name: of two that match,
    // the kernel takes the older.
    const early = (sharedPolicies(this.#should.form) & SharedPolicy.out) !== 0
    for (let i = 0; i < (stale?.policies.at.length ?? 0); i++) {
      phases[early ? 'select' : 'retire policies'].push(Op.deleteStalePolicy, stale!.policies.at[i]!)
    }
    const networks = {
      add: missing(this.#should.networks, this.#is.networks),
      remove: missing(this.#is.networks, this.#should.networks),
    }
    const made = phaseNames.map((name) => ({ name, ops: phases[name].ops() }))
    const decryption = made[phaseNames.indexOf('retire decryption')]!.ops
    if (this.#is.claims.shared + this.#shares > 0) {
      const { claims } = this.#is
      this.#shares += unshare(decryption, this.#is, this.#should, (spi) => claims.count(spi) + this.#adding.count(spi))
    }
    const ops = made.reduce((sum, phase) => sum + phase.ops.length / 2, 0)
    return {
      networks,
      phases: made,
      failures: this.#failures,
      operations: ops - this.#shares,
      shares: this.#shares,
    }
  }

  #peer(slot: number): void {
    const { peers } = this.#is
    const phases = this.#phases
    const wanted = peers.references[slot]! > 0
    const inbound = peers.inbound[slot]!
    const outbound = peers.outbound[slot]!
    const policy = peers.policy[slot]!
    const decrypt = wanted ? this.#all : 0
    const encrypt = wanted && this.#primary >= 0 ? 1 << this.#primary : 0
    const select = encrypt !== 0 && this.#should.form.policies === 'per-peer' ? this.#primary + 1 : 0
    const turned = wanted && (inbound | outbound) !== 0 && peers.installedPort[slot] !== peers.port[slot]
    if (inbound >>> 0 === decrypt && outbound >>> 0 === encrypt >>> 0 && policy === select && !turned) return

    if (turned) this.#updatePorts(slot)
    let failed = 0
    for (let left = decrypt & ~inbound; left !== 0; left &= left - 1) {
      const key = lowest(left)
      if (!this.#addInbound(slot, key)) failed |= 1 << key
    }
    if ((encrypt & ~outbound & ~failed) !== 0 && !this.#addOutbound(slot, outbound)) failed |= encrypt
    if (select !== policy && select !== 0 && (failed & encrypt) === 0) {
      phases.select.push(opHead(policy === 0 ? Op.addPolicy : Op.updatePolicy, this.#primary), slot)
    }
    if (failed !== 0) return
    for (let left = outbound & ~encrypt; left !== 0; left &= left - 1) {
      phases['retire encryption'].push(opHead(Op.deleteOutbound, lowest(left)), slot)
    }
    for (let left = inbound & ~decrypt; left !== 0; left &= left - 1) {
      phases['retire decryption'].push(opHead(Op.deleteInbound, lowest(left)), slot)
    }
    if (select === 0 && policy !== 0) phases['retire policies'].push(Op.deletePolicy, slot)
  }

  #addInbound(slot: number, key: number): boolean {
    const { peers, claims } = this.#is
    const { form, keyring } = this.#should
    const spi = form.spis.reverse(keyring.tag(key), peers.bytes, slot * ADDRESS_BYTES)
    if (spi <= RESERVED_SPIS) return this.#reserved(slot, Op.addInbound, key, spi)
    let other = claims.first(spi)
    if (other < 0) other = this.#adding.first(spi)
    if (other < 0) {
      const differing = this.#scope.damage?.states?.get(slot)?.inbound ?? 0
      if (((differing >>> key) & 1) !== 0) this.#phases.decrypt.push(opHead(Op.deleteInbound, key), slot)
      this.#phases.decrypt.push(opHead(Op.addInbound, key), slot)
    } else {
      const otherKey = claimedKey(other)
      const equal = otherKey === key || keyring.key(otherKey).equals(keyring.key(key))
      if (!equal || !this.#mayShare) {
        const whose = `that of peer ${peers.text(claimant(other))} under key ${keyring.tag(otherKey)}`
        const why = equal ? 'replay protection cannot tell the two apart' : 'their keys differ'
        return this.#fail(
          slot,
          Op.addInbound,
          key,
          'ERR_XFRMESH_SPI_COLLISION',
          `${spiText(spi)} is also ${whose}, and ${why}`,
        )
      }
      this.#phases.decrypt.push(opHead(Op.shareInbound, key), slot)
      this.#shares++
    }
    this.#adding.add(spi, slot, key)
    return true
  }

  /** All SAs that it has, for what can't be replaced stays. One that is shared has the port of one of those who share it. */
  #updatePorts(slot: number): void {
    const { peers, claims } = this.#is
    const { form, keyring } = this.#should
    for (let left = peers.inbound[slot]!; left !== 0; left &= left - 1) {
      const key = lowest(left)
      const spi = form.spis.reverse(keyring.tag(key), peers.bytes, slot * ADDRESS_BYTES)
      if (claims.count(spi) === 1) this.#phases.decrypt.push(opHead(Op.updateInbound, key), slot)
    }
    for (let left = peers.outbound[slot]!; left !== 0; left &= left - 1) {
      this.#phases.encrypt.push(opHead(Op.updateOutbound, lowest(left)), slot)
    }
  }

  /** Adds the outbound SA of the primary, unless another key of this peer has its SPI: the kernel would see one SA. */
  #addOutbound(slot: number, outbound: number): boolean {
    const { peers } = this.#is
    const { form, keyring } = this.#should
    const key = this.#primary
    const at = slot * ADDRESS_BYTES
    const spi = form.spis.forward(keyring.tag(key), peers.bytes, at)
    if (spi <= RESERVED_SPIS) return this.#reserved(slot, Op.addOutbound, key, spi)
    for (let left = outbound; left !== 0; left &= left - 1) {
      const other = keyring.tag(lowest(left))
      if (form.spis.forward(other, peers.bytes, at) !== spi) continue
      const message = `${spiText(spi)} is also that of the same peer under key ${other}`
      return this.#fail(slot, Op.addOutbound, key, 'ERR_XFRMESH_SPI_COLLISION', message)
    }
    const differing = this.#scope.damage?.states?.get(slot)?.outbound ?? 0
    if (((differing >>> key) & 1) !== 0) this.#phases.encrypt.push(opHead(Op.deleteOutbound, key), slot)
    this.#phases.encrypt.push(opHead(Op.addOutbound, key), slot)
    return true
  }

  #reserved(slot: number, code: OpCode, key: number, spi: number): false {
    return this.#fail(slot, code, key, 'ERR_XFRMESH_SPI_RESERVED', `${spiText(spi)} is reserved`)
  }

  #fail(slot: number, code: OpCode, key: number, error: string, message: string): false {
    this.#failures.push({
      peer: slot,
      subject: this.#is.peers.text(slot),
      operation: opName(code),
      errno: 0,
      code: error,
      message: `${message}; under key ${this.#should.keyring.tag(key)} this peer cannot be had: rotate to a key with another tag`,
    })
    return false
  }

  #sharedPolicies(): void {
    const { form, networks } = this.#should
    const installed = this.#is.sharedPolicies
    const differing = this.#scope.damage?.sharedPolicies ?? 0
    const wanted = networks.size > 0 || this.#is.peers.wanted > 0 ? sharedPolicies(form) : 0
    // A peer that this plan is not for may still have what an earlier failure left: no policy goes from under it.
    const removes = this.#looked === this.#is.peers.size
    for (const policy of Object.values(SharedPolicy)) {
      if ((wanted & differing & policy) !== 0) this.#phases.guard.push(Op.updateShared, policy)
      else if ((wanted & ~installed & policy) !== 0) this.#phases.guard.push(Op.addShared, policy)
      else if (removes && ((installed | differing) & ~wanted & policy) !== 0) {
        this.#phases['retire policies'].push(Op.deleteShared, policy)
      }
    }
  }
}

/**
 * Notes the outcome of one operation in `is`. Outcomes are to be noted in the order of the operations.
 *
 * @param ok whether the kernel took it, or of a deletion: had nothing to delete. True for what has no message.
 * @returns whether it took effect: not if it failed, nor if it was to share an SA whose adding failed
 */
export function settle(is: Is, should: Should, head: number, subject: number, ok: boolean): boolean {
  if (!ok) return false
  const { peers, claims } = is
  const { form, keyring } = should
  const key = keyOf(head)
  const code = codeOf(head)
  switch (code) {
    case Op.addInbound:
    case Op.shareInbound: {
      const spi = form.spis.reverse(keyring.tag(key), peers.bytes, subject * ADDRESS_BYTES)
      if (code === Op.shareInbound && claims.first(spi) < 0) return false
      peers.inbound[subject]! |= 1 << key
      claims.add(spi, subject, key)
      return true
    }
    case Op.deleteInbound:
    case Op.unshareInbound:
      peers.inbound[subject]! &= ~(1 << key)
      claims.remove(form.spis.reverse(keyring.tag(key), peers.bytes, subject * ADDRESS_BYTES), subject, key)
      return true
    case Op.updateInbound:
      return true
    case Op.addOutbound:
      // Others that it has are updated where their port is not this one.
      if (peers.outbound[subject] === 0) peers.installedPort[subject] = peers.port[subject]!
      peers.outbound[subject]! |= 1 << key
      return true
    case Op.updateOutbound:
      // The last of a peer's, and only if none before it failed.
      peers.installedPort[subject] = peers.port[subject]!
      return true
    case Op.deleteOutbound:
      peers.outbound[subject]! &= ~(1 << key)
      return true
    case Op.addPolicy:
    case Op.updatePolicy:
      peers.policy[subject] = key + 1
      return true
    case Op.deletePolicy:
      peers.policy[subject] = 0
      return true
    case Op.addShared:
    case Op.updateShared:
      is.sharedPolicies |= subject
      return true
    case Op.deleteShared:
      is.sharedPolicies &= ~subject
      return true
    case Op.deleteStaleState:
    case Op.deleteStalePolicy:
      return true
  }
}

/**
 * A phase without the operations of peers that failed. While anything failed, no shared policy goes either: what was
 * kept is still under it. An SA that a failed peer keeps is not deleted under another's name.
 *
 * @param failed slots of the peers for whom an operation failed so far (those in the plan's own failures are taken care
 *   of already), and {@link NO_PEER} if one failed that is about no peer
 */
export function without(phase: Phase, failed: ReadonlySet<number>, is: Is, should: Should): Phase {
  if (failed.size === 0) return phase
  const kept = new Ops()
  for (let i = 0; i < phase.ops.length; i += 2) {
    const head = phase.ops[i]!
    const subject = phase.ops[i + 1]!
    const code = codeOf(head)
    if (code === Op.deleteShared || (concernsPeer(code) && failed.has(subject))) continue
    kept.push(head, subject)
  }
  const ops = kept.ops()
  if (phase.name === 'retire decryption' && is.claims.shared > 0)
    unshare(ops, is, should, (spi) => is.claims.count(spi))
  return { name: phase.name, ops }
}

/**
 * Of the removals of inbound SAs among `ops`, makes those of an SA that several claim give up claims, but the last one
 * of them, if all claims go, delete it.
 *
 * @returns how many give up claims
 */
function unshare(ops: Uint32Array, is: Is, should: Should, count: (spi: number) => number): number {
  const { form, keyring } = should
  const remaining = new Map<number, number>()
  const removals: [at: number, spi: number][] = []
  for (let i = 0; i < ops.length; i += 2) {
    const head = ops[i]!
    if (codeOf(head) !== Op.deleteInbound && codeOf(head) !== Op.unshareInbound) continue
    const spi = form.spis.reverse(keyring.tag(keyOf(head)), is.peers.bytes, ops[i + 1]! * ADDRESS_BYTES)
    const claims = remaining.get(spi) ?? count(spi)
    if (claims < 2 && !remaining.has(spi)) continue
    remaining.set(spi, claims - 1)
    removals.push([i, spi])
  }
  let given = 0
  removals.forEach(([at, spi], i) => {
    const last = remaining.get(spi) === 0 && removals.slice(i + 1).every((later) => later[1] !== spi)
    ops[at] = opHead(last ? Op.deleteInbound : Op.unshareInbound, keyOf(ops[at]!))
    if (!last) given++
  })
  return given
}

/** One step of a plan, as a dry run shows it: plain JSON. */
export interface Step {
  phase: PhaseName | 'unguard'
  operation: string
  /** A peer's address, `vni 4096`, or the addresses of an object that no peer accounts for. */
  subject: string
  spi?: number
  tag?: number
  /** UDP port of the peer's that an updated SA gets. */
  port?: number
  network?: number
}

/** The steps of a plan, in order, one by one: there may be a great many. */
export function* describe(made: Plan, is: Is, should: Should, damage: Damage = {}): Generator<Step> {
  for (const network of made.networks.add) {
    yield { phase: 'guard', operation: 'add network', subject: `vni ${network}`, network }
  }
  for (const { name, ops } of made.phases) {
    for (let i = 0; i < ops.length; i += 2) yield describeOp(name, ops[i]!, ops[i + 1]!, is, should, damage)
  }
  for (const network of made.networks.remove) {
    yield { phase: 'unguard', operation: 'remove network', subject: `vni ${network}`, network }
  }
}

/** One operation of a phase. */
export function describeOp(
  phase: PhaseName,
  head: number,
  subject: number,
  is: Is,
  should: Should,
  damage: Damage = {},
): Step {
  const { form, keyring } = should
  const code = codeOf(head)
  const step = { phase, operation: opName(code) }
  switch (code) {
    case Op.addShared:
    case Op.updateShared:
    case Op.deleteShared: {
      const from = form.exclusive ? 'any' : form.local.text
      const isOut = subject === SharedPolicy.out || subject === SharedPolicy.rest
      const direction = isOut ? `out, ${from}` : subject === SharedPolicy.in ? 'in, any' : 'through, any'
      return { ...step, subject: `${direction} to any` }
    }
    case Op.deleteStaleState: {
      const { records } = damage.stale!.states
      const spi = new DataView(records.buffer, records.byteOffset).getUint32(subject + State.spi, LITTLE_ENDIAN)
      return { ...step, subject: addressesOf(records, subject), spi }
    }
    case Op.deleteStalePolicy:
      return { ...step, subject: addressesOf(damage.stale!.policies.records, subject) }
    case Op.deletePolicy:
      return { ...step, subject: is.peers.text(subject) }
    default: {
      const tag = keyring.tag(keyOf(head))
      const inbound = code <= Op.unshareInbound
      const spi = form.spis[inbound ? 'reverse' : 'forward'](tag, is.peers.bytes, subject * ADDRESS_BYTES)
      const isUpdate = code === Op.updateInbound || code === Op.updateOutbound
      return { ...step, subject: is.peers.text(subject), spi, tag, ...(isUpdate && { port: is.peers.port[subject]! }) }
    }
  }
}

/** `source to destination` of a state or policy; they are at the same offsets in both. */
function addressesOf(records: Uint8Array, at: number): string {
  const family = records[at + Policy.family]!
  const text = (offset: number) => formatAddress(records, at + offset, family)
  return `${text(Policy.source)} to ${text(Policy.destination)}`
}

function spiText(spi: number): string {
  return `SPI 0x${spi.toString(16).padStart(8, '0')}`
}

function missing(from: ReadonlySet<number>, there: ReadonlySet<number>): number[] {
  const out: number[] = []
  for (const network of from) if (!there.has(network)) out.push(network)
  return out
}

/** Index of the lowest bit set. */
function lowest(mask: number): number {
  return 31 - Math.clz32(mask & -mask)
}

/** Pairs that grow. */
class Ops {
  #words = new Uint32Array(64)
  #length = 0

  push(head: number, subject: number): void {
    if (this.#length === this.#words.length) {
      const words = new Uint32Array(this.#length * 2)
      words.set(this.#words)
      this.#words = words
    }
    this.#words[this.#length++] = head
    this.#words[this.#length++] = subject
  }

  ops(): Uint32Array {
    return this.#words.subarray(0, this.#length)
  }
}
