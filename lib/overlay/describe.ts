import { formatAddress } from '../base/address.js'
import { u32 } from '../kernel/record-identity.js'
import { Policy, State } from '../kernel/records.js'
import { SharedPolicy } from './form.js'
import { codeOf, keyOf, Op, opName, OP_WORDS, type PhaseName } from './ops.js'
import type { Plan } from './plan.js'
import type { Damage, Is, Should } from './state.js'

/** One step of a plan, as a dry run shows it: plain JSON. */
export interface Step {
  phase: PhaseName | 'unguard' | 'endpoints'
  operation: string
  /**
   * A peer's address, `vni 4096`, the addresses of an object that no peer accounts for, or an entry of a link with endpoints:
   * `vx4096: 02:42:0a:00:00:05 to 192.0.2.9`.
   */
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
    for (let i = 0; i < ops.length; i += OP_WORDS) {
      yield describeOp(name, ops[i]!, ops[i + 1]!, ops[i + 2]!, is, should, damage)
    }
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
  spi: number,
  is: Is,
  should: Should,
  damage: Damage = {},
): Step {
  const { form, keyring } = should
  const code = codeOf(head)
  const operation = opName(code)
  switch (code) {
    case Op.addShared:
    case Op.updateShared:
    case Op.deleteShared: {
      const from = form.exclusive ? 'any' : form.local.text
      const isOut = subject === SharedPolicy.out || subject === SharedPolicy.rest
      const direction = isOut ? `out, ${from}` : subject === SharedPolicy.in ? 'in, any' : 'through, any'
      return { phase, operation, subject: `${direction} to any` }
    }
    case Op.deleteStaleState: {
      const { records } = damage.stale!.states
      return { phase, operation, subject: addressesOf(records, subject), spi: u32(records, subject + State.spi) }
    }
    case Op.deleteStalePolicy:
      return { phase, operation, subject: addressesOf(damage.stale!.policies.records, subject) }
    case Op.deletePolicy:
      return { phase, operation, subject: is.peers.text(subject) }
    default: {
      const [peer, tag] = [is.peers.text(subject), keyring.tag(keyOf(head))]
      if (code !== Op.updateInbound && code !== Op.updateOutbound) return { phase, operation, subject: peer, spi, tag }
      return { phase, operation, subject: peer, spi, tag, port: is.peers.port[subject]! }
    }
  }
}

/** `source to destination` of a state or policy; they are at the same offsets in both. */
function addressesOf(records: Uint8Array, at: number): string {
  const family = records[at + Policy.family]!
  const text = (offset: number) => formatAddress(records, at + offset, family)
  return `${text(Policy.source)} to ${text(Policy.destination)}`
}
