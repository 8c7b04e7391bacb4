import type { TableLines, XtFamily } from '../kernel/iptables.js'
import type { SavedRule, SavedTable } from '../kernel/iptables-save.js'
import { TABLES, type XtChain, type XtTable } from './guard-iptables.js'
import { type Run, runsOf } from './vni-program.js'
import { programIn } from './vni-tree.js'

/** Chains of ours as they are found: how they differ from what they should be, and the lines that make them that. */

/** The tables of one family. */
export type Tables = Readonly<Record<XtTable, SavedTable>>

/** A jump to any guard, of this mark or another: who is first among those does not matter. */
const TO_A_GUARD = /^-j xfrmesh_[0-9a-f]+-\S+$/

/** Whether there is any chain of ours. */
export function isThere(tables: Tables, prefix: string): boolean {
  return TABLES.some((table) => ours(tables[table], prefix).length > 0)
}

/** The runs that programs in our chains tell, sorted into no order and twice where two chains have them. */
export function runsIn(family: XtFamily, tables: Tables, prefix: string): Run[] {
  const programs = new Set<string>()
  for (const table of TABLES) {
    for (const chain of ours(tables[table], prefix)) {
      for (const { rule } of tables[table].get(chain)!) {
        const program = programIn(rule)
        if (program !== undefined) programs.add(program)
      }
    }
  }
  const runs = (program: string) => runsOf({ family }, program) ?? runsOf({ family, quoted: true }, program) ?? []
  return [...programs].flatMap(runs)
}

/** How what was found differs from the chains that should be there, a sentence each; what else bears our name differs. */
export function differences(expected: readonly XtChain[], tables: Tables, prefix: string): string[] {
  return TABLES.flatMap((table) => {
    const saved = tables[table]
    const wanted = expected.filter((chain) => chain.table === table)
    const missing = wanted.filter(({ chain }) => !saved.has(chain))
    const others = wanted.filter((chain) => saved.has(chain.chain) && !isSame(saved, chain))
    const names = new Set(wanted.map(({ chain }) => chain))
    const foreign = ours(saved, prefix).filter((chain) => !names.has(chain))
    const said: string[] = []
    const say = (chains: readonly string[], is: string, are: string) => {
      if (chains.length === 1) said.push(`table ${table}: chain ${chains[0]} ${is}`)
      else if (chains.length > 1) said.push(`table ${table}: chains ${some(chains)} ${are}`)
    }
    say(
      missing.map(({ chain }) => chain),
      'is missing',
      'are missing',
    )
    say(
      others.map(({ chain }) => chain),
      'has other rules',
      'have other rules',
    )
    say(foreign, 'is not ours', 'are not ours')
    for (const hook of BUILT_IN) {
      const chain = hookedTo(wanted, hook)
      if (isHooked(saved, hook, chain, prefix)) continue
      said.push(
        `table ${table}: chain ${hook} should begin with ${chain === undefined ? 'no jump to a chain of ours' : `one jump to ${chain}`}`,
      )
    }
    return said
  })
}

/**
 * The lines that make a table's chains what they should be, in one step; none if they are that. Chains that are right are
 * left alone, and go on counting.
 */
export function changes(expected: readonly XtChain[], table: XtTable, saved: SavedTable, prefix: string): TableLines {
  const wanted = expected.filter((chain) => chain.table === table)
  const written = wanted.filter((chain) => !isSame(saved, chain))
  const names = new Set(wanted.map(({ chain }) => chain))
  const stale = ours(saved, prefix).filter((chain) => !names.has(chain))
  const kept = new Set(referredTo(saved, prefix))
  return {
    table,
    lines: [
      // What is there is emptied by that.
      ...[...written.map(({ chain }) => chain), ...stale].map((chain) => `:${chain} - [0:0]`),
      ...BUILT_IN.flatMap((hook) => jumps(saved, hook, hookedTo(wanted, hook), prefix)),
      ...written.flatMap(({ chain, rules }) => rules.map((rule) => `-A ${chain} ${rule}`)),
      ...stale.filter((chain) => !kept.has(chain)).map((chain) => `-X ${chain}`),
    ],
  }
}

const BUILT_IN = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING']

/** The chain that a built-in one should begin with a jump to. */
function hookedTo(chains: readonly XtChain[], hook: string): string | undefined {
  return chains.find((chain) => chain.hook === hook)?.chain
}

/** Whether a built-in chain has one jump to ours, behind none but those to other guards; to none of ours if undefined. */
function isHooked(saved: SavedTable, hook: string, chain: string | undefined, prefix: string): boolean {
  const jumps = jumpsOf(saved, hook, prefix)
  if (chain === undefined || jumps.length !== 1) return chain === undefined && jumps.length === 0
  const rules = saved.get(hook)!
  const at = rules.findIndex(({ rule }) => rule === `-j ${chain}`)
  return at >= 0 && rules.slice(0, at).every(({ rule }) => TO_A_GUARD.test(rule))
}

/** Makes it so. */
function jumps(saved: SavedTable, hook: string, chain: string | undefined, prefix: string): string[] {
  if (isHooked(saved, hook, chain, prefix)) return []
  const old = jumpsOf(saved, hook, prefix).map(({ rule }) => `-D ${hook} ${rule}`)
  return chain === undefined ? old : [...old, `-I ${hook} -j ${chain}`]
}

function jumpsOf(saved: SavedTable, hook: string, prefix: string): SavedRule[] {
  return (saved.get(hook) ?? []).filter(({ rule }) => TO_A_GUARD.test(rule) && rule.startsWith(`-j ${prefix}`))
}

/** Chains of ours that rules of others jump to: they can't be taken away. */
function referredTo(saved: SavedTable, prefix: string): string[] {
  return [...saved].flatMap(([chain, rules]) =>
    chain.startsWith(prefix)
      ? []
      : rules
          .filter(({ rule }) => !(BUILT_IN.includes(chain) && TO_A_GUARD.test(rule)))
          .map(({ rule }) => /-[gj] (\S+)/.exec(rule)?.[1] ?? ''),
  )
}

function ours(saved: SavedTable, prefix: string): string[] {
  return [...saved.keys()].filter((chain) => chain.startsWith(prefix))
}

function isSame(saved: SavedTable, { chain, rules }: XtChain): boolean {
  const found = saved.get(chain)
  return found?.length === rules.length && found.every(({ rule }, i) => rule === rules[i])
}

function some(names: readonly string[]): string {
  return `${names.slice(0, 3).join(', ')}${names.length > 3 ? ` and ${names.length - 3} more` : ''}`
}
