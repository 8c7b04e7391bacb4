import type { Address, Family } from '../base/address.js'
import { U16 } from '../base/check.js'
import { type Prefix, widthOf } from '../base/prefix.js'
import { attribute, ATTRIBUTE_HEAD, espTemplate, joined, words } from '../kernel/record-parts.js'
import {
  Cipher,
  HEAD_BYTES,
  NO_ALGORITHM,
  NO_KEY,
  Operation,
  Policy,
  type RecordWriter,
  State,
} from '../kernel/records.js'
import {
  ACTION_BLOCK,
  DIRECTION_FWD,
  DIRECTION_IN,
  DIRECTION_OUT,
  FLAG_ESN,
  IPPROTO_ESP,
  IPPROTO_UDP,
  MODE_TUNNEL,
  XFRMA,
} from '../kernel/xfrm-names.js'
import { replayState } from '../kernel/xfrm-replay.js'
import { keyToken, type NodeKeyring } from './keyring.js'
import { REPLAY_WINDOW } from './sequences.js'
import { FAMILIES, type Remote, type Settings } from './settings.js'
import {
  decryptMark,
  encryptMark,
  inboundMark,
  type Mark,
  outboundMark,
  outputMark,
  proxyMark,
  Purpose,
  spiOf,
  type Tunnel,
  tunnelsTo,
} from './tunnels.js'

/** Priorities of Cilium's policies: of the one that drops what is to be encrypted and has no other, and of forwarding. */
const DROP_PRIORITY = 100
export const FORWARD_PRIORITY = 0xb9f

/** What a policy selects. */
interface Selection {
  readonly direction: number
  readonly family: Family
  readonly source?: Prefix | undefined
  readonly destination?: Prefix | undefined
  readonly udpPort?: number | undefined
  readonly priority?: number | undefined
  readonly action?: number | undefined
  readonly mark?: Mark | undefined
}

const replay = attribute(XFRMA.REPLAY_ESN_VAL, replayState(REPLAY_WINDOW))

/** A state's attributes with marks, encoded once: its own mark, the first of them, is filled in state by state. */
function markedTail(output: Mark): Uint8Array {
  return joined(
    attribute(XFRMA.MARK, words(0, 0)),
    replay,
    attribute(XFRMA.SET_MARK, words(output.value)),
    attribute(XFRMA.SET_MARK_MASK, words(output.mask)),
  )
}

const MARK_AT = HEAD_BYTES + ATTRIBUTE_HEAD

/**
 * Writes what should be in the kernel as records, as they are in a dump without details, but that a key is named by its
 * token ({@link NodeKeyring.token}).
 */
export class ObjectWriter {
  readonly #settings: Settings
  readonly #keyring: NodeKeyring
  readonly #families: readonly Family[]
  readonly #outboundTail: Uint8Array
  readonly #inboundTails: ReadonlyMap<Purpose, Uint8Array>

  constructor(settings: Settings, keyring: NodeKeyring) {
    const { addresses, overlay } = settings.local
    this.#settings = settings
    this.#keyring = keyring
    this.#families = FAMILIES.filter((family) => addresses.has(family) || overlay.has(family))
    const tail = (inbound: boolean, purpose: Purpose) =>
      markedTail(outputMark(inbound, purpose, settings.zeroOutputMark))
    this.#outboundTail = tail(false, Purpose.pods)
    this.#inboundTails = new Map(Object.values(Purpose).map((purpose) => [purpose, tail(true, purpose)]))
  }

  /** With marks: drops what is to be encrypted and has no policy of its own. One policy a family. */
  drops(into: RecordWriter): void {
    if (this.#settings.marks === false) return
    for (const family of this.#families) {
      const drop = { priority: DROP_PRIORITY, action: ACTION_BLOCK, mark: encryptMark }
      this.#policy(into, { direction: DIRECTION_OUT, family, ...drop })
    }
  }

  /** With marks: the policies that let in what any node's tunnel brought. */
  shared(into: RecordWriter): void {
    const { local, marks, proxy } = this.#settings
    if (marks === false) return
    // Overlay traffic is decrypted under the same mark, and has policies of its own that must come first.
    const priority = local.overlay.size > 0 ? 1 : 0
    for (const [family, { bytes: destination }] of local.addresses) {
      const template = { family, reqid: Purpose.pods, mode: MODE_TUNNEL, destination }
      const optional = espTemplate({ ...template, optional: true })
      this.#policy(into, { direction: DIRECTION_IN, family, mark: decryptMark, priority }, espTemplate(template))
      if (proxy) this.#policy(into, { direction: DIRECTION_IN, family, mark: proxyMark }, optional)
      this.#policy(into, { direction: DIRECTION_FWD, family, priority: FORWARD_PRIORITY }, optional)
    }
  }

  /**
   * A node's SAs and policies.
   * @param boots how often it was seen to have booted
   * @param outbound ids of the keys to encrypt with, the present one first: without marks one
   */
  node(into: RecordWriter, remote: Remote, boots: number, outbound: readonly number[]): void {
    for (const tunnel of tunnelsTo(remote, this.#settings)) {
      for (const id of this.#keyring.ids) this.#state(into, tunnel, remote, true, id, boots)
      // Whoever is started later takes the key of the newest for the one that encrypts.
      for (const id of outbound.toReversed())
        if (this.#keyring.has(id)) this.#state(into, tunnel, remote, false, id, boots)
      for (const id of outbound) this.#policies(into, tunnel, remote, id, id === outbound[0])
    }
  }

  /** The first address, here or there, that there is no key for; undefined if all have one. */
  withoutKey(remote: Remote): { address: string; id: number } | undefined {
    for (const { local, remote: there } of tunnelsTo(remote, this.#settings)) {
      for (const id of this.#keyring.ids) {
        for (const { text: address } of [local, there]) {
          if (this.#keyring.key(id, address) === undefined) return { address, id }
        }
      }
    }
    return undefined
  }

  #state(into: RecordWriter, tunnel: Tunnel, node: Remote, inbound: boolean, id: number, boots: number): void {
    const { marks } = this.#settings
    const [source, destination] = inbound ? [tunnel.remote, tunnel.local] : [tunnel.local, tunnel.remote]
    const { aead, auth, encryption } = this.#keyring.key(id, source.text)!
    const cipher = aead ?? encryption!
    const token = this.#keyring.token(id, boots)
    into.begin(Operation.addState)
    into.u8(State.family, tunnel.family)
    into.u8(State.protocol, IPPROTO_ESP)
    into.u8(State.mode, MODE_TUNNEL)
    into.bytes(State.destination, destination.bytes)
    into.bytes(State.source, source.bytes)
    into.u32(State.spi, spiOf(source.bytes, id, this.#settings))
    into.u32(State.reqid, tunnel.purpose)
    into.u8(State.flags, FLAG_ESN)
    into.u8(State.cipher, aead === undefined ? Cipher.encryption : Cipher.aead)
    into.u16(State.cipherAlgorithm, this.#keyring.algorithm(cipher.name))
    into.u16(State.icvBits, aead?.icvBits ?? 0)
    into.u32(State.cipherKey, keyToken(cipher, token))
    into.u16(State.authAlgorithm, auth === undefined ? NO_ALGORITHM : this.#keyring.algorithm(auth.name))
    into.u32(State.authKey, auth === undefined ? NO_KEY : keyToken(auth, token))
    if (marks === false) {
      into.tail(replay)
      return
    }
    const mark = inbound ? inboundMark(node.id) : outboundMark(node.id, id)
    into.tail(inbound ? this.#inboundTails.get(tunnel.purpose)! : this.#outboundTail)
    into.u32(MARK_AT, mark.value)
    into.u32(MARK_AT + 4, mark.mask)
  }

  #policies(into: RecordWriter, tunnel: Tunnel, node: Remote, id: number, isFirst: boolean): void {
    const { family, purpose } = tunnel
    const [local, remote] = [tunnel.local.bytes, tunnel.remote.bytes]
    const template = { family, reqid: purpose, mode: MODE_TUNNEL }
    const spi = spiOf(local, id, this.#settings)
    const there = espTemplate({ ...template, source: local, destination: remote, spi })
    const here = { ...template, source: remote, destination: local }
    if (this.#settings.marks !== false) {
      const mark = outboundMark(node.id, id)
      if (purpose === Purpose.overlay) {
        const [source, destination] = [hostOf(tunnel.local), hostOf(tunnel.remote)]
        this.#policy(into, { direction: DIRECTION_OUT, family, source, destination, mark }, there)
        const inward = { source: destination, destination: source, mark: decryptMark }
        // One for all keys.
        if (isFirst) this.#policy(into, { direction: DIRECTION_IN, family, ...inward }, espTemplate(here))
      }
      for (const destination of tunnel.remoteSubnets) {
        this.#policy(into, { direction: DIRECTION_OUT, family, destination, mark }, there)
      }
      return
    }
    const back = espTemplate(here)
    const forward = espTemplate({ ...here, optional: true })
    for (const [ours, theirs] of this.#selections(tunnel)) {
      const udpPort = purpose === Purpose.overlay ? this.#settings.overlayPort : undefined
      this.#policy(into, { direction: DIRECTION_OUT, family, source: ours, destination: theirs, udpPort }, there)
      const inward = { family, source: theirs, destination: ours, udpPort }
      this.#policy(into, { direction: DIRECTION_IN, ...inward }, back)
      if (purpose === Purpose.pods) this.#policy(into, { direction: DIRECTION_FWD, ...inward }, forward)
    }
  }

  *#selections({
    purpose,
    local,
    remote,
    localSubnets,
    remoteSubnets,
  }: Tunnel): Generator<[ours: Prefix, theirs: Prefix]> {
    if (purpose === Purpose.overlay) yield [hostOf(local), hostOf(remote)]
    for (const ours of localSubnets) for (const theirs of remoteSubnets) yield [ours, theirs]
  }

  #policy(into: RecordWriter, selection: Selection, template?: Uint8Array): void {
    const { direction, family, source, destination, udpPort, priority, action, mark } = selection
    into.begin(Operation.addPolicy)
    into.u8(Policy.family, family)
    into.u8(Policy.direction, direction)
    into.u8(Policy.action, action ?? 0)
    if (destination !== undefined) {
      into.bytes(Policy.destination, destination.bytes)
      into.u8(Policy.destinationPrefix, destination.length)
    }
    if (source !== undefined) {
      into.bytes(Policy.source, source.bytes)
      into.u8(Policy.sourcePrefix, source.length)
    }
    if (udpPort !== undefined) {
      into.u8(Policy.protocol, IPPROTO_UDP)
      into.u16(Policy.destinationPort, udpPort)
      into.u16(Policy.destinationPortMask, U16)
    }
    into.u32(Policy.priority, priority ?? 0)
    if (template !== undefined) into.attribute(XFRMA.TMPL, template)
    if (mark !== undefined) into.attribute(XFRMA.MARK, words(mark.value, mark.mask))
  }
}

/** The range of one address. */
function hostOf({ text, family, bytes }: Address): Prefix {
  const length = widthOf(family)
  return { text: `${text}/${length}`, family, bytes, length }
}
