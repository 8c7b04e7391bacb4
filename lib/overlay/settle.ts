import { codeOf, concernsPeer, keyOf, Op, opHead, Ops, OP_WORDS, type Phase } from './ops.js'
import { claimant } from './spi-index.js'
import type { Is } from './state.js'

/** What becomes of a plan's operations once they are carried out, or can't be. */

/**
 * Notes the outcome of one operation in `is`. Outcomes are to be noted in the order of the operations.
 *
 * @param ok whether the kernel took it, or of a deletion: had nothing to delete. True for what has no message.
 * @returns whether it took effect: not if it failed, nor if it was to share an SA whose adding failed
 */
export function settle(is: Is, head: number, subject: number, spi: number, ok: boolean): boolean {
  const { peers, claims } = is
  const key = keyOf(head)
  const code = codeOf(head)
  if (!ok) {
    if (code === Op.updateInbound || code === Op.updateOutbound) peers.installedPort[subject] = 0
    return false
  }
  switch (code) {
    case Op.addInbound:
    case Op.shareInbound:
      if (code === Op.shareInbound && claims.first(spi) < 0) return false
      peers.inbound[subject]! |= 1 << key
      claims.add(spi, subject, key)
      return true
    case Op.deleteInbound:
    case Op.unshareInbound:
      peers.inbound[subject]! &= ~(1 << key)
      claims.remove(spi, subject, key)
      // It may have had the ports of the one that goes.
      if (code === Op.unshareInbound && claims.count(spi) === 1) peers.installedPort[claimant(claims.first(spi))] = 0
      return true
    case Op.updateInbound:
      return true
    case Op.addOutbound:
      // Others that it has are updated where their port is not this one.
      if (peers.outbound[subject] === 0) peers.installedPort[subject] = peers.port[subject]!
      peers.outbound[subject]! |= 1 << key
      return true
    case Op.updateOutbound:
      // The first of a peer's says so, and any after it that fails takes it back.
      if ((peers.outbound[subject]! & ((1 << key) - 1)) === 0) peers.installedPort[subject] = peers.port[subject]!
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
 * What a plan that is broken off would still have done is not done: SAs of a peer may have different ports then.
 */
export function giveUp(phases: readonly Phase[], is: Is): void {
  for (const { ops } of phases) {
    for (let i = 0; i < ops.length; i += OP_WORDS) settle(is, ops[i]!, ops[i + 1]!, ops[i + 2]!, false)
  }
}

/**
 * A phase without the operations of peers that failed, which count as failed too. While anything failed, no shared policy goes either: what was
 * kept is still under it. An SA that a failed peer keeps is not deleted under another's name.
 *
 * @param failed slots of the peers for whom an operation failed so far (those in the plan's own failures are taken care
 *   of already), and {@link NO_PEER} if one failed that is about no peer
 */
export function without(phase: Phase, failed: ReadonlySet<number>, is: Is): Phase {
  if (failed.size === 0) return phase
  const kept = new Ops()
  for (let i = 0; i < phase.ops.length; i += OP_WORDS) {
    const head = phase.ops[i]!
    const subject = phase.ops[i + 1]!
    const code = codeOf(head)
    if (code === Op.deleteShared) continue
    if (concernsPeer(code) && failed.has(subject)) settle(is, head, subject, phase.ops[i + 2]!, false)
    else kept.push(head, subject, phase.ops[i + 2]!)
  }
  const ops = kept.ops()
  if (phase.name === 'retire decryption' && is.claims.shared > 0) unshare(ops, (spi) => is.claims.count(spi))
  return { name: phase.name, ops }
}

/**
 * Of the removals of inbound SAs among `ops`, makes those of an SA that several claim give up claims, but the last one
 * of them, if all claims go, delete it.
 *
 * @returns how many give up claims
 */
export function unshare(ops: Uint32Array, count: (spi: number) => number): number {
  const remaining = new Map<number, number>()
  const removals: [at: number, spi: number][] = []
  for (let i = 0; i < ops.length; i += OP_WORDS) {
    const head = ops[i]!
    if (codeOf(head) !== Op.deleteInbound && codeOf(head) !== Op.unshareInbound) continue
    const spi = ops[i + 2]!
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
