import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { basename } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, vi } from 'vitest'
import { Route } from '../../../lib/kernel/route.js'
import { deleteVxlan, listVxlan } from '../../../lib/vxlan/index.js'

const run = promisify(execFile)

/** Where links are made in tests: namespaces by their paths, with a device `eth0` of MTU 1500 and a bridge `br0` in each. */
export interface Ground {
  /** Links are made here… */
  here: string
  /** …or moved to here: the other end of `eth0` is here. */
  home: string
  /** Nothing leads here. */
  third: string
}

/** Makes them before the first test of a file and removes them after the last. No VXLAN link stays from one to the next. */
export function useGround(): Ground {
  const name = `xfrmesh-test-${randomUUID().slice(0, 8)}`
  const ground = { here: path(`${name}-a`), home: path(`${name}-b`), third: path(`${name}-c`) }
  const all = Object.values(ground)
  const bridge = 'link add br0 address 02:00:00:00:00:01 type bridge'

  beforeAll(async () => {
    await batch([], ...all.map((netns) => `netns add ${basename(netns)}`))
    await ip(ground.here, `link add eth0 up type veth peer name eth0 netns ${basename(ground.home)}`, bridge)
    await ip(ground.home, bridge)
    await ip(ground.third, bridge, 'link add eth0 up type veth peer name eth1')
  })
  afterEach(() => clear(...all))
  afterAll(() => batch([], ...all.map((netns) => `netns delete ${basename(netns)}`)))
  return ground
}

/** Deletes all VXLAN links. */
export async function clear(...namespaces: string[]): Promise<void> {
  for (const netns of namespaces) {
    await deleteVxlan((await listVxlan({ netns })).map(({ name }) => ({ name, netns })))
  }
}

function path(name: string): string {
  return `/run/netns/${name}`
}

/** Runs `ip` commands in a namespace, all by one process. */
export function ip(netns: string, ...commands: string[]): Promise<void> {
  return batch(['-n', basename(netns)], ...commands)
}

export async function batch(options: string[], ...commands: string[]): Promise<void> {
  const running = run('ip', [...options, '-batch', '-'])
  running.child.stdin?.end(`${commands.join('\n')}\n`)
  await running
}

/** What `ip -d` knows of VXLAN links, by their names, but for what the kernel counts up or draws by lot. */
export async function shown(netns: string): Promise<Map<string, Record<string, unknown>>> {
  const { stdout } = await run('ip', ['-n', basename(netns), '-j', '-d', 'link', 'show', 'type', 'vxlan'])
  const links = (JSON.parse(stdout) as Record<string, unknown>[]).filter(({ ifname }) => ifname !== undefined)
  return new Map(links.map((link) => [String(link['ifname']), steady(link)]))
}

const unsteady = new Set(['ifindex', 'address', 'link_index'])

function steady(link: Record<string, unknown>): Record<string, unknown> {
  const kept = Object.fromEntries(Object.entries(link).filter(([name]) => !unsteady.has(name)))
  // Drawn by lot too, unless it was given.
  return String(link['address']).startsWith('02:00:00:00:00') ? { ...kept, address: link['address'] } : kept
}

/** All links of a namespace, as `ip` numbers and describes them, but for their carriers, which come and go by themselves. */
export async function links(netns: string): Promise<string> {
  const { stdout } = await run('ip', ['-n', basename(netns), '-o', 'link'])
  return stdout.replace(/NO-CARRIER,|,LOWER_UP|,M-DOWN/g, '').replace(/ state \w+/g, '')
}

const create = Object.getOwnPropertyDescriptor(Route.prototype, 'create')!.value as Route['create']

/** Does something just before, or after, the kernel is next asked to make a link. */
export function interfere(
  before: () => Promise<unknown>,
  after: () => Promise<unknown> = () => Promise.resolve(),
): void {
  vi.spyOn(Route.prototype, 'create').mockImplementationOnce(async function (this: Route, link) {
    await before()
    await create.call(this, link)
    await after()
  })
}
