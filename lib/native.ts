import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { Unsupported, XfrmeshError } from './base/errors.js'

/**
 * The one door to the addon. Its functions trust their arguments: whoever calls them has checked them. A buffer given to
 * a call is the addon's until its promise settles.
 */

/** Netlink families (linux/netlink.h). */
export const NETLINK_ROUTE = 0
export const NETLINK_XFRM = 6
export const NETLINK_NETFILTER = 12

/** How a job on a socket ended. */
export const Ending = { complete: 0, cancelled: 1, late: 2, closed: 3, failed: 4 } as const

export interface NativeOutcome {
  /** One of {@link Ending}. */
  ending: number
  /** With `failed`: what the socket itself said. */
  errno: number
  /** Operations handed to the kernel whose outcome is known: the first `sent` of the batch. */
  sent: number
  /** Operations after these that were handed to it too, of which nothing is known; only with `failed`. The rest never left. */
  unknown: number
  /** Triples: index of the operation, errno, index of its sentence in `messages` or 0xffffffff for none. */
  failures: Uint32Array
  /** The kernel's sentences, each once. */
  messages: string[]
  /** sendmsg calls made. */
  sends: number
  /** Operations whose answer was lost (ENOBUFS) and whose outcome was read back from the kernel. */
  readBack: number
}

export interface NativeTransacted extends NativeOutcome {
  /** For each failure: which of the set elements in its record it is about, or 0xffffffff. */
  elements: Uint32Array
  /** With echo, once all is done and said: the handle of what each record made, 0 where that is nothing new. */
  handles?: Float64Array
}

export interface NativeRecords {
  records: Uint8Array
  /** Raw key bytes: wrap them at once. The first are those that were passed in. */
  keys: Uint8Array[]
  algorithms: string[]
}

export interface NativeDump extends NativeRecords {
  ending: number
  errno: number
  message: string | undefined
}

/** Events as records: native/record.h. */
export interface NativeEvents extends NativeRecords {
  ending: number
  errno: number
}

export interface NativeNeighbours {
  ending: number
  errno: number
  message: string | undefined
  records: Uint8Array
}

export interface NativeReply {
  ending: number
  errno: number
  message: string | undefined
  /** The messages that came back, each a whole struct nlmsghdr with payload, padded to four bytes. */
  messages: Uint8Array
}

export interface SocketOptions {
  protocol: number
  /** A path, an open descriptor, undefined for the process's own namespace, or an open socket: the one that was meant there. */
  netns: string | number | undefined | NativeSocket
  /** Bytes to ask for; what is granted decides the size of chunks. 0: as much as serves. */
  receiveBuffer: number
  /** Bytes to ask for: the most that one send can hold. 0: as much as serves. */
  sendBuffer: number
  /** Most messages in one send; 0: what was measured best. */
  chunk: number
}

/** A netlink socket with a native thread of its own. Jobs run in the order made. */
export interface NativeSocket {
  /** Messages that one send holds at most, after what was granted. Known once open() resolved. */
  readonly chunk: number
  /** Largest send in bytes. */
  readonly sendLimit: number
  /** The inode of the network namespace that the socket is in. */
  readonly namespaceInode: number
  /** Rejects with an Error that has `errno` and `step` ('namespace', 'socket', 'bind'). */
  open(job: number): Promise<void>
  /** Commits records of the socket's own kind: of neighbours where it is NETLINK_ROUTE, which need no keys and names. */
  commit(
    job: number,
    records: Uint8Array,
    keys: readonly Uint8Array[],
    algorithms: readonly string[],
    timeoutMs: number,
  ): Promise<NativeOutcome>
  /**
   * Reads states or policies: all whose reqid (of the state, of any template) is `reqid`, or all if that is 0; or the
   * one that a record names. With details come counters, times and replay state, which change by themselves.
   */
  read(
    job: number,
    policies: boolean,
    one: Uint8Array | undefined,
    reqid: number,
    details: boolean,
    keys: readonly Uint8Array[],
    algorithms: readonly string[],
    timeoutMs: number,
  ): Promise<NativeDump>
  /** Reads the neighbours of a link by their family, or its FDB (AF_BRIDGE); records as native/route/record.h. */
  readNeighbours(job: number, family: number, interfaceIndex: number, timeoutMs: number): Promise<NativeNeighbours>
  /** Sends one message, header without sequence, and collects what comes back: to NLMSG_DONE, or the answer and its ack. */
  request(job: number, type: number, flags: number, payload: Uint8Array, timeoutMs: number): Promise<NativeReply>
  /**
   * Sends an nftables transaction, all or nothing (native/nft/transaction.h). `generation` 0: whatever the ruleset's is.
   * `held`: where comments come from that are not in the records.
   */
  transact(
    job: number,
    records: Uint8Array,
    generation: number,
    echo: boolean,
    timeoutMs: number,
    held: NativeDraft | undefined,
  ): Promise<NativeTransacted>
  /** Receives what the kernel multicasts to these groups (XFRMNLGRP_*) from here on: {@link hear} tells. */
  join(job: number, groups: readonly number[]): Promise<{ ending: number; errno: number }>
  /**
   * Waits for XFRM's events and gives those that have come. They wait in the receive buffer for the next call; where that
   * overran, an event says so. `keepsAlive`: whether the process is to live for as long as this waits.
   */
  hear(job: number, keepsAlive: boolean): Promise<NativeEvents>
  /**
   * Takes a name in the socket's namespace for as long as the socket is open: an abstract Unix socket (unix(7)), which
   * dies with its holder. Fails with EADDRINUSE and who holds it (pid 0: not to be told), or with another errno.
   */
  lock(job: number, name: string): Promise<{ ending: number; errno: number; pid: number; uid: number }>
  /** The text of a file as a thread in the socket's namespace sees it: /proc/thread-self/net/…, /proc/sys/net/… */
  readFile(job: number, path: string): Promise<{ ending: number; errno: number; text: string }>
  /** Writes to a file that is there, as such a thread sees it. */
  writeFile(job: number, path: string, text: string): Promise<{ ending: number; errno: number }>
  /** Turns the host's expedited RCU grace periods off (0) or on (1), or puts back what killed processes left (2). */
  expedite(job: number, what: number): Promise<{ ending: number; errno: number }>
  /**
   * Opens the UDP socket that ESP in UDP comes to (native/netlink/udp_encap.h), in the socket's namespace, at an address
   * of that family (16 bytes) and port; or takes a duplicate of a descriptor handed in. It is held until this closes.
   * Fails with what was wrong in `step`: 'namespace', 'socket', 'bind', 'encap'; of one handed in, with EINVAL, 'kind',
   * 'family', 'connected', 'device', 'port', 'address', 'place' (its namespace).
   */
  openEncap(
    job: number,
    family: number,
    address: Uint8Array,
    port: number,
    given: number | undefined,
  ): Promise<{ ending: number; errno: number; step: string; descriptor: number }>
  /** Whether that socket is still what it was opened for: else fails with an errno. */
  checkEncap(job: number): Promise<{ ending: number; errno: number }>
  /** Sends each of these addresses, 16 bytes each, a keepalive to its port. `errno` is of the last that `failed`. */
  keepAlive(
    job: number,
    addresses: Uint8Array,
    ports: Uint16Array,
    timeoutMs: number,
  ): Promise<{ ending: number; errno: number; sent: number; failed: number }>
  /**
   * Takes attachments as a slice of those that a call is about, by its number: texts that end in NUL, as many addresses of
   * each as `counts` says (native/masquerade/attachments.h). {@link draft} tells whether they were refused.
   */
  takeSlice(
    job: number,
    slices: NativeSlices,
    index: number,
    texts: Uint8Array,
    counts: Uint32Array,
    namesChecked: boolean,
  ): Promise<NativeEnded>
  /** Works out a change (native/masquerade/draft.h) about so many slices; `network`: eight bytes for `collect`. */
  draft(
    job: number,
    change: number,
    kind: number,
    network: Uint8Array,
    ledger: NativeLedger,
    slices: NativeSlices,
    size: number,
  ): Promise<NativeDrafted>
  /** Has the draft's ledger tell of it; `handles` are of its rules, in their order. */
  apply(job: number, draft: NativeDraft, handles: Float64Array): Promise<NativeEnded>
  /** Makes a job end at its next chunk, `cancelled`. */
  cancel(job: number): void
  /** Ends after the present chunk; jobs not begun end `closed`. */
  close(): Promise<void>
}

/** What masquerading keeps in C++. A draft holds what it was made from. */
declare const held: unique symbol
export interface NativeSlices {
  readonly [held]: 'slices'
}
export interface NativeLedger {
  readonly [held]: 'ledger'
}
export interface NativeDraft {
  readonly [held]: 'draft'
}

export const DraftChange = { add: 0, remove: 1, collect: 2 } as const
export const DraftKind = { rule: 1, element: 2 } as const

export interface NativeEnded {
  ending: number
  errno: number
}

/** Mappings that follow one another, by their subnets (lib/masquerade/subnet.ts). */
export interface NativeGroups {
  subnets: Uint8Array
  counts: Uint32Array
}

/** struct Plan (native/masquerade/draft.h), if no slice was refused. */
export interface NativeDrafted extends NativeEnded {
  refused: Uint32Array
  deleteRules: Float64Array
  delete4: Uint8Array
  delete6: Uint8Array
  elements: NativeGroups
  rules: NativeGroups
  keys: Uint8Array
  oldSubnets: Uint8Array
  left4: number
  left6: number
  draft: NativeDraft
}

interface Addon {
  Socket: new (options: SocketOptions) => NativeSocket
  /** The XFRM messages that records become, one after the other, as commit() sends them. Throws if they are malformed. */
  encode(records: Uint8Array, keys: readonly Uint8Array[], algorithms: readonly string[]): Uint8Array
  /** The records of the states and policies in XFRM messages, as read() gives them. Throws if they are malformed. */
  decode(messages: Uint8Array, details: boolean): NativeRecords
  /** The same of neighbours. */
  encodeNeighbours(records: Uint8Array): Uint8Array
  decodeNeighbours(messages: Uint8Array): Uint8Array
  /** What transact() sends: BATCH_BEGIN, the messages, BATCH_END, numbered from 1. Throws if the records are malformed. */
  encodeTransaction(records: Uint8Array, generation: number, held: NativeDraft | undefined): Uint8Array
  /** Frees the memory that transact() keeps to write the next one's messages in: up to 32 MiB, for the whole process. */
  dropUsedMemory(): void
  newSlices(): NativeSlices
  /**
   * Of elements their owners and addresses, 16 bytes each, subnets as native/masquerade/subnet.h has them, and comments in
   * slots; of rules owners and handles.
   */
  newLedger(
    owners: Uint8Array,
    addresses: Uint8Array,
    subnets: Uint8Array,
    comments: Uint8Array,
    ruleOwners: Uint8Array,
    handles: Float64Array,
  ): NativeLedger
  /** Offsets as the compiler sees them. */
  layout(): Record<'state' | 'policy' | 'transaction' | 'neighbour' | 'mapping' | 'acquire', Record<string, number>>
}

const root = fileURLToPath(new URL('..', import.meta.url))

function load(): Addon {
  const require = createRequire(import.meta.url)
  try {
    return (require('node-gyp-build') as (directory: string) => Addon)(root)
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error)
    if (text.includes('libmnl')) {
      throw new Unsupported(
        'libmnl',
        `the system's libmnl is missing (${text}): install it (Debian and Ubuntu: apt-get install libmnl0; Fedora: dnf install libmnl)`,
        { cause: error },
      )
    }
    throw new XfrmeshError(
      'ERR_XFRMESH_NOT_BUILT',
      `the native addon of xfrmesh could not be loaded from ${root}: ${text}. In a checkout, npm run setup builds it; elsewhere npm rebuild xfrmesh does (with libmnl's headers, cmake and a C++20 compiler)`,
      { cause: error },
    )
  }
}

export const native = load()
