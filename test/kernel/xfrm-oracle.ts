import { readFileSync } from 'node:fs'
import { Xfrm } from '../../lib/kernel/xfrm.js'
import { ipCommand, type IpCommand } from '../unit/ip-words.js'
import { feedNetns, inNetns, withNetns } from './netns.js'

/** What `ip xfrm` makes of the same objects, to hold ours against. */

/** The commands of test/data/xfrm.json that add an object of each kind; without those that need a device. */
export function additions(object: 'state' | 'policy'): (IpCommand & { name: string; command: string })[] {
  const captures = JSON.parse(readFileSync(new URL('../data/xfrm.json', import.meta.url), 'utf8')) as {
    name: string
    command: string
  }[]
  return captures
    .filter(({ name, command }) => name.startsWith(`${object}: `) && !/ (dev|seq|replay-seq) /.test(command))
    .map(({ name, command }) => ({ name, command, ...ipCommand(command)! }))
}

/** Runs commands of `ip` in a namespace, one process for all. */
export async function ipBatch(netns: string, commands: readonly string[]): Promise<void> {
  const lines = commands.map((command) => command.replace(/^ip /, '').replaceAll("'", ''))
  await feedNetns(netns, lines.join('\n'), 'ip', '-batch', '-')
}

/** What ip shows, an object each. */
export async function ipList(netns: string, object: 'state' | 'policy'): Promise<string[]> {
  const text = await inNetns(netns, 'env', 'TZ=UTC', 'ip', '-d', '-s', 'xfrm', object, 'list')
  return text === '' ? [] : text.trimEnd().split(/\n(?=src )/)
}

/** Without the times at which objects were made and used. */
export function timeless(texts: readonly string[]): string[] {
  return texts.map((text) => text.replace(/add \d{4}-.*/, 'add'))
}

/** An `Xfrm` in a namespace of its own. */
export async function withXfrm(work: (xfrm: Xfrm, netns: string) => Promise<void>): Promise<void> {
  await withNetns(async (netns) => {
    const xfrm = await Xfrm.open({ netns })
    try {
      await work(xfrm, netns)
    } finally {
      await xfrm.close()
    }
  })
}

export async function collect<T>(list: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const each of list) all.push(each)
  return all
}
