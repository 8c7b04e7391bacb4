import { ADDRESS_BYTES } from '../base/address.js'
import type { Failure } from '../base/errors.js'
import { mayShare, sharedPolicies, SharedPolicy } from './form.js'
import { Op, type OpCode, opHead, opName, Ops, OP_WORDS, type Phase, type PhaseName, phaseNames } from './ops.js'
import { unshare } from './settle.js'
import { claimant, claimedKey, SpiIndex } from './spi-index.js'
import { RESERVED_SPIS } from './spi.js'
import type { Damage, Is, Should } from './state.js'
import type { VniSet } from './vni-set.js'

/**
 * What makes what is what should be: a value, made without touching anything.
 *
 * Phases come in an order that never breaks what works: all that decrypts is added, then what encrypts, then policies
 * turn to it; only then is the old removed, what encrypts first. Another port is given to what encrypts before what
 * decrypts: until that has it too, the kernel tells again where packets come from, whatever failed before.
 *
 * Whoever carries a plan out does phase after phase, a phase's operations in order; calls {@link settle} for each
 * operation's outcome, in order; and before each phase takes out of it, by {@link without}, the peers for whom an
 * operation failed: they keep what they have. If any of phase 'guard' fails, nothing may follow.
 */
export interface Plan {
  /** VNIs to guard before phase 'guard', and to guard no more after the last phase. */
  readonly networks: { readonly add: VniSet; readonly remove: VniSet }
  readonly phases: readonly Phase[]
  /** What was found, before anything is sent, that can't be. These peers keep what they have. */
  readonly failures: readonly PlanFailure[]
  /** Messages that it sends. */
  readonly operations: number
  /** SAs that two peers share, so that adding or removing one of the two takes no message. */
  readonly shares: number
}

/** A failure and the peer's slot that it is about. */
export interface PlanFailure extends Failure {
  readonly peer: number
}

export interface Scope {
  /** Slots of the peers to plan for, each once; all if left out. The rest of the plan is always made. */
  readonly peers?: ArrayLike<number>
  /** How networks differ, where that is known already. */
  readonly networks?: Plan['networks']
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

  get #end(): number {
    return this.#scope.peers?.length ?? this.#is.peers.end
  }

  /** Plans for up to that many peers more; true once there are no more. */
  step(peers: number): boolean {
    const listed = this.#scope.peers
    const table = this.#is.peers
    const stop = Math.min(this.#end, this.#next + peers)
    for (; this.#next < stop; this.#next++) {
      const slot = listed?.[this.#next] ?? this.#next
      if (!table.has(slot)) continue
      this.#looked++
      this.#peer(slot)
    }
    return this.#next === this.#end
  }

  /** The plan, once all steps are done. */
  finish(): Plan {
    const phases = this.#phases
    this.#sharedPolicies()
    const { stale } = this.#scope.damage ?? {}
    for (let i = 0; i < (stale?.states.at.length ?? 0); i++) {
      phases['retire decryption'].push(Op.deleteStaleState, stale!.states.at[i]!, 0)
    }
    // Where the shared policy of phase 'guard' takes over, stale ones go before the SAs that they name: of two that match,
    // the kernel takes the older.
    const early = (sharedPolicies(this.#should.form) & SharedPolicy.out) !== 0
    for (let i = 0; i < (stale?.policies.at.length ?? 0); i++) {
      phases[early ? 'select' : 'retire policies'].push(Op.deleteStalePolicy, stale!.policies.at[i]!, 0)
    }
    const networks = this.#scope.networks ?? {
      add: this.#should.networks.minus(this.#is.networks),
      remove: this.#is.networks.minus(this.#should.networks),
    }
    const made = phaseNames.map((name) => ({ name, ops: phases[name].ops() }))
    const decryption = made[phaseNames.indexOf('retire decryption')]!.ops
    if (this.#is.claims.shared + this.#shares > 0) {
      const { claims } = this.#is
      this.#shares += unshare(decryption, (spi) => claims.count(spi) + this.#adding.count(spi))
    }
    this.#adding.release()
    const ops = made.reduce((sum, phase) => sum + phase.ops.length / OP_WORDS, 0)
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
      const code = policy === 0 ? Op.addPolicy : Op.updatePolicy
      phases.select.push(opHead(code, this.#primary), slot, this.#forward(slot, this.#primary))
    }
    if (failed !== 0) return
    for (let left = outbound & ~encrypt; left !== 0; left &= left - 1) {
      const key = lowest(left)
      phases['retire encryption'].push(opHead(Op.deleteOutbound, key), slot, this.#forward(slot, key))
    }
    for (let left = inbound & ~decrypt; left !== 0; left &= left - 1) {
      const key = lowest(left)
      phases['retire decryption'].push(opHead(Op.deleteInbound, key), slot, this.#reverse(slot, key))
    }
    if (select === 0 && policy !== 0) phases['retire policies'].push(Op.deletePolicy, slot, 0)
  }

  #addInbound(slot: number, key: number): boolean {
    const { peers, claims } = this.#is
    const { keyring } = this.#should
    const spi = this.#reverse(slot, key)
    if (spi <= RESERVED_SPIS) return this.#reserved(slot, Op.addInbound, key, spi)
    let other = claims.first(spi)
    if (other < 0) other = this.#adding.first(spi)
    if (other < 0) {
      const differing = this.#scope.damage?.states?.get(slot)?.inbound ?? 0
      if (((differing >>> key) & 1) !== 0) this.#phases.decrypt.push(opHead(Op.deleteInbound, key), slot, spi)
      this.#phases.decrypt.push(opHead(Op.addInbound, key), slot, spi)
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
      this.#phases.decrypt.push(opHead(Op.shareInbound, key), slot, spi)
      this.#shares++
    }
    if (this.#adding.size === 0) this.#adding.reserve((this.#end - this.#next) * this.#should.keyring.size)
    this.#adding.add(spi, slot, key)
    return true
  }

  /** All SAs that it has, for what can't be replaced stays. One that is shared has the port of one of those who share it. */
  #updatePorts(slot: number): void {
    const { peers, claims } = this.#is
    for (let left = peers.outbound[slot]!; left !== 0; left &= left - 1) {
      const key = lowest(left)
      this.#phases.encrypt.push(opHead(Op.updateOutbound, key), slot, this.#forward(slot, key))
    }
    for (let left = peers.inbound[slot]!; left !== 0; left &= left - 1) {
      const key = lowest(left)
      const spi = this.#reverse(slot, key)
      if (claims.count(spi) === 1) this.#phases.select.push(opHead(Op.updateInbound, key), slot, spi)
    }
  }

  /** Adds the outbound SA of the primary, unless another key of this peer has its SPI: the kernel would see one SA. */
  #addOutbound(slot: number, outbound: number): boolean {
    const key = this.#primary
    const spi = this.#forward(slot, key)
    if (spi <= RESERVED_SPIS) return this.#reserved(slot, Op.addOutbound, key, spi)
    for (let left = outbound; left !== 0; left &= left - 1) {
      const other = lowest(left)
      if (this.#forward(slot, other) !== spi) continue
      const message = `${spiText(spi)} is also that of the same peer under key ${this.#should.keyring.tag(other)}`
      return this.#fail(slot, Op.addOutbound, key, 'ERR_XFRMESH_SPI_COLLISION', message)
    }
    const differing = this.#scope.damage?.states?.get(slot)?.outbound ?? 0
    if (((differing >>> key) & 1) !== 0) this.#phases.encrypt.push(opHead(Op.deleteOutbound, key), slot, spi)
    this.#phases.encrypt.push(opHead(Op.addOutbound, key), slot, spi)
    return true
  }

  /** SPI of the SA that leads from the peer to here. */
  #reverse(slot: number, key: number): number {
    const { form, keyring } = this.#should
    return form.spis.reverse(keyring.tag(key), this.#is.peers.bytes, slot * ADDRESS_BYTES)
  }

  /** SPI of the SA that leads from here to the peer. */
  #forward(slot: number, key: number): number {
    const { form, keyring } = this.#should
    return form.spis.forward(keyring.tag(key), this.#is.peers.bytes, slot * ADDRESS_BYTES)
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
      if ((wanted & differing & policy) !== 0) this.#phases.guard.push(Op.updateShared, policy, 0)
      else if ((wanted & ~installed & policy) !== 0) this.#phases.guard.push(Op.addShared, policy, 0)
      else if (removes && ((installed | differing) & ~wanted & policy) !== 0) {
        this.#phases['retire policies'].push(Op.deleteShared, policy, 0)
      }
    }
  }
}
function spiText(spi: number): string {
  return `SPI 0x${spi.toString(16).padStart(8, '0')}`
}

/** Index of the lowest bit set. */
function lowest(mask: number): number {
  return 31 - Math.clz32(mask & -mask)
}
