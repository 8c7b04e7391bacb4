import type { Address } from '../base/address.js'
import type { SpiDeriver } from './spi.js'
import type { Suite } from './suites.js'

/** What all objects of an Overlay have in common: its options, checked. */
export interface Form {
  /** Address of this node in the outer headers. */
  readonly local: Address
  /** SPIs between the address that this node is known by and its peers'. */
  readonly spis: SpiDeriver
  /** UDP port of VXLAN. */
  readonly port: number
  /** What is ours: reqid of SAs and templates, and mark of policies unless `exclusive`. */
  readonly mark: number
  readonly suite: Suite
  /** Extended sequence numbers; they need a replay window. */
  readonly esn: boolean
  /** Packets; 0 is no replay protection. */
  readonly replayWindow: number
  /** UDP port of this node in which ESP comes and goes (RFC 3948); 0: ESP without UDP. */
  readonly natPort: number
  readonly policies: 'shared' | 'per-peer'
  /** Whether all of the port is encrypted, enforced by policies without a mark, out and in. */
  readonly exclusive: boolean
}

/**
 * Policies that are not a peer's own, as bits of a mask. Each is for the VXLAN port, demands SAs with our reqid, whatever
 * their addresses and SPI, and fails closed where there is none.
 */
export const SharedPolicy = {
  /** From here to anywhere; with `exclusive` from anywhere: a second address of this node must be no way out. */
  out: 1,
  /** From anywhere to any address of this node; with `exclusive` alone. */
  in: 2,
  /** As `out`, but after the peers' own: what leaves for an address that is no peer. With `exclusive` and 'per-peer'. */
  rest: 4,
  /**
   * From anywhere through here to anywhere; with `exclusive` alone. Else a stranger's packet that is routed through here
   * would leave encrypted, as this node's.
   */
  through: 8,
} as const

/** Which shared policies there are once there is anything to protect. */
export function sharedPolicies(form: Form): number {
  const out = form.policies === 'shared' ? SharedPolicy.out : form.exclusive ? SharedPolicy.rest : 0
  return out | (form.exclusive ? SharedPolicy.in | SharedPolicy.through : 0)
}

/** Whether one SA can serve two peers: without replay protection it has no state that theirs would mix up. */
export function mayShare(form: Form): boolean {
  return form.replayWindow === 0 && !form.esn
}
