import { attributeAt, isPolicyRecord, recordLength, sameIdentity, startsOf } from '../../lib/kernel/record-identity.js'
import { LITTLE_ENDIAN, NO_ALGORITHM, NO_KEY, Operation, RecordWriter, State, Tail } from '../../lib/kernel/records.js'
import { Ending, type NativeOutcome, type Query, type SideTables } from '../../lib/kernel/xfrm-channel.js'
import { viewOf } from '../../lib/kernel/attributes.js'
import { NetlinkError, XfrmeshError } from '../../lib/base/errors.js'
import { Belonging } from '../../lib/node/belonging.js'
import type { NodeGuard } from '../../lib/node/guard.js'
import { type NodeKeys, parseKeys } from '../../lib/node/index.js'
import { NodeKeyring } from '../../lib/node/keyring.js'
import { NodeMesh } from '../../lib/node/mesh.js'
import type { XfrmPort } from '../../lib/node/port.js'
import type { Entry } from '../../lib/node/roster.js'
import { remote, type RemoteNode, settings } from '../../lib/node/settings.js'
import { TemplateLayout } from '../../lib/kernel/xfrm-parts.js'
import { XFRMA } from '../../lib/kernel/xfrm-names.js'
import { keyIdOf } from '../../lib/node/tunnels.js'

/** A simple model of the kernel's SAD and SPD, and of the guard, as a NodeMesh sees them: its processes come and go. */

const [ADDRESS, SUBNETS] = ['192.0.2.1', ['10.1.0.0/24']]
export const bootId = (boot: number): string => `00000000-0000-4000-8000-${String(boot).padStart(12, '0')}`

/** The keys of an id; another `value`, others of the same id. */
export function keysOf(id: number, value = 0): NodeKeys {
  const hex = Array.from({ length: 20 }, (_, i) => ((id * 31 + i * 7 + value) & 0xff).toString(16).padStart(2, '0'))
  return parseKeys(`${id} rfc4106(gcm(aes)) ${hex.join('')} 128`)
}

interface Held {
  readonly record: Uint8Array
  readonly keys: readonly (Uint8Array | undefined)[]
  readonly algorithms: readonly (string | undefined)[]
  readonly added: number
}

const KEYS = [State.cipherKey, State.authKey]
const ALGORITHMS = [State.cipherAlgorithm, State.authAlgorithm]
/** struct xfrm_lifetime_cur, and where in it the time is. */
const [CURRENT_BYTES, ADDED] = [32, 16]
const ENOENT = 2
const ESRCH = 3
const EEXIST = 17
const NO_MESSAGE = 0xffffffff

export class NodeKernel implements Pick<XfrmPort, 'chunk' | 'commit' | 'read'> {
  readonly chunk = 64
  /** Objects, the one added last first, as the kernel lists them. */
  held: Held[] = []
  /** What was asked of it and of the guard, in order. */
  readonly calls: string[] = []
  /** Called before anything is done: what it throws is thrown. */
  before: (call: string) => void = () => undefined
  /** Whether it takes an operation. */
  takes: (record: Uint8Array) => boolean = () => true

  #hear(call: string): void {
    this.calls.push(call)
    this.before(call)
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- it throws as the kernel's own does
  async commit(records: Uint8Array, { keys, algorithms }: SideTables): Promise<NativeOutcome> {
    this.#hear('commit')
    const failures: number[] = []
    const starts = startsOf(records)
    for (const [i, at] of starts.entries()) {
      const errno = this.#take(records.slice(at, at + recordLength(records, at)), keys, algorithms)
      if (errno !== 0) failures.push(i, errno, NO_MESSAGE)
    }
    const [sent, none] = [starts.length, { errno: 0, unknown: 0, messages: [], sends: 1, readBack: 0 }]
    return { ...none, ending: Ending.complete, sent, failures: Uint32Array.from(failures) }
  }

  #take(record: Uint8Array, keys: readonly Uint8Array[], algorithms: readonly string[]): number {
    if (!this.takes(record)) return EEXIST
    const operation = record[State.operation]!
    const isPolicy = isPolicyRecord(record, 0)
    const index = this.held.findIndex((one) => sameIdentity(one.record, 0, record, 0))
    if (operation === Operation.deleteState || operation === Operation.deletePolicy) {
      if (index < 0) return isPolicy ? ENOENT : ESRCH
      this.held.splice(index, 1)
      return 0
    }
    if (index >= 0 && operation !== Operation.updatePolicy) return EEXIST
    if (index >= 0) this.held.splice(index, 1)
    const view = viewOf(record)
    const own = (offset: number) => keys[view.getUint32(offset, LITTLE_ENDIAN)]?.slice()
    const name = (offset: number) => algorithms[view.getUint16(offset, LITTLE_ENDIAN)]
    const [ownKeys, names] = isPolicy ? [[], []] : [KEYS.map(own), ALGORITHMS.map(name)]
    this.held.unshift({ record, keys: ownKeys, algorithms: names, added: Math.floor(Date.now() / 1000) })
    return 0
  }

  // eslint-disable-next-line @typescript-eslint/require-await -- it throws as the kernel's own does
  async read({ policies, one, reqid, details, keys, algorithms }: Query): ReturnType<XfrmPort['read']> {
    this.#hear(one === undefined ? 'read' : 'read one')
    const found = this.held.filter(({ record }) => {
      if (isPolicyRecord(record, 0) !== policies) return false
      return one === undefined ? reqid === 0 || reqidOf(record) === reqid : sameIdentity(record, 0, one, 0)
    })
    if (one !== undefined && found.length === 0) throw new NetlinkError('read', ENOENT, 'there is none')
    const [allKeys, names] = [[...keys], [...algorithms]]
    const writer = new RecordWriter()
    for (const held of found) {
      writer.record(held.record, policies ? Operation.addPolicy : Operation.addState)
      if (policies) continue
      for (const [i, offset] of KEYS.entries()) {
        const key = held.keys[i]
        writer.u32(offset, key === undefined ? NO_KEY : allKeys.push(key.slice()) - 1)
      }
      for (const [i, offset] of ALGORITHMS.entries()) {
        const name = held.algorithms[i]
        const known = name === undefined ? NO_ALGORITHM : names.indexOf(name)
        writer.u16(offset, known < 0 ? names.push(name!) - 1 : known)
      }
      if (!details) continue
      const current = new Uint8Array(CURRENT_BYTES)
      viewOf(current).setBigUint64(ADDED, BigInt(held.added), LITTLE_ENDIAN)
      writer.attribute(Tail.current, current)
    }
    const records = writer.take()
    return { ending: Ending.complete, errno: 0, message: undefined, records, keys: allKeys, algorithms: names }
  }

  /** The guard, of which only that it is asked matters here. */
  get guard(): NodeGuard {
    const none = new Map()
    const sets = { local: none, remote: none, overlay: none }
    const state = { exists: true, intact: true, differences: [], sets, drops: { in: 0, out: 0 } }
    const done = (call: string) => async () => {
      await Promise.resolve()
      this.#hear(call)
      return state
    }
    return { apply: done('guard'), read: done('read guard'), remove: done('unguard') } as unknown as NodeGuard
  }

  /** Which way SAs lead and under which key: 'in 3' or 'out 4', in order, each once. */
  get states(): string[] {
    const { settings: given } = optionsOf(3, false)
    const belonging = new Belonging(given)
    const states = this.held.filter(({ record }) => !isPolicyRecord(record, 0))
    const names = states.map(({ record }) => {
      const id = keyIdOf(viewOf(record).getUint32(State.spi, LITTLE_ENDIAN))
      return `${belonging.isInbound(record, 0) ? 'in' : 'out'} ${id}`
    })
    return [...new Set(names)].sort()
  }
}

/** The way a call on NodeEncryption goes wrong where the kernel does not answer. */
export const late = (): XfrmeshError => new XfrmeshError('ERR_XFRMESH_TIMEOUT', 'out of time')

/** Of a policy, its template's; undefined if it has none. */
function reqidOf(record: Uint8Array): number | undefined {
  if (!isPolicyRecord(record, 0)) return viewOf(record).getUint32(State.reqid, LITTLE_ENDIAN)
  const template = attributeAt(record, 0, XFRMA.TMPL)
  return template < 0 ? undefined : viewOf(record).getUint32(template + TemplateLayout.reqid, LITTLE_ENDIAN)
}

function optionsOf(id: number, marks: false | 'cilium', address = ADDRESS) {
  const local = { addresses: [address], subnets: SUBNETS, bootId: bootId(1) }
  return settings({ local, keys: keysOf(id), marks })
}

/** A process: what it knows it has from the kernel, and from what it is told. */
export class Process {
  readonly mesh: NodeMesh
  readonly #marks: false | 'cilium'

  constructor(kernel: NodeKernel, id: number, marks: false | 'cilium' = false, address?: string) {
    this.#marks = marks
    const port = kernel as unknown as XfrmPort
    const { settings: given, keys } = optionsOf(id, marks, address)
    this.mesh = new NodeMesh(given, new NodeKeyring(keys), port, marks === false ? kernel.guard : undefined)
  }

  /** Names nodes by number, and makes the kernel follow. */
  upsert(numbers: readonly number[], boot = 1, change?: Partial<RemoteNode>): ReturnType<NodeMesh['follow']> {
    return this.mesh.follow(this.want(numbers, boot, change), {})
  }

  want(numbers: readonly number[], boot = 1, change?: Partial<RemoteNode>): Entry[] {
    const { settings: given } = optionsOf(3, this.#marks)
    return numbers.map((number) => {
      const node = {
        name: `node${number}`,
        addresses: [`192.0.2.${number}`],
        subnets: [`10.${number}.0.0/24`],
        bootId: bootId(number * 100 + boot),
        ...(this.#marks !== false && { id: number }),
        ...change,
      }
      return this.mesh.roster.want(remote(node, 'node', given))
    })
  }

  /** Names nodes by number that are no more. */
  remove(numbers: readonly number[]): ReturnType<NodeMesh['follow']> {
    return this.mesh.follow(
      numbers.map((number) => this.mesh.roster.drop(`node${number}`)!),
      {},
    )
  }

  /** Prepares keys, and commits them. */
  async rotate(keys: NodeKeys): Promise<void> {
    await this.mesh.prepare(keys, {})
    await this.mesh.commit({})
  }

  /** What is lacking, by node. */
  get lacks(): Record<string, string> {
    const lacking = this.mesh.roster.entries.filter(({ lack }) => lack !== undefined)
    return Object.fromEntries(lacking.map(({ node, lack }) => [node.name, lack!]))
  }
}
