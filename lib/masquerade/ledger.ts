import type { Family } from '../base/address.js'
import type { NativeLedger } from '../kernel/mappings.js'

/** What the table holds: what a change is planned from. */
export interface Ledger {
  /** Its mappings. */
  readonly mappings: NativeLedger
  /** Families whose map is there. */
  readonly maps: Set<Family>
  /** Handles of the rules that look addresses up in those maps. */
  readonly mapRules: Map<Family, number>
}
