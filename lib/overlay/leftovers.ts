import { ADDRESS_BYTES } from '../base/address.js'
import { Pace } from '../base/pace.js'
import { recordAt } from '../kernel/record-identity.js'
import { Policy, RecordWriter, State } from '../kernel/records.js'
import type { RecordList } from './state.js'

/** Records of one remote address: where they start in their dumps. */
interface Found {
  readonly states: number[]
  readonly policies: number[]
}

/**
 * What a look found of ours that was nobody's: what an earlier process made. By remote address, so that a peer added
 * later takes over its own without another look. As long as we hold the lock nobody else changes it.
 */
export class Leftovers {
  readonly #states: RecordList
  readonly #policies: RecordList
  readonly #byAddress = new Map<string, Found>()

  private constructor(states: RecordList, policies: RecordList) {
    this.#states = states
    this.#policies = policies
  }

  /** @param local this node's 16 bytes: the other end is the remote one */
  static async sort(states: RecordList, policies: RecordList, local: Uint8Array): Promise<Leftovers> {
    const sorted = new Leftovers(states, policies)
    const pace = new Pace()
    for (const [list, kind] of [
      [states, 'states'],
      [policies, 'policies'],
    ] as const) {
      for (let i = 0; i < list.at.length; i++) {
        const at = list.at[i]!
        const destination = list.records.subarray(at + State.destination, at + State.destination + ADDRESS_BYTES)
        const inbound = kind === 'states' && Buffer.compare(destination, local) === 0
        const offset = inbound ? State.source : kind === 'states' ? State.destination : Policy.destination
        sorted.#of(list.records, at + offset)[kind].push(at)
        if (pace.isDue) await pace.breathe()
      }
    }
    return sorted
  }

  get isEmpty(): boolean {
    return this.#byAddress.size === 0
  }

  /** Takes out what is of the addresses that lie packed at these slots: as records of their own, or undefined if nothing is. */
  take(bytes: Uint8Array, slots: readonly number[]): { states: Uint8Array; policies: Uint8Array } | undefined {
    if (this.isEmpty) return undefined
    const states = new RecordWriter(1024)
    const policies = new RecordWriter(1024)
    for (const slot of slots) {
      const address = key(bytes, slot * ADDRESS_BYTES)
      const found = this.#byAddress.get(address)
      if (found === undefined) continue
      this.#byAddress.delete(address)
      copy(this.#states, found.states, states)
      copy(this.#policies, found.policies, policies)
    }
    if (states.count + policies.count === 0) return undefined
    return { states: states.take(), policies: policies.take() }
  }

  #of(records: Uint8Array, offset: number): Found {
    const address = key(records, offset)
    let found = this.#byAddress.get(address)
    if (!found) this.#byAddress.set(address, (found = { states: [], policies: [] }))
    return found
  }
}

function key(bytes: Uint8Array, offset: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + offset, ADDRESS_BYTES).toString('latin1')
}

function copy(list: RecordList, at: readonly number[], into: RecordWriter): void {
  for (const start of at) {
    into.record(recordAt(list.records, start), list.records[start + State.operation]!)
  }
}
