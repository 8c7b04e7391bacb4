import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Overlay, type OverlayOptions } from '../../lib/index.js'
import { Policy, RecordReader, State } from '../../lib/kernel/records.js'
import { XfrmChannel } from '../../lib/kernel/xfrm-channel.js'
import { call, LOCAL, ModelPorts, type StoryCall, tell } from '../unit/stories.js'
import { inNetns, withNetns } from './netns.js'

/** The stories of test/unit/overlay.property.test.ts, fewer, told to a real kernel and to the model: both end up the same. */

const RUNS = 8
const MARK = 0x58464d

const options: Partial<OverlayOptions>[] = [
  {},
  { policies: 'per-peer' },
  { exclusive: true },
  { policies: 'per-peer', exclusive: true, replayWindow: 32 },
]

test.each(options)('random calls with %o leave in the kernel what they leave in the model', async (chosen) => {
  const stories = fc.sample(fc.array(call, { minLength: 10, maxLength: 25 }), { numRuns: RUNS, seed: 20_261_120 })
  let states = 0
  for (const story of stories) states += await expectSame(story, { local: LOCAL, ...chosen })
  // Stories that leave nothing would show nothing.
  expect(states).toBeGreaterThan(0)
})

/** Tells a story to both, comparing after each call. Returns how many SAs there were in all. */
async function expectSame(story: StoryCall[], chosen: OverlayOptions): Promise<number> {
  return withNetns(async (netns) => {
    const ports = new ModelPorts()
    const model = Overlay.over(chosen, ports)
    await using real = await Overlay.open({ ...chosen, netns })
    await using channel = await Dumper.open(netns)
    let states = 0
    for (const each of story) {
      const expected = await tell(model, each)
      const ended = await tell(real, each)
      expect(comparable(ended), JSON.stringify(each)).toEqual(comparable(expected))
      const found = await channel.dump()
      const { states: wanted, policies } = ports.kernel.dump([])
      expect(found.states).toEqual(listed(wanted))
      expect(found.policies).toEqual(listed(policies))
      states += found.states.length
    }
    expect(await vnisOf(netns)).toEqual([...ports.guarded].sort((a, b) => a - b))
    await real.close({ flush: true })
    expect(await channel.dump()).toEqual({ states: [], policies: [] })
    return states
  })
}

/** A result without what differs from run to run. */
function comparable(ended: unknown): unknown {
  if (ended instanceof Error) return `${ended.name}: ${ended.message}`
  const { elapsedMs: _elapsed, ...rest } = ended as { elapsedMs?: number }
  return rest
}

class Dumper implements AsyncDisposable {
  readonly #channel: XfrmChannel

  private constructor(channel: XfrmChannel) {
    this.#channel = channel
  }

  static async open(netns: string): Promise<Dumper> {
    return new Dumper(await XfrmChannel.open({ netns }))
  }

  async dump(): Promise<{ states: string[]; policies: string[] }> {
    const query = { reqid: MARK, details: false, keys: [], algorithms: [] }
    const [states, policies] = await Promise.all([
      this.#channel.read({ ...query, policies: false }),
      this.#channel.read({ ...query, policies: true }),
    ])
    return { states: listed(states.records), policies: listed(policies.records) }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#channel.close()
  }
}

/** Records as text, in order, without what names a key by index. */
function listed(records: Uint8Array): string[] {
  const reader = new RecordReader(records)
  const lines: string[] = []
  while (reader.next()) {
    const record = reader.record().slice()
    record[State.operation] = 0
    const isState = reader.u8(Policy.operation) < 4
    if (isState) record.fill(0, State.cipherKey, State.authAlgorithm)
    lines.push(Buffer.from(record).toString('hex'))
  }
  return lines.sort()
}

async function vnisOf(netns: string): Promise<number[]> {
  const { nftables } = JSON.parse(await inNetns(netns, 'nft', '-j', 'list', 'ruleset')) as {
    nftables: { set?: { name: string; elem?: number[] } }[]
  }
  return (nftables.find(({ set }) => set?.name === 'encrypted-vnis')?.set?.elem ?? []).sort((a, b) => a - b)
}
