/** The kernel's counters of packets that XFRM dropped (/proc/net/xfrm_stat), with what they mean. */

export interface LabelledCounter {
  /** The kernel's name: `XfrmInNoStates`. */
  counter: string
  /** Which way packets went; `any` for errors of the databases themselves. */
  direction: 'inbound' | 'outbound' | 'forward' | 'any'
  /** The error, for labels of metrics: `no_states`. */
  error: string
  count: number
  /** What happened. */
  meaning: string
  /** What to do about it. */
  advice: string
}

const REKEY = 'compare key ids and boot ids of both nodes; after a reboot, upsert() the node with its new boot id'
const COMPARE = 'reconcile() on both nodes; compare their keys and ranges'
const KERNEL = 'look into the kernel log; report it to whoever maintains the kernel'
const MEMORY = 'look at the memory of the host and of its network namespaces'

/** Meaning and advice by the kernel's names (Documentation/networking/xfrm_proc.rst and net/xfrm/xfrm_proc.c). */
const known: Readonly<Record<string, readonly [meaning: string, advice: string]>> = {
  XfrmInError: ['received packets dropped for an error that has no counter of its own', KERNEL],
  XfrmInBufferError: ['received packets dropped for want of memory', MEMORY],
  XfrmInHdrError: [
    'received packets with a header that cannot be',
    'look at the path between the nodes: something damages packets',
  ],
  XfrmInNoStates: [
    'received ESP for which there is no SA: another SPI, destination, or mark',
    'a node encrypts under a key that is not here: prepare() everywhere before commit() anywhere; reconcile()',
  ],
  // With ESN the upper half of a number is guessed from the window, and is authenticated: out of reach, it is another.
  XfrmInStateProtoError: [
    'received ESP that did not authenticate: its key is another, or its sequence number out of reach',
    `${REKEY}; a sender that started anew under the same key, or is 2^32 packets ahead: rotate the key`,
  ],
  XfrmInStateModeError: ['received ESP in another mode than its SA has', COMPARE],
  XfrmInStateSeqError: [
    'received ESP with a sequence number that was seen, or is too old',
    'a sender started anew: upsert() it with its new boot id, or rotate the key if it has none; or packets were replayed; with many, the path reorders by more than the window',
  ],
  XfrmInStateExpired: ['received ESP of an SA that has expired', 'another tool set limits on our SAs: reconcile()'],
  XfrmInStateMismatch: ['received ESP in UDP where its SA has none, or the other way around', COMPARE],
  XfrmInStateInvalid: [
    'received ESP of an SA that is being deleted',
    'nothing, where a key was just reclaimed or a node removed',
  ],
  XfrmInTmplMismatch: [
    'received packets that came through no SA, or others than their policy asks for: cleartext, among others',
    'somebody sends in the clear: its node lacks this one, or is none',
  ],
  XfrmInNoPols: ['received through an SA, with no policy that allows it', COMPARE],
  XfrmInPolBlock: ['received packets that a policy blocks', 'look for policies of other tools: ip xfrm policy'],
  XfrmInPolError: ['received packets whose policy is in error', KERNEL],
  XfrmAcquireError: ['an SA that was asked for could not be set up', COMPARE],
  XfrmFwdHdrError: ['forwarded packets with a header that cannot be', 'look at what pods send'],
  XfrmOutError: ['packets to send dropped for an error that has no counter of its own', KERNEL],
  XfrmOutBundleGenError: [
    'no path through their SAs could be made for packets',
    'look at the routes to the other nodes',
  ],
  XfrmOutBundleCheckError: ['a path through SAs was no longer valid', 'nothing, while routes or keys change'],
  XfrmOutNoStates: [
    'packets to send for which a policy asks for an SA and there is none',
    'reconcile(): the guard held them back',
  ],
  XfrmOutStateProtoError: ['packets that could not be encrypted', 'look whether the kernel has the algorithm'],
  XfrmOutStateModeError: [
    'packets that do not fit through the tunnel and must not be fragmented',
    'lower the MTU of the pods by the overhead of ESP in tunnel mode',
  ],
  XfrmOutStateSeqError: ['an SA has used up its sequence numbers', 'rotate the key'],
  XfrmOutStateExpired: [
    'packets to send through an SA that has expired',
    'another tool set limits on our SAs: reconcile()',
  ],
  XfrmOutPolBlock: [
    'packets that a policy blocks: marked to be encrypted, with no policy of their own',
    'the datapath marks for a node, or under a key, that is not here: upsert() it',
  ],
  XfrmOutPolDead: ['packets whose policy was being deleted', 'nothing, while nodes are removed'],
  XfrmOutPolError: ['packets whose policy is in error', KERNEL],
  XfrmOutStateInvalid: ['packets to send through an SA that is being deleted', 'nothing, while keys change'],
  XfrmOutStateDirError: ['packets to send through an SA for the other direction', COMPARE],
  XfrmInStateDirError: ['received ESP of an SA for the other direction', COMPARE],
}

/** The counters in the text of /proc/net/xfrm_stat, in its order. One that is not known says so. */
export function labelled(text: string): LabelledCounter[] {
  return Array.from(text.matchAll(/^(\w+)\s+(\d+)$/gm), ([, counter, count]) => {
    const [, way = '', rest = counter!] = /^Xfrm(In|Out|Fwd)?(\w+)$/.exec(counter!) ?? []
    const [meaning, advice] = known[counter!] ?? ['a counter of this kernel that is not known here', KERNEL]
    const error = rest.replace(/(?<=[a-z])(?=[A-Z])/g, '_').toLowerCase()
    return { counter: counter!, direction: directions[way] ?? 'any', error, count: Number(count), meaning, advice }
  })
}

const directions: Readonly<Record<string, LabelledCounter['direction']>> = {
  In: 'inbound',
  Out: 'outbound',
  Fwd: 'forward',
}
