import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { release, tmpdir } from 'node:os'
import { join } from 'node:path'
import { InvalidArgumentError, Option, type Command } from 'commander'
import { stringify } from 'yaml'
import { U16 } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { hostAddress } from '../demo/hosts.js'
import { count, number, runDemo, speed, total, type DemoInput, type DemoResult } from '../demo/demo.js'
import type { KeyInput, SuiteName } from '../index.js'
import { suites } from '../overlay/suites.js'
import { familyOf, loadCluster, type Cluster } from './cluster.js'
import { Exit } from './errors.js'
import { loadKeyFile } from './keyfile.js'
import type { Streams } from './program.js'
import { ProgressShow } from './show.js'

interface DemoOptions {
  peers: number
  hosts: number
  family: '4' | '6'
  suite: SuiteName
  policies: 'shared' | 'per-peer'
  exclusive: boolean
  json: boolean
}

/** As many as 198.18.0.0/15 has room for (RFC 2544: for tests of this kind). */
const MOST_PEERS = 100_000
const MOST_HOSTS = 16

/** xfrmesh demo */
export function addDemo(program: Command, streams: Streams, finished: (status: number) => void): void {
  program
    .command('demo')
    .summary('show it all: hosts, peers, traffic as ESP, a rotation that loses nothing')
    .description(
      'Makes hosts in network namespaces, encrypts a VXLAN network between them, programs thousands of peers, rotates keys ' +
        'under traffic, and takes all down again. Fails if a packet leaked, was lost, or if something was left. ' +
        'Needs root and a kernel with ESP; in a checkout `npm run demo` brings one.',
    )
    .argument(
      '[FILE]',
      'cluster file: its first nodes become the hosts, the others further peers. Default: one is made',
    )
    .addOption(new Option('--peers <N>', 'further peers on each host').argParser(integer(0, MOST_PEERS)).default(2000))
    .addOption(new Option('--hosts <N>', 'hosts to make').argParser(integer(2, MOST_HOSTS)).default(2))
    .addOption(new Option('--family <N>', 'IP version of the outer addresses').choices(['4', '6']).default('4'))
    .addOption(new Option('--suite <NAME>', 'what encrypts').choices(Object.keys(suites)).default('aes-gcm-64'))
    .addOption(
      new Option('--policies <KIND>', 'one for all peers, or one each')
        .choices(['shared', 'per-peer'])
        .default('shared'),
    )
    .option('--exclusive', 'all networks on this port are encrypted, and the SPD alone enforces it', false)
    .option('--json', 'print the result as JSON', false)
    .action(async (file: string | undefined, options: DemoOptions, command: Command) => {
      finished(await demo(file, options, command, streams))
    })
}

async function demo(
  file: string | undefined,
  options: DemoOptions,
  command: Command,
  streams: Streams,
): Promise<number> {
  if (file !== undefined) {
    for (const name of ['peers', 'family', 'suite']) {
      if (command.getOptionValueSource(name) === 'cli') command.error(`error: option '--${name}': FILE says that`)
    }
  }
  const { stdout, stderr } = streams
  const show = new ProgressShow(options.json ? stderr : stdout)
  const path = file ?? generate(options)
  const cluster = await loadCluster(path)
  const input = { ...demoInput(cluster, options), ...(await demoKeys(cluster)) }
  show.part(`Cluster file ${path}${file === undefined ? ', made for this run' : ''}`)
  for (const line of describe(cluster)) show.line(line)

  const result = await runDemo(input, show)
  if (options.json) stdout.write(`${JSON.stringify(document(cluster, input, result), null, 2)}\n`)
  else stdout.write(`\n${table(cluster, input, result)}\n`)
  for (const problem of result.problems) stderr.write(`xfrmesh: demo: ${problem}\n`)
  return result.problems.length === 0 ? Exit.ok : Exit.failed
}

function integer(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : NaN
    if (!(value >= min && value <= max)) throw new InvalidArgumentError(`An integer from ${min} to ${max}.`)
    return value
  }
}

/** Writes a cluster file and its key file, gone when the process is. */
function generate({ peers, hosts, family, suite }: DemoOptions): string {
  const directory = mkdtempSync(join(tmpdir(), 'xfrmesh-demo-'))
  process.on('exit', () => {
    rmSync(directory, { recursive: true, force: true })
  })
  const keys = [1, 2].map((tag) => ({ tag, value: newKey(suite).toString('hex') }))
  writeFileSync(join(directory, 'keys.yaml'), stringify(keys), { mode: 0o600 })
  const nodes = [
    ...Array.from({ length: hosts }, (_, i) => ({
      name: `host-${i + 1}`,
      address: hostAddress(family === '4' ? 4 : 6, i + 1),
    })),
    ...Array.from({ length: peers }, (_, i) => ({ name: `peer-${i + 1}`, address: peerAddress(family, i + 1) })),
  ]
  const file = join(directory, 'cluster.yaml')
  writeFileSync(file, stringify({ port: 4789, suite, keys: 'keys.yaml', networks: [{ vni: 4096 }], nodes }))
  return file
}

/** The address of further peer i, from 1: in 198.18.0.0/15 (RFC 2544), or 2001:db8:1::/96 (RFC 3849). */
function peerAddress(family: '4' | '6', i: number): string {
  if (family === '4') return `198.${18 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`
  return `2001:db8:1::${(i >> 16).toString(16)}:${(i & U16).toString(16)}`
}

function newKey(suite: SuiteName): Buffer {
  return randomBytes(suites[suite].keyBytes[0]!)
}

function demoInput(cluster: Cluster, options: DemoOptions): Omit<DemoInput, 'keys' | 'nextKey'> {
  const { port, suite, networks, nodes } = cluster
  const { policies, exclusive } = options
  if (networks.length === 0) throw new InvalidArgument('networks', 'a list of at least one, for the demo')
  if (nodes.length < options.hosts) {
    throw new InvalidArgument('nodes', `a list of at least ${options.hosts}, the demo's hosts`, nodes)
  }
  const hosts = nodes.slice(0, options.hosts)
  hosts.forEach(({ address, advertise = address }, i) => {
    if (advertise !== address)
      throw new InvalidArgument(`nodes[${i}].advertise`, 'left out: there is no NAT between the hosts')
  })
  return {
    port,
    suite,
    networks: networks.map(({ vni }) => vni),
    hosts,
    peers: nodes.slice(options.hosts).map(({ address, advertise }) => advertise ?? address),
    policies,
    exclusive,
  }
}

async function demoKeys({ keys: file, suite }: Cluster): Promise<{ keys: KeyInput[]; nextKey: KeyInput }> {
  const keys = await loadKeyFile(file, suite)
  const tags = keys.map(({ tag }) => tag)
  let tag = 1
  while (tags.includes(tag)) tag++
  return { keys, nextKey: { tag, value: newKey(suite) } }
}

/** A cluster in a few lines. */
function describe({ port, suite, keys, networks, nodes }: Cluster): string[] {
  const shown = nodes.slice(0, 3).map(({ name, address }) => `${name} ${address}`)
  const more = nodes.length - shown.length
  return [
    `port ${port}, suite ${suite}, keys in ${keys}`,
    `${count(networks.length, 'network')}: VNI ${networks
      .slice(0, 3)
      .map(({ vni }) => vni)
      .join(', ')}${networks.length > 3 ? ', …' : ''}`,
    `${count(nodes.length, 'node')}: ${shown.join(', ')}${more > 0 ? ` and ${number(more)} more` : ''}`,
  ]
}

/** What --json prints. */
function document(cluster: Cluster, input: DemoInput, result: DemoResult): object {
  const { port, suite, policies, exclusive } = input
  const family = familyOf(cluster.nodes[0]!.address)
  return { ok: result.problems.length === 0, kernel: release(), port, suite, family, policies, exclusive, ...result }
}

function table(cluster: Cluster, input: DemoInput, result: DemoResult): string {
  const { peers, through, rotation, left, cleartext } = result
  const { policies, exclusive, suite } = input
  const turned = total([rotation.add, rotation.primary, rotation.prune])
  const kind = `IPv${familyOf(cluster.nodes[0]!.address)}, ${suite}, policies ${policies}${exclusive ? ', exclusive' : ''}`
  const rows: [string, string][] = [
    ['kernel', `${release()}; ${kind}`],
    ['peers programmed', `${number(peers.perHost)} on each of ${result.hosts.count} hosts: ${speed(peers)}`],
    [
      'ping through',
      `${number(through.ping.sent)} sent, ${through.ping.lost} lost; ${number(through.esp.packets)} packets of ESP on the links`,
    ],
    ['rotation', speed(turned)],
    ['ping meanwhile', `${number(rotation.ping.sent)} sent, ${rotation.ping.lost} lost`],
    ['in the clear', `${cleartext.packets} packets`],
    ['left in the kernel', `${left.states} SAs, ${left.policies} policies, ${left.rulesets} nftables tables`],
    ['verdict', result.problems.length === 0 ? 'nothing leaked, nothing lost, nothing left' : 'FAILED'],
  ]
  const width = Math.max(...rows.map(([name]) => name.length))
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join('\n')
}
