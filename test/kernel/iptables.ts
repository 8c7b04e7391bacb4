import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Iptables, type XtVariant } from '../../lib/kernel/iptables.js'
import { IptablesFirewall } from '../../lib/overlay/firewall-iptables.js'
import type { GuardOptions } from '../../lib/overlay/guard.js'
import { feedNetns, inNetns } from './netns.js'

export const VARIANTS: readonly XtVariant[] = ['legacy', 'nft']
export const FAMILIES = [4, 6] as const

export const GUARD: GuardOptions = { mark: 0x58464d, port: 4789, exclusive: false, linksElsewhere: false }

/** Of the default mark. */
export const PREFIX = 'xfrmesh_58464d-'

/** A guard by one variant of iptables in a namespace, which stays when `work` is done. */
export async function withIptables<T>(
  netns: string,
  variant: XtVariant,
  work: (firewall: IptablesFirewall) => Promise<T>,
  more?: Partial<GuardOptions>,
): Promise<T> {
  await using iptables = await Iptables.open({ netns, variant })
  return await work(new IptablesFirewall(iptables, { ...GUARD, ...more }))
}

function ipName(family: 4 | 6): string {
  return family === 4 ? 'iptables' : 'ip6tables'
}

/** One of iptables' programs, as in `ip6tables-nft-save`. */
export function program(family: 4 | 6, variant: XtVariant, what?: 'save' | 'restore'): string {
  return [ipName(family), variant, what].filter((part) => part !== undefined).join('-')
}

/** What `iptables-save` prints of the tables that are there, without its comments. */
export async function saved(netns: string, family: 4 | 6, variant: XtVariant): Promise<string[]> {
  const text = await inNetns(netns, program(family, variant, 'save'))
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
}

/** Commands of iptables of one family, all in one table, as in `-F INPUT`. */
export function iptables(
  netns: string,
  [family, variant]: readonly [4 | 6, XtVariant],
  table: string,
  ...commands: string[]
): Promise<string> {
  const text = `*${table}\n${commands.join('\n')}\nCOMMIT\n`
  return feedNetns(netns, text, program(family, variant, 'restore'), '--noflush')
}

/** While `work` runs, this variant is what the system calls iptables. */
export function withSystemIptables<T>(variant: XtVariant, work: () => Promise<T>): Promise<T> {
  const names = FAMILIES.flatMap((family) => ['', '-save', '-restore'].map((what) => `${ipName(family)}${what}`))
  const target = (name: string) => `exec /usr/sbin/${name.replace('tables', `tables-${variant}`)} "$@"`
  return withPrograms(Object.fromEntries(names.map((name) => [name, target(name)])), work)
}

/** While `work` runs, PATH begins with these programs: shell scripts by their names. */
export async function withPrograms<T>(scripts: Readonly<Record<string, string>>, work: () => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'xfrmesh-iptables-'))
  const before = process.env['PATH']
  for (const [name, script] of Object.entries(scripts)) {
    await writeFile(join(directory, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  }
  process.env['PATH'] = `${directory}:${before}`
  try {
    return await work()
  } finally {
    process.env['PATH'] = before
    await rm(directory, { recursive: true })
  }
}
