import { native, type NativeLedger, type NativeSlices } from '../native.js'

/**
 * What masquerading keeps in C++ (native/masquerade): attachments that a call is about, what the table holds, and changes to
 * it. Jobs on the thread of an Nft's socket work on them: `Nft.run`.
 */

export {
  DraftChange,
  DraftKind,
  type NativeDraft,
  type NativeDrafted,
  type NativeGroups,
  type NativeLedger,
  type NativeSlices,
} from '../native.js'

export function newSlices(): NativeSlices {
  return native.newSlices()
}

/**
 * @param owners of elements, 16 bytes each, as their `addresses` are; `subnets` as native/masquerade/subnet.h has them,
 *   `comments` in slots
 * @param ruleOwners of rules, whose `handles` come beside
 */
export function newLedger(
  owners: Uint8Array,
  addresses: Uint8Array,
  subnets: Uint8Array,
  comments: Uint8Array,
  ruleOwners: Uint8Array,
  handles: Float64Array,
): NativeLedger {
  return native.newLedger(owners, addresses, subnets, comments, ruleOwners, handles)
}
