import { recordAt, sameIdentity, startsOf } from '../kernel/record-identity.js'
import { NetlinkError } from '../base/errors.js'
import type { Query, XfrmChannel } from '../kernel/xfrm-channel.js'

/** The SAD and SPD as a NodeEncryption needs them. */
export type XfrmPort = Pick<
  XfrmChannel,
  'chunk' | 'commit' | 'read' | 'readFile' | 'readNetFile' | 'writeFile' | 'close'
>

type Dump = Awaited<ReturnType<XfrmChannel['read']>>

/** Reads the object that a record names; undefined if there is none. The kernel may show one whose mark overlaps. */
export async function readOne(xfrm: XfrmPort, query: Query & { one: Uint8Array }): Promise<Dump | undefined> {
  try {
    return await xfrm.read(query)
  } catch (error) {
    if (error instanceof NetlinkError && absence.has(error.errno)) return undefined
    throw error
  }
}

/** ENOENT of a policy, ESRCH of a state. */
const absence: ReadonlySet<number> = new Set([2, 3])

/** What the kernel has in the places of some policies. */
export async function inPlacesOf(policies: Uint8Array, xfrm: XfrmPort): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  for (const at of startsOf(policies)) {
    const one = recordAt(policies, at)
    const query = { policies: true, one, reqid: 0, details: false, keys: [], algorithms: [] }
    const found = await readOne(xfrm, query)
    // Asked for a mark, the kernel may show a policy of another.
    if (found !== undefined && sameIdentity(found.records, 0, one, 0)) parts.push(found.records)
  }
  return new Uint8Array(Buffer.concat(parts))
}
