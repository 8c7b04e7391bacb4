import { giveBack, takeBuffer } from '../kernel/record-buffers.js'

/** What a plan is made of: operations, each three words, and the phases that they come in. */

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

/** Operations of one phase, one after the other, {@link OP_WORDS} words each: see {@link Op}. */
export interface Phase {
  readonly name: PhaseName
  readonly ops: Uint32Array
}

/** An operation's words: head, subject, SPI. */
export const OP_WORDS = 3

/**
 * Codes of operations. A head is the code and, above it, the slot of the key concerned (see {@link codeOf},
 * {@link keyOf}); the subject is a peer's slot, unless said otherwise; the SPI is
 * that of the SA, or of the template of a peer's own policy; of anything else 0.
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

/** Whether it takes an object of the kernel's away. */
export function isDeletion(code: OpCode): boolean {
  switch (code) {
    case Op.deleteInbound:
    case Op.deleteOutbound:
    case Op.deletePolicy:
    case Op.deleteShared:
    case Op.deleteStaleState:
    case Op.deleteStalePolicy:
      return true
    default:
      return false
  }
}

/** Whether it changes an object of the kernel's in place. */
export function isUpdate(code: OpCode): boolean {
  return code === Op.updateInbound || code === Op.updateOutbound || code === Op.updatePolicy || code === Op.updateShared
}

/** How many of these operations make an object of the kernel's. */
export function additionsOf(ops: Uint32Array): number {
  let additions = 0
  for (let i = 0; i < ops.length; i += OP_WORDS) {
    const code = codeOf(ops[i]!)
    if (hasMessage(code) && !isDeletion(code) && !isUpdate(code)) additions++
  }
  return additions
}

/** What the operation does, as reports name it: `add inbound SA`. */
export function opName(code: OpCode): string {
  return opNames[code]
}

/** Whether the subject is a peer's slot. */
export function concernsPeer(code: OpCode): boolean {
  return code <= Op.deletePolicy
}

/** Bytes of a first buffer: 85 operations. */
const FIRST = 1024

const none = new Uint32Array()

/** Operations, as many as come, in memory that was written in before: {@link releaseOps} gives it back. */
export class Ops {
  #words: Uint32Array = none
  #length = 0

  push(head: number, subject: number, spi: number): void {
    if (this.#length + OP_WORDS > this.#words.length) this.#grow()
    this.#words[this.#length++] = head
    this.#words[this.#length++] = subject
    this.#words[this.#length++] = spi
  }

  ops(): Uint32Array {
    return this.#words.subarray(0, this.#length)
  }

  #grow(): void {
    const before = this.ops()
    this.#words = new Uint32Array(takeBuffer(Math.max(FIRST, 2 * before.byteLength)).buffer)
    this.#words.set(before)
    releaseOps(before)
  }
}

/** Nobody reads these any more. */
export function releaseOps(ops: Uint32Array): void {
  giveBack(new Uint8Array(ops.buffer, 0, ops.byteLength))
}
