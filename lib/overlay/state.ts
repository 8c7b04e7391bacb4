import type { Form } from './form.js'
import type { Keyring } from './keyring.js'
import type { PeerTable } from './peers.js'
import type { SpiIndex } from './spi-index.js'
import type { VniSet } from './vni-set.js'

/** What is, what should be, and what a look at the kernel found to be neither: what plans are made from. */

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
  readonly networks: VniSet
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
  readonly networks: VniSet
}
