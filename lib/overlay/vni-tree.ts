import { capacity, isAmong, isBelow, type Place, type Run, sizeOfRun } from './vni-program.js'

/**
 * Networks as chains of iptables. A program knows some 50 VNIs, or runs of VNIs, in IPv4, some 20 in IPv6: with more
 * networks there is a tree of chains, and a packet comes to its program by a rule or two for each level.
 */

/** Rules that a packet meets one after the other at the end of a branch. */
const LEAF = 4

const PROGRAM = '-m bpf --bytecode "'

/** The match of a packet by a program. */
export function program(bytecode: string): string {
  return `${PROGRAM}${bytecode}"`
}

/** The program in a rule; undefined if it has none. */
export function programIn(rule: string): string | undefined {
  const at = rule.indexOf(PROGRAM)
  if (at < 0) return undefined
  return rule.slice(at + PROGRAM.length, rule.indexOf('"', at + PROGRAM.length))
}

/** Rules that know the networks, in order, and how to get to those that a packet has to ask. */
export type Tree =
  { readonly programs: readonly string[] } | { readonly isLeft: string; readonly left: Tree; readonly right: Tree }

/** @param runs in order, no two of them touching */
export function grow(place: Place, runs: readonly Run[]): Tree {
  const room = capacity(place)
  const programs: Run[][] = []
  let free = 0
  for (const run of runs) {
    free -= sizeOfRun(run)
    if (free >= 0) programs.at(-1)!.push(run)
    else {
      programs.push([run])
      free = room - sizeOfRun(run)
    }
  }
  const over = (part: readonly Run[][]): Tree => {
    if (part.length <= LEAF) return { programs: part.map((list) => program(isAmong(place, list))) }
    const middle = Math.ceil(part.length / 2)
    const [first] = part[middle]![0]!
    return {
      isLeft: program(isBelow(place, first)),
      left: over(part.slice(0, middle)),
      right: over(part.slice(middle)),
    }
  }
  return over(programs)
}

/**
 * A tree's chains, the root first.
 * @param found the target for what a program knows; the rest returns to where it was when it went to the root
 */
export function branches(root: Tree, name: (i: number) => string, found: string): { chain: string; rules: string[] }[] {
  const chains: { chain: string; rules: string[] }[] = []
  const add = (tree: Tree): string => {
    const chain = name(chains.length)
    const rules: string[] = []
    chains.push({ chain, rules })
    if ('programs' in tree) rules.push(...tree.programs.map((text) => `${text} ${found}`))
    else rules.push(`${tree.isLeft} -g ${add(tree.left)}`, `-g ${add(tree.right)}`)
    return chain
  }
  add(root)
  return chains
}
