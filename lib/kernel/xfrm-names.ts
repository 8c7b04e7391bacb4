import { oneOf } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'

/** The numbers of linux/xfrm.h, linux/in.h and linux/udp.h, by the names that `ip` has for them. */

export const IPPROTO_UDP = 17
export const IPPROTO_ESP = 50
export const IPPROTO_AH = 51
export const MODE_TRANSPORT = 0
export const MODE_TUNNEL = 1
export const DIRECTION_IN = 0
export const DIRECTION_OUT = 1
export const DIRECTION_FWD = 2
export const ACTION_BLOCK = 1

const IPSEC = { esp: IPPROTO_ESP, ah: IPPROTO_AH }

export const ipsecProtocols = table(IPSEC)
export const templateProtocols = table({ ...IPSEC, comp: 108 })
export const shownProtocols = table({ ...IPSEC, comp: 108, route2: 43, hao: 60 })
export const ipProtocols = table({
  icmp: 1,
  tcp: 6,
  udp: IPPROTO_UDP,
  dccp: 33,
  gre: 47,
  ...IPSEC,
  'ipv6-icmp': 58,
  sctp: 132,
})
export const modes = table({ transport: MODE_TRANSPORT, tunnel: MODE_TUNNEL })
export const shownModes = table({
  transport: MODE_TRANSPORT,
  tunnel: MODE_TUNNEL,
  ro: 2,
  in_trigger: 3,
  beet: 4,
  iptfs: 5,
})
export const encapTypes = table({ espinudp: 2, espintcp: 7 })
export const shownEncapTypes = table({ 'espinudp-nonike': 1, espinudp: 2, espintcp: 7 })
export const directions = table({ in: DIRECTION_IN, out: DIRECTION_OUT, fwd: DIRECTION_FWD })
export const actions = table({ allow: 0, block: ACTION_BLOCK })
export const shares = table({ any: 0, session: 1, user: 2, unique: 3 })
export const policyTypes = table({ main: 0, sub: 1 })
export const stateDirections = table({ in: 1, out: 2 })

/** Each name's bit. */
export const stateFlags = table({
  noecn: 1,
  'decap-dscp': 2,
  nopmtudisc: 4,
  wildrecv: 8,
  icmp: 16,
  'af-unspec': 32,
  align4: 64,
})
/** XFRM_STATE_ESN: among the flags for the kernel, an option for people. */
export const FLAG_ESN = 128
export const stateExtraFlags = table({ 'dont-encap-dscp': 1, 'oseq-may-wrap': 2 })
export const policyFlags = table({ localok: 1, icmp: 2, 'cpu-acquire': 4 })

/** Attributes of XFRM messages. */
export const XFRMA = {
  ALG_COMP: 3,
  ENCAP: 4,
  TMPL: 5,
  SEC_CTX: 8,
  REPLAY_VAL: 10,
  COADDR: 14,
  LASTUSED: 15,
  POLICY_TYPE: 16,
  MARK: 21,
  TFCPAD: 22,
  REPLAY_ESN_VAL: 23,
  SA_EXTRA_FLAGS: 24,
  OFFLOAD_DEV: 28,
  SET_MARK: 29,
  SET_MARK_MASK: 30,
  IF_ID: 31,
  MTIMER_THRESH: 32,
  SA_DIR: 33,
} as const

interface Table<T extends string> {
  readonly codes: ReadonlyMap<string, number>
  readonly names: ReadonlyMap<number, T>
}

function table<T extends string>(entries: Record<T, number>): Table<T> {
  const pairs = Object.entries(entries) as [T, number][]
  return { codes: new Map(pairs), names: new Map(pairs.map(([name, code]) => [code, name])) }
}

/** The number behind a name. @throws InvalidArgument */
export function codeOf<T extends string>(value: unknown, argument: string, { codes }: Table<T>): number {
  return codes.get(value as string) ?? codes.get(oneOf(value, argument, [...codes.keys()]))!
}

/** The name of a number, or the number itself. */
export function nameOf<T extends string>(code: number, { names }: Table<T>): T | number {
  return names.get(code) ?? code
}

/** The bits of a list of flags. @throws InvalidArgument */
export function bitsOf<T extends string>(value: unknown, argument: string, flags: Table<T>): number {
  if (!Array.isArray(value)) throw new InvalidArgument(argument, 'an array of names', value)
  return value.reduce<number>((bits, name, i) => bits | codeOf(name, `${argument}[${i}]`, flags), 0)
}

/** The names of the bits that are set; a bit without a name is its own value. */
export function namesOf<T extends string>(bits: number, { names }: Table<T>): (T | number)[] {
  const found: (T | number)[] = []
  for (let bit = 1; bits >= bit && bit <= 0x8000_0000; bit *= 2) {
    if ((bits & bit) !== 0) found.push(names.get(bit) ?? bit)
  }
  return found
}
