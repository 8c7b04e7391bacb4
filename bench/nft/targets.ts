import type { Line } from '../harness/report.js'
import type { Judgement } from '../targets.js'

/** What is asked of nftables in bulk: the Firewall's networks, and masquerading in both layouts. */

const SIZE = 10_000
const FLOOR_TIMES = 1.3
const PLUGINS = 'CNI plugins (nft)'

interface Target {
  readonly what: string
  readonly scenario: string
  readonly steps: readonly string[]
  /** Ours, held against the floor: at most so many times its time. Another: at least so many times ours. */
  readonly name: string
  readonly times: number
  readonly to: 'floor' | 'ours'
}

const targets: readonly Target[] = [
  ...(
    [
      ['masquerade-rules', 'load', "xfrmesh, 'rules'", PLUGINS, '10,000 masquerade rules loaded'],
      ['networks', 'add', 'xfrmesh', 'nft -f', '10,000 networks added'],
    ] as const
  ).flatMap(([scenario, step, ours, peer, what]): Target[] => [
    {
      what: `${what}, against the same transaction from C`,
      ...{ scenario, steps: [step], name: ours, times: FLOOR_TIMES, to: 'floor' },
    },
    { what: `${what}, against \`nft -f\``, scenario, steps: [step], name: peer, times: 2, to: 'ours' },
  ]),
  {
    what: "10,000 mappings loaded in 'set', against `nft -f` of the rules",
    ...{ scenario: 'masquerade-set', steps: ['load'], name: PLUGINS, times: 10, to: 'ours' },
  },
  {
    what: "one among 10,000 in 'set', against the list by comment and `nft -f`",
    ...{ scenario: 'masquerade-set', steps: ['add one', 'remove one'], name: PLUGINS, times: 100, to: 'ours' },
  },
  {
    what: "the same in 'set', after others wrote",
    scenario: 'masquerade-set',
    steps: ['add one, others wrote', 'remove one, others wrote'],
    ...{ name: PLUGINS, times: 5, to: 'ours' },
  },
  {
    what: "the same in 'rules'",
    ...{ scenario: 'masquerade-rules', steps: ['add one', 'remove one'], name: PLUGINS, times: 100, to: 'ours' },
  },
  {
    what: "the same in 'rules', after others wrote",
    scenario: 'masquerade-rules',
    steps: ['add one, others wrote', 'remove one, others wrote'],
    ...{ name: PLUGINS, times: 5, to: 'ours' },
  },
]

/** Those of which there are figures. */
export function judgeNft(lines: readonly Line[]): Judgement[] {
  return targets.flatMap(({ what, scenario, steps, name, times, to }) => {
    const found = lines.filter(
      (line) =>
        line.scenario === scenario &&
        line.size === SIZE &&
        line.name === name &&
        line.part === undefined &&
        steps.includes(line.step),
    )
    if (found.length === 0) return []
    const ratio = (line: Line) => (to === 'floor' ? line.toFloor!.median : line.toOurs!)
    const said = (line: Line) => {
      if (to === 'floor') return `${line.step}: ${ratio(line).toFixed(2)}`
      const floors = line.toFloor === undefined ? '' : ` (the floor of it ${line.toFloor.median.toFixed(1)})`
      return `${line.step}: ${ratio(line).toFixed(1)}${floors}`
    }
    return [
      {
        what,
        wanted: to === 'floor' ? `at most ${times} times` : `at least ${times} times as fast`,
        seen: found.map(said).join('<br>'),
        holds: found.every((line) => (to === 'floor' ? ratio(line) <= times : ratio(line) >= times)),
      },
    ]
  })
}
