import { join } from 'node:path'
import { type Endpoint, Endpoints } from 'xfrmesh/vxlan'
import type { Contestant, Scenario, Session, Step } from '../harness/contest.js'
import { keepFile } from '../harness/files.js'
import { neighbourFloor } from '../harness/recording.js'
import { kept, LineProgram, session, timed } from '../harness/sessions.js'

/** Endpoints of a VXLAN link: their neighbour and FDB entries. It takes no ESP. */

const LINK = 'vx0'
/** Commands of `ip`. The recorded messages name the link by its index. */
const link = [
  `link add index 100 ${LINK} type vxlan id 4096 dstport 4789 local 10.100.0.1 nolearning`,
  `link set ${LINK} up`,
]
const prepare: Scenario['prepare'] = (namespace) => namespace.ip(link.map((command) => command.split(' ')))
/** Endpoints at each VTEP. */
const PER_VTEP = 10

/** The endpoints, at their VTEPs; or all of them each at the next but one. */
const endpointsOf = (size: number, moved = false): Endpoint[] =>
  Array.from({ length: size }, (_, i) => {
    const bytes = [i >> 16, (i >> 8) & 255, i & 255]
    const vtep = 1 + Math.floor(i / PER_VTEP) + (moved ? 2 : 0)
    return {
      ip: `10.${bytes.join('.')}`,
      mac: `02:42:0a:${bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':')}`,
      vtep: `11.${vtep >> 16}.${(vtep >> 8) & 255}.${vtep & 255}`,
    }
  })

const check =
  (expected: (size: number) => Endpoint[]): Step['check'] =>
  async (namespace, size) => {
    const wanted = expected(size)
    const fdb = await namespace.run('bridge', ['-j', 'fdb', 'show', 'dev', LINK])
    const neighbours = await namespace.run('ip', ['-j', 'neigh', 'show', 'dev', LINK, 'nud', 'permanent'])
    compare(
      (JSON.parse(fdb) as { mac: string; dst: string }[]).map(({ mac, dst }) => `${mac} to ${dst}`),
      wanted.map(({ mac, vtep }) => `${mac} to ${vtep}`),
    )
    compare(
      (JSON.parse(neighbours) as { dst: string; lladdr: string }[]).map(({ dst, lladdr }) => `${dst} at ${lladdr}`),
      wanted.map(({ ip, mac }) => `${ip} at ${mac}`),
    )
  }

function compare(listed: readonly string[], wanted: readonly string[]): void {
  const there = new Set(listed)
  const missing = wanted.filter((entry) => !there.has(entry))
  if (missing.length > 0) throw new Error(`${missing.length} entries are missing, ${missing[0]} for one`)
  if (listed.length !== wanted.length) throw new Error(`${listed.length} entries are there, not ${wanted.length}`)
}

const steps: readonly Step[] = [
  { name: 'add', operations: (size) => 2 * size, check: check((size) => endpointsOf(size)) },
  { name: 'move', operations: (size) => size, check: check((size) => endpointsOf(size, true)) },
  { name: 'remove', operations: (size) => 2 * size, check: check(() => []) },
]

const peers = join(import.meta.dirname, '../../..')

/** What each step is given: the endpoints as they are, where they move, and again these, to go. */
const givenOf = kept((size) => {
  const moved = endpointsOf(size, true)
  return { add: endpointsOf(size), move: moved, remove: moved }
})

function sessionOf(
  size: number,
  doing: (name: string, list: readonly Endpoint[]) => Parameters<typeof session>[0][string],
  close?: () => Promise<void>,
): Session {
  const given = givenOf(size)
  return session(Object.fromEntries(Object.entries(given).map(([name, list]) => [name, doing(name, list)])), close)
}

const ours: Contestant = {
  name: 'xfrmesh',
  role: 'ours',
  open: async (namespace, size) => {
    const all = new Endpoints({ link: LINK, netns: namespace.netns, timeoutMs: 600_000 })
    const doing = (name: string, list: readonly Endpoint[]) => () =>
      timed(() => (name === 'remove' ? all.remove(list) : all.add(list)))
    const opened = sessionOf(size, doing, () => all.close())
    // The others have their sockets open too before a clock starts.
    await all.add(endpointsOf(1))
    await all.remove(endpointsOf(1))
    return opened
  },
}

/** `bridge -batch` for the FDB and `ip -batch` for neighbours, one after the other. */
const iproute: Contestant = {
  name: 'bridge -batch, ip -batch',
  role: 'peer',
  open: (namespace, size) =>
    Promise.resolve(
      sessionOf(size, (name, list) => {
        const isGoing = name === 'remove'
        const fdb = list.map(({ mac, vtep }) =>
          isGoing
            ? `fdb delete ${mac} dev ${LINK} dst ${vtep} self`
            : `fdb replace ${mac} dev ${LINK} dst ${vtep} self permanent`,
        )
        const neighbours = list.map(({ ip, mac }) =>
          isGoing ? `neigh delete ${ip} dev ${LINK}` : `neigh replace ${ip} lladdr ${mac} dev ${LINK} nud permanent`,
        )
        const bridge = ['bridge', keepFile(`${fdb.join('\n')}\n`)] as const
        const ip = ['ip', keepFile(`${neighbours.join('\n')}\n`)] as const
        const order = { add: [bridge, ip], move: [bridge], remove: [ip, bridge] }[name]!
        return () =>
          timed(async () => {
            for (const [command, file] of order) await namespace.run(command, ['-batch', file])
          })
      }),
    ),
}

/** A program of bench/peers that reads a command a line. */
function program(name: string, command: string, args: readonly string[]): Contestant {
  return {
    name,
    role: 'peer',
    open: (namespace, size) => {
      const running = LineProgram.start(namespace, command, args)
      const lines = (op: string, list: readonly Endpoint[]) => {
        const line = JSON.stringify({ op, link: LINK, endpoints: list })
        return () => running.tell(line)
      }
      return Promise.resolve(sessionOf(size, lines, () => running.end()))
    },
  }
}

export const endpoints: Scenario = {
  name: 'endpoints',
  title: 'N endpoints of a VXLAN link, ten at a VTEP: add, move all to other VTEPs, remove',
  unit: 'endpoints',
  needsEsp: false,
  sizes: { quick: [1000], full: [1000, 10_000, 100_000] },
  mostRounds: (size) => (size > 10_000 ? 7 : 21),
  prepare,
  steps,
  ours: [ours],
  others: async (size) => [
    await neighbourFloor({ prepare, steps }, ours, size, link),
    iproute,
    program('Go (vishvananda/netlink)', join(peers, 'build/peers/neighbours'), []),
    { ...program('pyroute2', '/usr/bin/python3', ['-B', join(peers, 'bench/peers/neighbours.py')]), most: 10_000 },
  ],
}
