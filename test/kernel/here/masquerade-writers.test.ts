import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, expect, test } from 'vitest'
import { Masquerade, type Layout, type ListedAttachment } from '../../../lib/masquerade/masquerade.js'
import { withNetns } from '../netns.js'
import { idOf, listTable } from '../plugins.js'

const script = fileURLToPath(new URL('masquerade-writer.mjs', import.meta.url))

const living: ChildProcess[] = []
afterEach(() => {
  for (const child of living.splice(0)) child.kill('SIGKILL')
})

function writer(given: Record<string, unknown>): { child: ChildProcess; printed: Promise<string> } {
  const child = spawn(process.execPath, [script, JSON.stringify(given)], { stdio: ['pipe', 'pipe', 'inherit'] })
  living.push(child)
  let text = ''
  child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
  return { child, printed: once(child, 'close').then(() => text) }
}

interface Rounds {
  held: [containerId: string, addresses: string[]][]
  crossed: number
  wrong: unknown[]
}

/** Rounds of each of two writers. They use the same addresses, some on another subnet, and one of their own. */
const ROUNDS = 300
const SHARED = ['10.0.0.1/24', '10.0.0.2/24', '10.0.1.1/24', '2001:db8::1/64']
/** So many of their calls must have met with another's write, or nothing was tried. */
const CROSSED = 20

const layouts: [Layout, Layout][] = [
  ['set', 'set'],
  ['rules', 'rules'],
  ['set', 'rules'],
]

test.each(layouts)(
  "two writers at once, '%s' and '%s', lose nothing and delete nothing of each other's",
  (one, other) =>
    withNetns(async (netns) => {
      const noise = writer({ netns, layout: one, kind: 'noise' })
      await once(noise.child.stdout!, 'data')
      const writers = [one, other].map((layout, i) => {
        const network = `network-${i}`
        const addresses = [...SHARED, `10.0.9.9/${22 + i}`, `10.0.${10 + i}.1/24`, `2001:db8:1::9/${48 + i}`]
        return {
          network,
          ...writer({ netns, layout, kind: 'rounds', network, addresses, rounds: ROUNDS, seed: 42 + i }),
        }
      })
      const expected: ListedAttachment[] = []
      for (const { network, printed } of writers) {
        const { held, crossed, wrong } = JSON.parse(await printed) as Rounds
        expect(wrong).toEqual([])
        expect(crossed).toBeGreaterThan(CROSSED)
        for (const [containerId, addresses] of held) {
          const name = { network, interfaceName: 'eth0', containerId }
          expected.push({ owner: idOf(name), ...name, addresses })
        }
      }
      noise.child.stdin?.end()
      await noise.printed
      await using masquerade = await Masquerade.open({ netns, layout: one })
      const listed = await masquerade.list()
      expect(sorted(listed)).toEqual(sorted(expected))
      await masquerade.collect('network-0', [])
      await masquerade.collect('network-1', [])
      expect(await listTable(netns)).not.toMatch(/saddr|subnet_/)
    }),
)

function sorted(all: readonly ListedAttachment[]): ListedAttachment[] {
  const inOrder = all.map((one) => ({ ...one, addresses: one.addresses.toSorted() }))
  return inOrder.sort((a, b) => (a.owner < b.owner ? -1 : 1))
}

test.each<[Layout]>([['rules'], ['set']])(
  "a writer killed at any time leaves all of a call or nothing, in '%s'",
  (layout) =>
    withNetns(async (netns) => {
      const attachments = Array.from({ length: 1000 }, (_, i) => ({
        network: 'podnet',
        interfaceName: 'eth0',
        containerId: `c${i}`,
        addresses: [`10.${i >> 8}.${i & 255}.1/24`],
      }))
      await using masquerade = await Masquerade.open({ netns, layout })
      const found = new Set<number>()
      // After either of its calls, or during the next: so both outcomes come soon, however slow the machine is.
      for (let i = 0; i < 40 && (i < 4 || found.size < 2); i++) {
        const { child, printed } = writer({ netns, layout, kind: 'flood', attachments })
        for (let said = 0; said < 1 + (i % 2); said++) await once(child.stdout!, 'data')
        await sleep(Math.random() * 40)
        child.kill('SIGKILL')
        await printed
        const listed = await masquerade.list()
        expect([0, attachments.length]).toContain(listed.length)
        found.add(listed.length)
        expect(await masquerade.remove(attachments)).toMatchObject({ removed: listed.length })
        expect(await listTable(netns)).not.toMatch(/saddr|subnet_/)
      }
      expect(found.size).toBe(2)
    }),
)
