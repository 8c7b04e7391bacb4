import { NeighbourChannel } from '#dist/kernel/neighbours.js'
import { Nft, NftTransaction } from '#dist/kernel/nft.js'
import type { SideTables } from '#dist/kernel/xfrm-channel.js'
import { Ending, native, type NativeDump, type NativeOutcome } from '#dist/native.js'
import type { Ports } from '#dist/overlay/ports.js'
import { inNamespace } from './round.js'
import type { Contestant, Scenario, Step } from './contest.js'
import { keepFile } from './files.js'
import { floorOf } from './floor.js'

/** A kernel that says yes to all: what an Overlay sends it is kept, or thrown away where only the sending is measured. */
export class YesKernel {
  #messages: Uint8Array[] = []
  readonly #keep: boolean

  constructor(keep: boolean) {
    this.#keep = keep
  }

  readonly ports: Ports = {
    xfrm: {
      commit: (records, tables) => Promise.resolve(this.#yes(records, tables)),
      read: () => Promise.resolve(nothing),
      close: () => Promise.resolve(),
    },
    // It has no endpoints.
    hasSocketOf: () => Promise.resolve(false),
    close: () => Promise.resolve(),
  }

  /** The file of the messages since the last call. */
  take(): string {
    const file = keepFile(...this.#messages)
    this.#messages = []
    return file
  }

  #yes(records: Uint8Array, { keys, algorithms }: SideTables): NativeOutcome {
    if (this.#keep) this.#messages.push(native.encode(records, keys, algorithms))
    const view = new DataView(records.buffer, records.byteOffset, records.byteLength)
    let sent = 0
    for (let at = 0; at < records.length; at += view.getUint32(at, true)) sent++
    return { ...yes, sent }
  }
}

const yes: NativeOutcome = {
  ending: Ending.complete,
  errno: 0,
  sent: 0,
  unknown: 0,
  failures: new Uint32Array(),
  messages: [],
  sends: 0,
  readBack: 0,
}

const nothing: NativeDump = {
  ending: Ending.complete,
  errno: 0,
  message: undefined,
  records: new Uint8Array(),
  keys: [],
  algorithms: [],
}

/**
 * The floor of a contestant that commits nftables transactions: goes through the steps with it, in a namespace made for
 * that, and replays what it committed. In a namespace that the same was done to before, handles are the same.
 */
export async function nftFloor(steps: readonly Step[], contestant: Contestant, size: number): Promise<Contestant> {
  return floorOf(await recorded({ steps }, contestant, size, transactionsOf), 'nft')
}

/** Goes through the steps, and keeps a file of messages for each. */
function recorded(
  { prepare, steps }: Pick<Scenario, 'prepare' | 'steps'>,
  contestant: Contestant,
  size: number,
  messagesOf: (work: () => Promise<unknown>) => Promise<Uint8Array[]>,
): Promise<Record<string, string>> {
  return inNamespace(async (namespace) => {
    await prepare?.(namespace)
    const session = await contestant.open(namespace, size)
    const files: Record<string, string> = {}
    try {
      for (const step of steps) {
        await step.before?.(namespace, size)
        files[step.name] = keepFile(...(await messagesOf(() => session.step(step.name))))
      }
    } finally {
      await session.close()
    }
    return files
  })
}

/** The floor of a contestant that commits neighbour entries of a link: as {@link nftFloor}. */
export async function neighbourFloor(
  scenario: Pick<Scenario, 'prepare' | 'steps'>,
  contestant: Contestant,
  size: number,
  link: readonly string[],
): Promise<Contestant> {
  return floorOf(await recorded(scenario, contestant, size, neighboursOf), 'route', { link })
}

/** The transactions that `work` commits, each as the bytes of one send, whatever the ruleset's generation; no refused one. */
async function transactionsOf(work: () => Promise<unknown>): Promise<Uint8Array[]> {
  const transactions: Uint8Array[] = []
  const taken = new Map<NftTransaction, Uint8Array>()
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called with the transaction that it is called on
  const take = NftTransaction.prototype.take
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called with the Nft that it is called on
  const commit = Nft.prototype.commit
  NftTransaction.prototype.take = function () {
    const records = take.call(this)
    if (records.length > 0) taken.set(this, native.encodeTransaction(records, 0, this.held))
    return records
  }
  Nft.prototype.commit = async function (transaction, options) {
    const result = await commit.call(this, transaction, options)
    const bytes = taken.get(transaction)
    if (bytes !== undefined && result.failures.length === 0) transactions.push(bytes)
    return result
  }
  try {
    await work()
  } finally {
    NftTransaction.prototype.take = take
    Nft.prototype.commit = commit
  }
  return transactions
}

/** The messages of neighbour entries that `work` sends. */
async function neighboursOf(work: () => Promise<unknown>): Promise<Uint8Array[]> {
  const messages: Uint8Array[] = []
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called with the channel that it is called on
  const commit = NeighbourChannel.prototype.commit
  NeighbourChannel.prototype.commit = function (records) {
    messages.push(native.encodeNeighbours(records))
    return commit.call(this, records)
  }
  try {
    await work()
  } finally {
    NeighbourChannel.prototype.commit = commit
  }
  return messages
}
