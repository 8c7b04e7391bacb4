import { execFile } from 'node:child_process'
import { open } from 'node:fs/promises'
import { basename } from 'node:path'
import { promisify } from 'node:util'
import type { Endpoint } from '../../lib/vxlan/endpoints.js'
import { feedNetns, inNetns, withNetns } from './netns.js'

/** The VXLAN link of the tests. */
export const LINK = 'vx0'

/** The same in the virtual machine, where all takes ten to twenty times as long, on fewer. */
export const MANY = process.env['XFRMESH_LAB'] === 'vm' ? 2000 : 10_000
/** Endpoints at each VTEP. */
const PER_PEER = 10

/** Gives `work` a namespace with a VXLAN link, up, made by `ip`. */
export function withVxlan<T>(work: (netns: string) => Promise<T>, options = 'local 192.0.2.1'): Promise<T> {
  return withNetns(async (netns) => {
    await addLink(netns, options)
    return work(netns)
  })
}

export async function addLink(netns: string, options = 'local 192.0.2.1'): Promise<void> {
  await ip(netns, `link add ${LINK} type vxlan id 4096 dstport 4789 ${options}`, `link set ${LINK} up`)
}

/** Runs `ip` commands, all by one process. */
export async function ip(netns: string, ...commands: string[]): Promise<void> {
  await feedNetns(netns, commands.map((command) => `${command}\n`).join(''), 'ip', '-batch', '-')
}

/** Runs `bridge fdb` commands, all by one process. */
export async function bridgeFdb(netns: string, ...commands: string[]): Promise<void> {
  await feedNetns(netns, commands.map((command) => `fdb ${command}\n`).join(''), 'bridge', '-batch', '-')
}

/** Endpoint i of many, at its VTEP, or after so many moves at another. */
export function endpoint(i: number, moves = 0): Endpoint {
  const bytes = [(i >> 16) & 255, (i >> 8) & 255, i & 255]
  const mac = `02:42:0a:${bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':')}`
  const peer = Math.floor(i / PER_PEER) + moves
  return { ip: `10.${bytes.join('.')}`, mac, vtep: `11.${(peer >> 16) & 255}.${(peer >> 8) & 255}.${peer & 255}` }
}

export function endpoints(from: number, to: number, moves = 0): Endpoint[] {
  return Array.from({ length: to - from }, (_, i) => endpoint(from + i, moves))
}

/** The link's entries as `bridge -j fdb` and `ip -j neigh` list them, a line each, sorted. */
export interface Listed {
  fdb: string[]
  neighbours: string[]
}

export async function listed(netns: string, link = LINK): Promise<Listed> {
  const [fdb, neighbours] = await Promise.all([
    inNetns(netns, 'bridge', '-j', 'fdb', 'show', 'dev', link),
    inNetns(netns, 'ip', '-j', 'neigh', 'show', 'dev', link),
  ])
  return { fdb: lines(fdb).sort(), neighbours: lines(neighbours).sort() }
}

function lines(json: string): string[] {
  return (JSON.parse(json.trim() === '' ? '[]' : json) as Record<string, unknown>[]).map((entry) =>
    Object.entries(entry)
      .map(([name, value]) => `${name} ${String(value)}`)
      .join(' '),
  )
}

/** What should be listed of endpoints that share no MAC. */
export function expected(all: readonly Endpoint[]): Listed {
  return {
    fdb: all.map(({ mac, vtep }) => `mac ${mac} dst ${vtep} flags self state permanent`).sort(),
    neighbours: all.map(({ ip, mac }) => `dst ${ip} lladdr ${mac} state PERMANENT`).sort(),
  }
}

/** What `ip netns` calls the namespace of a path. */
export function nameOf(netns: string): string {
  return basename(netns)
}

/** Gives `work` a path by which a namespace can still be reached whose name another one bears by then. */
export async function renamed(netns: string, work: (before: string) => Promise<void>): Promise<void> {
  await using file = await open(netns)
  const name = nameOf(netns)
  await promisify(execFile)('ip', ['netns', 'delete', name])
  await promisify(execFile)('ip', ['netns', 'add', name])
  await work(`/proc/${process.pid}/fd/${file.fd}`)
}
