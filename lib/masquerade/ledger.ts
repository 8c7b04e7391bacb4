import type { Family } from '../base/address.js'
import { newLedger, type NativeLedger } from '../kernel/mappings.js'

/** What the table holds: what a change is planned from. */
export interface Ledger {
  /** Its mappings. */
  readonly mappings: NativeLedger
  /** Families whose map is there. */
  readonly maps: Set<Family>
  /** Handles of the rules that look addresses up in those maps. */
  readonly mapRules: Map<Family, number>
}

/** Of a table that is not there. */
export function emptyLedger(): Ledger {
  const none = new Uint8Array()
  return { mappings: newLedger(none, none, none, none, none, new Float64Array()), maps: new Set(), mapRules: new Map() }
}
