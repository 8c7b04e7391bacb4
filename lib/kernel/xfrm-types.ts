import type { Key } from '../base/key.js'

/**
 * States (SAs) and policies (SPs) as values: RFC 4301's databases in the terms of linux/xfrm.h, with `ip xfrm`'s names.
 * Integers are unsigned unless said otherwise.
 */

/** A mark as the kernel compares it: a packet's mark, masked, must equal the value. A number alone matches exactly. */
export interface Mark {
  /** 32 bits; none outside of the mask, since such a mark would match nothing. */
  value: number
  /** 32 bits. */
  mask: number
}

/** A port with the bits of it that count. A number alone means all sixteen. */
export interface Port {
  /** 16 bits. */
  value: number
  /** 16 bits. */
  mask: number
}

/** What a policy applies to, or which inner traffic a state accepts (struct xfrm_selector). Absent parts select all. */
export interface SelectorOptions {
  /** `'10.0.0.0/8'`; an address alone is one host. Bits beyond the prefix are kept: the kernel tells selectors apart by them. */
  source?: string
  destination?: string
  /** An IP protocol by its name, or its number, 1 to 255. */
  protocol?: ProtocolName | number
  /** For ICMP the type; for GRE the upper 16 bits of its key. */
  sourcePort?: number | Port
  /** For ICMP the code; for GRE the lower 16 bits of its key. */
  destinationPort?: number | Port
  /** Index of the network device, 1 to 2^31 - 1. */
  interfaceIndex?: number
}

export interface Selector {
  source: string
  destination: string
  protocol?: ProtocolName | number
  sourcePort?: Port
  destinationPort?: Port
  interfaceIndex?: number
  /** Owner of the socket that the policy belongs to; the kernel compares it in no other case. */
  user?: number
}

export type ProtocolName = 'icmp' | 'tcp' | 'udp' | 'dccp' | 'gre' | 'esp' | 'ah' | 'ipv6-icmp' | 'sctp'

/** ESP (RFC 4303) or AH (RFC 4302). */
export type IpsecProtocol = 'esp' | 'ah'

export type Mode = 'transport' | 'tunnel'

/** XFRM_STATE_*, but for ESN, which is an option of its own. */
export type StateFlag = 'noecn' | 'decap-dscp' | 'nopmtudisc' | 'wildrecv' | 'icmp' | 'af-unspec' | 'align4'
/** XFRM_SA_XFLAG_* */
export type StateExtraFlag = 'dont-encap-dscp' | 'oseq-may-wrap'
/** XFRM_POLICY_LOCALOK and its like. */
export type PolicyFlag = 'localok' | 'icmp' | 'cpu-acquire'

/** When the kernel reports (soft) and ends (hard) a state or policy. Absent: never. */
export interface LimitOptions {
  /** Bytes processed, 1 to 2^64 - 2. */
  byteSoft?: number | bigint
  byteHard?: number | bigint
  /** Packets processed, 1 to 2^64 - 2. */
  packetSoft?: number | bigint
  packetHard?: number | bigint
  /** Seconds since it was added, 1 to 2^53 - 1. */
  timeSoft?: number | bigint
  timeHard?: number | bigint
  /** Seconds since its first use, 1 to 2^53 - 1. */
  timeUseSoft?: number | bigint
  timeUseHard?: number | bigint
}

export interface Limits {
  byteSoft?: bigint
  byteHard?: bigint
  packetSoft?: bigint
  packetHard?: bigint
  /** Seconds; bigint where others set more than 2^53 - 1. */
  timeSoft?: number | bigint
  timeHard?: number | bigint
  timeUseSoft?: number | bigint
  timeUseHard?: number | bigint
}

/** Combined-mode cipher, as in `rfc4106(gcm(aes))` (RFC 4106) or `rfc7539esp(chacha20,poly1305)` (RFC 7634). */
export interface AeadOptions {
  /** The kernel's name, 1 to 63 bytes. */
  name: string
  /** The key with its salt at the end, 1 to 512 bytes; what length an algorithm takes is the kernel's to say. */
  key: Uint8Array | Key
  /** Length of the integrity check value in bits. */
  icvBits: number
}

export interface AuthOptions {
  /** The kernel's name, as in `hmac(sha256)`, 1 to 63 bytes. */
  name: string
  /** 1 to 512 bytes. */
  key: Uint8Array | Key
  /** Length that the check value is cut to, in bits; default: what the kernel has for this algorithm. */
  truncateBits?: number
}

export interface EncryptionOptions {
  /** The kernel's name, as in `cbc(aes)`, 1 to 63 bytes. */
  name: string
  /** 1 to 512 bytes; `ecb(cipher_null)` alone takes an empty one. */
  key: Uint8Array | Key
}

/** ESP in UDP (RFC 3948) or TCP (RFC 8229). */
export interface EncapOptions {
  type: 'espinudp' | 'espintcp'
  /** 1 to 65535. */
  sourcePort: number
  /** 1 to 65535. */
  destinationPort: number
}

/** What finds a state: mark, destination, SPI and protocol. Two states cannot have all of these in common. */
export interface StateId {
  destination: string
  /** Security parameters index, 1 to 2^32 - 1. RFC 4303 reserves 1 to 255; the kernel takes them. */
  spi: number
  protocol: IpsecProtocol
  /** Not part of what finds a state: the kernel reads and ignores it. */
  source?: string
  mark?: number | Mark
}

/** A state to add: a one-way security association. */
export interface StateOptions extends StateId {
  source: string
  /** Default `'transport'`. */
  mode?: Mode
  /** Ties states to the templates of policies; default 0. */
  reqid?: number
  aead?: AeadOptions
  auth?: AuthOptions
  encryption?: EncryptionOptions
  /** Packets that may arrive late (RFC 4303, 3.4.3), 0 to 4096; default 0: no replay is noticed. */
  replayWindow?: number
  /** Extended sequence numbers (RFC 4304); both ends must agree. Needs a window. */
  esn?: boolean
  encap?: EncapOptions
  /** Mark set on packets once transformed. */
  outputMark?: number | Mark
  /** Of an XFRM interface, 1 to 2^32 - 1. */
  ifId?: number
  flags?: readonly StateFlag[]
  extraFlags?: readonly StateExtraFlag[]
  limits?: LimitOptions
  /** Which inner traffic it accepts; default all of its family. */
  selector?: SelectorOptions
}

/**
 * What XFRM_MSG_UPDSA changes of a state. The kernel sets all limits anew (those left out become unlimited), refuses to
 * give or take an encapsulation, and leaves output mark and interface id as they are where they are left out.
 */
export interface StateUpdate extends StateId {
  /** New ports, of the same type. Must be there if the state has one. */
  encap?: EncapOptions
  /** Must not be 0: the kernel takes that for absent. */
  outputMark?: number | Mark
  ifId?: number
  limits?: LimitOptions
}

/** A transformation that a policy asks for (struct xfrm_user_tmpl). */
export interface TemplateOptions {
  /** In transport mode both may be absent: the packet's own addresses serve. */
  source?: string
  destination?: string
  /** 0 or absent: any. */
  spi?: number
  /** Default `'esp'`. */
  protocol?: IpsecProtocol | 'comp'
  /** Default `'transport'`. */
  mode?: Mode
  /** Only states of this reqid; 0 or absent: any. */
  reqid?: number
  /** `level use`: without a state the packet goes on as it is. Default false: it is dropped. */
  optional?: boolean
}

/** What finds a policy: direction, mark, interface id, and its selector or its index. */
export interface PolicyId {
  direction: Direction
  /** At least one of its addresses: they say which family. */
  selector?: SelectorOptions
  mark?: number | Mark
  ifId?: number
  /** The kernel's number for it, in place of a selector. */
  index?: number
}

export interface PolicyOptions extends PolicyId {
  selector: SelectorOptions
  /** The lowest wins; default 0. */
  priority?: number
  /** Default `'allow'`. */
  action?: Action
  flags?: readonly PolicyFlag[]
  limits?: LimitOptions
  /** Up to six, applied in order, inner first; none: traffic passes as it is. */
  templates?: readonly TemplateOptions[]
}

export type Direction = 'in' | 'out' | 'fwd'
export type Action = 'allow' | 'block'

/** What has passed through a state or policy. */
export interface Usage {
  bytes: bigint
  packets: bigint
  added: Date
  /** First use. */
  used: Date | undefined
}

/** A name from a table, or the number where the kernel is ahead of the table. */
type Named<T extends string> = T | number

/** A state as the kernel has it: all that `ip -d -s xfrm state` shows. */
export interface State {
  source: string
  destination: string
  /** 0 in a larval state, which waits for a key daemon's answer. */
  spi: number
  protocol: Named<'esp' | 'ah' | 'comp' | 'route2' | 'hao'>
  mode: Named<'transport' | 'tunnel' | 'ro' | 'in_trigger' | 'beet' | 'iptfs'>
  reqid: number
  /** A key is undefined where the kernel withheld it (lockdown). */
  aead?: { name: string; key: Key | undefined; icvBits: number }
  /** The kernel says how it truncates even where it was not told to. */
  auth?: { name: string; key: Key | undefined; truncateBits: number }
  encryption?: { name: string; key: Key | undefined }
  compression?: { name: string }
  replayWindow: number
  esn: boolean
  flags: Named<StateFlag>[]
  extraFlags: Named<StateExtraFlag>[]
  encap?: {
    type: Named<'espinudp-nonike' | 'espinudp' | 'espintcp'>
    sourcePort: number
    destinationPort: number
    originalAddress: string
  }
  /** Care-of address (Mobile IPv6). */
  careOf?: string
  mark?: Mark
  outputMark?: Mark
  ifId?: number
  /** Bytes that ESP pads packets to, to hide their length (RFC 4303, 2.7). */
  tfcPadding?: number
  limits: Limits
  selector: Selector
  /** Of the acquire it answers; 0 if none. */
  sequence: number
  /** Highest number received, last one sent, and which before the highest were seen: bit 0 of the first word stands for number 1, modulo the window. */
  replay: { sequence: bigint; outputSequence: bigint; bitmap: Uint32Array }
  current: Usage
  lastUsed: Date | undefined
  statistics: { replayWindow: number; replay: number; integrityFailed: number }
  /** Hardware that does the work. */
  offload?: { interfaceIndex: number; flags: number }
  /** From Linux 6.10 on, where it was asked for. */
  direction?: Named<'in' | 'out'>
  securityContext?: string
}

export interface Template {
  source: string
  destination: string
  spi: number
  protocol: State['protocol']
  mode: State['mode']
  reqid: number
  optional: boolean
  share: Share
  /** Bit sets of algorithms allowed, as PF_KEY numbers them; all ones: any. */
  authMask: number
  encryptionMask: number
  compressionMask: number
}

export type Share = Named<'any' | 'session' | 'user' | 'unique'>

/** A policy as the kernel has it: all that `ip -d -s xfrm policy` shows. */
export interface Policy {
  direction: Direction
  /** Set by a socket for itself (IP_XFRM_POLICY), not in the SPD proper. */
  socket: boolean
  selector: Selector
  action: Named<Action>
  priority: number
  index: number
  type: Named<'main' | 'sub'>
  share: Share
  flags: Named<PolicyFlag>[]
  mark?: Mark
  ifId?: number
  limits: Limits
  current: Usage
  templates: Template[]
  offload?: { interfaceIndex: number; flags: number }
  securityContext?: string
}

/** Kinds of events, as a monitor is asked for them. */
export type EventKind = 'sa' | 'policy' | 'expire' | 'mapping' | 'acquire'

/** What happened to the SAD and SPD, whoever did it. */
export type XfrmEvent =
  /**
   * An SA as it was added or was when it went; of an update what was asked for, its key as given then, which changes
   * nothing. The hard end of a limit is an `expire`, and no deletion beside.
   */
  | { type: 'sa'; change: 'added' | 'updated' | 'deleted'; state: State }
  /** All SAs of a protocol went at once, `any`: of all. */
  | { type: 'sa'; change: 'flushed'; protocol: State['protocol'] | 'any' }
  | { type: 'policy'; change: 'added' | 'updated' | 'deleted'; policy: Policy }
  /** All policies of a type went at once. */
  | { type: 'policy'; change: 'flushed'; policyType: Policy['type'] }
  /** A limit was reached; `hard`: the object is gone. Of a state it tells no keys. */
  | { type: 'expire'; hard: boolean; state: State }
  | { type: 'expire'; hard: boolean; policy: Policy }
  | MappingEvent
  | AcquireEvent
  /**
   * The receive buffer overran: events between the one before and this are missing. Whoever follows a state by them must
   * look at it anew, now.
   */
  | { type: 'lost' }

/** Packets of an SA in UDP, authentic ones, come from elsewhere than its source and port: a NAT between has changed its mind. */
export interface MappingEvent {
  type: 'mapping'
  /** What finds the SA. */
  destination: string
  spi: number
  protocol: State['protocol']
  reqid: number
  /** What the SA has. */
  source: string
  sourcePort: number
  /** Where the packet came from. */
  newSource: string
  newSourcePort: number
}

/** A packet wants an SA that is not there. While somebody listens, a larval SA (SPI 0) stands for it for some 30 s. */
export interface AcquireEvent {
  type: 'acquire'
  /** Between whom the SA is wanted. */
  source: string
  destination: string
  protocol: State['protocol']
  /** Of the packet: its addresses, protocol and ports. */
  selector: Selector
  /** Which asked for it. Its templates say what is wanted. */
  policy: Policy
  /** To be given as that of the SA that answers. */
  sequence: number
}
