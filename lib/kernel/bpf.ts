/**
 * Classic BPF (linux/filter.h, linux/bpf_common.h), as xt_bpf runs it on a packet from its network header on: a program
 * is a list of instructions and of labels to jump to. A is the accumulator, X the index register, M the memory. A load
 * from beyond the packet's end ends the program with 0: no match.
 */

export type Line = Instruction | Label

export interface Instruction {
  readonly code: number
  readonly k: number
  /** Labels to jump to; the next instruction where there is none. */
  readonly then?: string | undefined
  readonly otherwise?: string | undefined
}

export interface Label {
  readonly label: string
}

/** Most instructions of a program (XT_BPF_MAX_NUM_INSTR, linux/netfilter/xt_bpf.h). */
export const MOST_INSTRUCTIONS = 64

const instruction = (code: number) => (k: number) => ({ code, k })

/** A = packet[k], one byte. */
export const loadByte = instruction(0x30)
/** A = packet[X + k], one byte. */
export const loadByteAt = instruction(0x50)
/** A = packet[X + k], two bytes. */
export const loadHalfAt = instruction(0x48)
/** A = packet[X + k], four bytes. */
export const loadWordAt = instruction(0x40)
/** X = the length of the IPv4 header that begins at packet[k]. */
export const ipv4HeaderToX = instruction(0xb1)
export const constantToX = instruction(0x01)
export const memoryToX = instruction(0x61)
export const store = instruction(0x02)
export const add = instruction(0x04)
export const shiftLeft = instruction(0x64)
export const shiftRight = instruction(0x74)
/** A += X */
export const addX: Instruction = { code: 0x0c, k: 0 }
/** A = X */
export const fromX: Instruction = { code: 0x87, k: 0 }
/** Ends the program: k is whether the packet matches. */
export const ret = instruction(0x06)

const comparisons = { '==': 0x15, '>': 0x25, '>=': 0x35, '&': 0x45 }

/** Compares A with k; `&`: whether they have a bit in common. */
export function jumpIf(
  operator: keyof typeof comparisons,
  k: number,
  { then, otherwise }: Pick<Instruction, 'then' | 'otherwise'>,
): Instruction {
  return { code: comparisons[operator], k, then, otherwise }
}

export function label(name: string): Label {
  return { label: name }
}

/** How many instructions there are. */
export function sizeOf(lines: readonly Line[]): number {
  return lines.reduce((size, line) => ('label' in line ? size : size + 1), 0)
}

/** A program as xt_bpf's `--bytecode` takes it, and iptables-save gives it: their number, then `code jt jf k` of each. */
export function bytecode(lines: readonly Line[]): string {
  const places = new Map<string, number>()
  let size = 0
  for (const line of lines) {
    if ('label' in line) places.set(line.label, size)
    else size++
  }
  if (size > MOST_INSTRUCTIONS) throw new RangeError(`a program of ${size} instructions`)
  const words = [String(size)]
  for (const line of lines) {
    if ('label' in line) continue
    const next = words.length
    const distance = (name: string | undefined) => (name === undefined ? 0 : places.get(name)! - next)
    words.push(`${line.code} ${distance(line.then)} ${distance(line.otherwise)} ${line.k}`)
  }
  return words.join(',')
}
