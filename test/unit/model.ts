import { type Address, address, formatAddress } from '../../lib/base/address.js'
import { attributeAt } from '../../lib/kernel/record-identity.js'
import { LITTLE_ENDIAN, Operation, Policy, RecordReader, RecordWriter, State } from '../../lib/kernel/records.js'
import { XFRMA } from '../../lib/kernel/xfrm-names.js'
import { type Form } from '../../lib/overlay/form.js'
import { Keyring } from '../../lib/overlay/keyring.js'
import { PeerTable, PortSource } from '../../lib/overlay/peers.js'
import {
  codeOf,
  concernsPeer,
  hasMessage,
  NO_PEER,
  Op,
  OP_WORDS,
  opName,
  type Phase,
  type PhaseName,
} from '../../lib/overlay/ops.js'
import { plan, type Plan, type Scope } from '../../lib/overlay/plan.js'
import { settle, without } from '../../lib/overlay/settle.js'
import { SpiDeriver } from '../../lib/overlay/spi.js'
import { SpiIndex } from '../../lib/overlay/spi-index.js'
import type { Damage, Is, Should } from '../../lib/overlay/state.js'
import { suites } from '../../lib/overlay/suites.js'
import { Survey } from '../../lib/overlay/survey.js'
import { Encap, OpWriter } from '../../lib/overlay/writer.js'
import { VniSet } from '../../lib/overlay/vni-set.js'

/** A simple model of the kernel's SAD and SPD, fed with records, and the least that carries a plan out on it. */

export const LOCAL = '10.0.0.1'

export function form(options: Partial<Omit<Form, 'local' | 'spis'>> & { local?: string } = {}): Form {
  const local: Address = address(options.local ?? LOCAL, 'local')
  return {
    port: 4789,
    mark: 0x58464d,
    suite: suites['aes-gcm-64'],
    esn: false,
    replayWindow: 0,
    natPort: 0,
    policies: 'shared',
    exclusive: false,
    ...options,
    local,
    spis: new SpiDeriver(local),
  }
}

/** The key of a tag, which no other has unless `fill` says so. */
export function key(tag: number, fill = tag): { tag: number; value: Uint8Array } {
  return { tag, value: new Uint8Array(16).fill((fill % 255) + 1) }
}

export interface World {
  is: Is & { networks: VniSet }
  should: Should
  kernel: Kernel
}

export function world(of: Form, tags: readonly number[] = []): World {
  const empty = Keyring.empty(of.suite)
  const keyring = tags.length > 0 ? empty.set(tags.map((tag) => key(tag))) : empty
  const is: World['is'] = {
    peers: new PeerTable(of.local.family),
    claims: new SpiIndex(),
    sharedPolicies: 0,
    networks: VniSet.none,
  }
  return { is, should: { form: of, keyring, networks: VniSet.none }, kernel: new Kernel() }
}

/** Adds references to peers and returns their slots. Ports are as the node's own. */
export function wish({ is, should }: World, ...peers: string[]): number[] {
  return peers.map((text) => {
    is.peers.parse(text)
    const slot = is.peers.insert()
    if (is.peers.retain(slot) === 1) {
      is.peers.port[slot] = should.form.natPort
      is.peers.portSource[slot] = PortSource.assumed
    }
    return slot
  })
}

/** A state as the kernel keeps it: its record, and its key by value. */
export interface ModelState {
  record: Uint8Array
  key: string
  source: string
  destination: string
  spi: number
}

export class Kernel {
  /** Whether it keeps XFRMA_MTIMER_THRESH, as from 5.17 on. */
  keepsThreshold = true
  /** By destination and SPI: the source takes no part. */
  readonly states = new Map<string, ModelState>()
  /** By direction, selector and mark. */
  readonly policies = new Map<string, Uint8Array>()

  /** Takes one record, and returns undefined or what it says against it. */
  take(record: Uint8Array, keys: readonly Uint8Array[]): 'EEXIST' | 'ESRCH' | 'EINVAL' | undefined {
    const operation = record[State.operation]!
    const [objects, id] =
      operation >= Operation.addPolicy ? [this.policies, policyId(record)] : [this.states, stateId(record)]
    const there = objects.has(id)
    const isAddition = operation === Operation.addState || operation === Operation.addPolicy
    if (isAddition && there) return 'EEXIST'
    if (operation === Operation.deleteState || operation === Operation.deletePolicy) {
      return objects.delete(id) ? undefined : 'ESRCH'
    }
    if (operation === Operation.updateState) return this.#update(id, record)
    if (operation === Operation.addState) {
      this.states.set(id, modelState(this.keepsThreshold ? record : without8(record, XFRMA.MTIMER_THRESH), keys))
    } else this.policies.set(id, record.slice())
    return undefined
  }

  /** xfrm_state_update: of an SA it changes the ports, if there are any before and after. */
  #update(id: string, record: Uint8Array): 'ESRCH' | 'EINVAL' | undefined {
    const state = this.states.get(id)
    if (state === undefined) return 'ESRCH'
    const [from, to] = [portsAt(record), portsAt(state.record)]
    if (from < 0 !== to < 0) return 'EINVAL'
    const changed = state.record.slice()
    if (from >= 0) changed.set(record.subarray(from, from + PORTS_BYTES), to)
    this.states.set(id, { ...state, record: changed })
    return undefined
  }

  /** What a dump gives: records naming keys by the first index, in `keys` or behind them, that has them. */
  dump(keys: readonly Uint8Array[]): { states: Uint8Array; policies: Uint8Array } {
    const known = keys.map((bytes) => Buffer.from(bytes).toString('hex'))
    const states = new RecordWriter()
    for (const state of this.states.values()) {
      states.record(state.record, Operation.addState)
      if (!known.includes(state.key)) known.push(state.key)
      states.u32(State.cipherKey, known.indexOf(state.key))
    }
    const policies = new RecordWriter()
    for (const policy of this.policies.values()) policies.record(policy, Operation.addPolicy)
    return { states: states.take(), policies: policies.take() }
  }

  /** SAs from here to that peer. */
  outboundTo(peer: string): ModelState[] {
    return [...this.states.values()].filter((state) => state.destination === peer)
  }

  clone(): Kernel {
    const copy = new Kernel()
    for (const [id, state] of this.states) copy.states.set(id, state)
    for (const [id, policy] of this.policies) copy.policies.set(id, policy)
    return copy
  }
}

/** Both ports of struct xfrm_encap_tmpl, after its type. */
const PORTS_BYTES = 4

/** Where the ports are in a state's record, or -1. */
function portsAt(record: Uint8Array): number {
  const at = attributeAt(record, 0, XFRMA.ENCAP)
  return at < 0 ? -1 : at + 2
}

/** Source and destination port of a state, as it is in UDP; undefined where it is not. */
export function portsOf({ record }: ModelState): [source: number, destination: number] | undefined {
  const at = portsAt(record)
  const port = (place: number) => (record[place]! << 8) | record[place + 1]!
  if (at < 0) return undefined
  if (at !== Encap.sourcePort) throw new Error('the ports are not where the writer has them')
  return [port(Encap.sourcePort), port(Encap.destinationPort)]
}

/** A record without an attribute of eight bytes, its header included. */
function without8(record: Uint8Array, type: number): Uint8Array {
  const at = attributeAt(record, 0, type)
  if (at < 0) return record
  const less = Uint8Array.from([...record.subarray(0, at - 4), ...record.subarray(at + 4)])
  new DataView(less.buffer).setUint32(State.length, less.length, LITTLE_ENDIAN)
  return less
}

function reader(record: Uint8Array): RecordReader {
  const found = new RecordReader(record)
  found.next()
  return found
}

function text(record: Uint8Array, offset: number): string {
  return formatAddress(record, offset, record[State.family]!)
}

function stateId(record: Uint8Array): string {
  return `${text(record, State.destination)} ${reader(record).u32(State.spi)}`
}

export function policyId(record: Uint8Array): string {
  const policy = reader(record)
  const selector = Buffer.from(record.subarray(Policy.destination, Policy.flags)).toString('hex')
  const mark = [...policy.attributes()].find(([type]) => type === 21)?.[1] ?? new Uint8Array()
  return `${policy.u8(Policy.direction)} ${selector} ${Buffer.from(mark).toString('hex')}`
}

function modelState(record: Uint8Array, keys: readonly Uint8Array[]): ModelState {
  const state = reader(record)
  return {
    record: record.slice(),
    key: Buffer.from(keys[state.u32(State.cipherKey)]!).toString('hex'),
    source: text(record, State.source),
    destination: text(record, State.destination),
    spi: state.u32(State.spi),
  }
}

export interface Step {
  phase: PhaseName
  head: number
  subject: number
  /** What came of it, if it took a message. */
  result: string | undefined
}

export interface Run {
  plan: Plan
  steps: Step[]
  failed: Set<number>
}

/**
 * Plans and carries out. `refuse` says of each message whether the kernel refuses it; `watch` is called after each
 * operation, with the kernel as it then is.
 */
export function converge(
  { is, should, kernel }: World,
  scope: Scope = {},
  refuse: () => boolean = () => false,
  watch: (step: Step) => void = () => undefined,
): Run {
  const made = plan(is, should, scope)
  const writer = OpWriter.of(should.form)
  const failed = new Set<number>()
  const steps: Step[] = []
  for (const planned of made.phases) {
    const phase = without(planned, failed, is)
    let refused = false
    for (const { head, subject, spi } of operationsOf(phase)) {
      const code = codeOf(head)
      const records = new RecordWriter()
      const written = writer.write(records, head, subject, spi, is, should, scope.damage)
      if (written !== hasMessage(code)) throw new Error(`${opName(code)}: a message or none?`)
      let result: string | undefined
      if (written) result = refuse() ? 'refused' : (kernel.take(records.take(), should.keyring.sideTable()) ?? 'ok')
      const ok = result === undefined || result === 'ok' || result === 'ESRCH'
      if (!settle(is, head, subject, spi, ok)) {
        failed.add(concernsPeer(code) ? subject : NO_PEER)
        refused = true
      }
      const step = { phase: phase.name, head, subject, result }
      steps.push(step)
      watch(step)
    }
    if (phase.name === 'guard' && refused) return { plan: made, steps, failed }
  }
  is.networks = should.networks
  return { plan: made, steps, failed }
}

/** Looks at the kernel: sets what is to it, and returns the damage. */
export function survey({ is, should, kernel }: World): Damage {
  const dump = kernel.dump(should.keyring.sideTable())
  const looking = new Survey(dump.states, dump.policies, is, should)
  while (!looking.step(3));
  return looking.finish()
}

/** Names of operations, in order, with the subject where it is a peer: `add inbound SA 7 10.0.0.2`. */
export function told({ is, should }: World, steps: readonly { head: number; subject: number }[]): string[] {
  return steps.map(({ head, subject }) => {
    const code = codeOf(head)
    if (!concernsPeer(code)) return `${opName(code)} ${subject}`
    const tag = code === Op.deletePolicy ? '' : ` ${should.keyring.tag(head >>> 8)}`
    return `${opName(code)}${tag} ${is.peers.text(subject)}`
  })
}

export function operationsOf({ ops }: Phase): { head: number; subject: number; spi: number }[] {
  return Array.from({ length: ops.length / OP_WORDS }, (_, i) => {
    const [head, subject, spi] = ops.subarray(i * OP_WORDS)
    return { head: head!, subject: subject!, spi: spi! }
  })
}

/** Operations of a plan by phase, without the phases that have none. */
export function phasesOf(of: World, made: Plan): Record<string, string[]> {
  const entries = made.phases.map((phase): [string, string[]] => [phase.name, told(of, operationsOf(phase))])
  return Object.fromEntries(entries.filter(([, steps]) => steps.length > 0))
}
