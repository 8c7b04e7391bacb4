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

export function newLedger(...columns: Parameters<typeof native.newLedger>): NativeLedger {
  return native.newLedger(...columns)
}
