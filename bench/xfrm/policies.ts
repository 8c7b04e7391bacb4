import { native } from '#dist/native.js'
import { take } from '#dist/kernel/xfrm-batch.js'
import { type PolicyOptions, Xfrm, XfrmBatch } from 'xfrmesh/xfrm'
import { watchFromHere } from '../anatomy/watch.js'
import type { Contestant, Sample, Scenario, Session } from '../harness/contest.js'
import { keepFile } from '../harness/files.js'
import { allAtOnce, floorOf } from '../harness/floor.js'
import { few } from '../harness/round.js'
import { kept, session } from '../harness/sessions.js'
import { expectPolicies, forwardSpi, KEYS, LOCAL, MARK, peerAddress, PORT } from './common.js'
import { DockerNode } from './docker.js'
import { ipBatch, ipEach, type Lines, policyDeletion, policyLine } from './ip.js'

const [FIRST, SECOND] = KEYS.map(({ tag }) => tag) as [number, number]

/** Docker's policies, one a peer, without its SAs: what kernels without ESP can be measured by. */
export const policies: Scenario = {
  name: 'policies',
  title: 'N policies, one a peer as Docker has them: add, point each to the next SPI, delete',
  unit: 'policies',
  needsEsp: false,
  sizes: { quick: [1000], full: [100, 1000, 10_000, 20_000, 50_000, 100_000] },
  steps: [
    {
      name: 'add',
      operations: (size) => size,
      check: (namespace, size, thorough) => expectPolicies(namespace, size, thorough ? FIRST : undefined),
    },
    {
      name: 'update',
      operations: (size) => size,
      check: (namespace, size, thorough) => expectPolicies(namespace, size, thorough ? SECOND : undefined),
    },
    { name: 'delete', operations: (size) => size, check: (namespace) => expectPolicies(namespace, 0) },
  ],
  ours: [ours('xfrmesh', false), ours('xfrmesh, boost', true)],
  others: (size) => {
    const lines: Lines = {
      add: (i) => [policyLine('add', i, FIRST)],
      update: (i) => [policyLine('update', i, SECOND)],
      delete: (i) => [policyDeletion(i)],
    }
    const files = messages(size)
    return Promise.resolve([
      floorOf(files, 'xfrm'),
      { ...docker, mostRounds: few },
      { ...ipBatch(lines), mostRounds: few },
      ipEach(lines, 100),
      // Its time grows with the square of their number.
      { ...allAtOnce(files, 'xfrm'), most: 50_000, mostRounds: (n) => (n > 20_000 ? 1 : few(n)) },
    ])
  },
}

const fills = {
  add: (batch: XfrmBatch, policy: PolicyOptions) => batch.addPolicy(policy),
  update: (batch: XfrmBatch, policy: PolicyOptions) => batch.updatePolicy(policy),
  delete: (batch: XfrmBatch, { direction, selector, mark }: PolicyOptions) =>
    batch.deletePolicy({ direction, selector, mark: mark! }),
}
type StepName = keyof typeof fills
const stepNames = Object.keys(fills) as StepName[]

function policiesOf(size: number, tag: number): PolicyOptions[] {
  return Array.from({ length: size }, (_, i) => ({
    direction: 'out',
    selector: { source: `${LOCAL}/32`, destination: `${peerAddress(i)}/32`, protocol: 'udp', destinationPort: PORT },
    mark: { value: MARK, mask: 0xffffffff },
    templates: [
      {
        source: LOCAL,
        destination: peerAddress(i),
        protocol: 'esp',
        mode: 'transport',
        reqid: MARK,
        spi: forwardSpi(i, tag),
      },
    ],
  }))
}

function fill(step: StepName, given: readonly PolicyOptions[]): XfrmBatch {
  const batch = new XfrmBatch()
  for (const policy of given) fills[step](batch, policy)
  return batch
}

const wanted = kept((size): Record<StepName, PolicyOptions[]> => {
  const first = policiesOf(size, FIRST)
  return { add: first, update: policiesOf(size, SECOND), delete: first }
})

function ours(name: string, boost: boolean): Contestant {
  return { name, role: 'ours', open: ({ netns }, size) => openOurs(netns, size, boost) }
}

async function openOurs(netns: string, size: number, boost: boolean): Promise<Session> {
  const given = wanted(size)
  const xfrm = await Xfrm.open({ netns, boost, timeoutMs: 600_000 })
  const doing = (step: StepName) => async (): Promise<Sample> => {
    const began = performance.now()
    const batch = fill(step, given[step])
    const buildMs = performance.now() - began
    await watchFromHere()
    const { failures } = await xfrm.commit(batch)
    const ms = performance.now() - began
    if (failures.length > 0) throw new Error(`${failures.length} refused: ${failures[0]!.message}`)
    return { ms, buildMs, commitMs: ms - buildMs }
  }
  return session(Object.fromEntries(stepNames.map((step) => [step, doing(step)])), () => xfrm.close())
}

/** The messages that ours become, a file for each step. */
function messages(size: number): Record<StepName, string> {
  const given = wanted(size)
  const files = stepNames.map((step) => {
    const { records, tables } = take(fill(step, given[step]))
    return [step, keepFile(native.encode(records, tables.keys, tables.algorithms))]
  })
  return Object.fromEntries(files) as Record<StepName, string>
}

const docker: Contestant = {
  name: 'Go (Docker)',
  role: 'peer',
  open: async (namespace, size) => {
    const node = await DockerNode.start(namespace, size, KEYS, ['--without-states'])
    return session(
      {
        add: () => node.addPeers(),
        update: () => node.updateKeys({ primary: SECOND }),
        delete: () => node.removePeers(),
      },
      () => node.end(),
    )
  },
}
