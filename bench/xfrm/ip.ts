import { run } from '#dist/demo/processes.js'
import type { Contestant } from '../harness/contest.js'
import { keepFile } from '../harness/files.js'
import { session, timed, type Doing } from '../harness/sessions.js'
import { type BenchKey, forwardSpi, LOCAL, MARK, peerAddress, PORT, reverseSpi } from './common.js'

/** By step: what `ip` is told, in lines, for one peer. */
export type Lines = Readonly<Record<string, (index: number) => readonly string[]>>

type Direction = 'in' | 'out'

/** An SA in the words of ip-xfrm(8). */
export function stateLine(index: number, { tag, value }: BenchKey, direction: Direction): string {
  const salt = spiOf(index, tag, direction).toString(16).padStart(8, '0')
  const key = `0x${Buffer.from(value).toString('hex')}${salt}`
  return `xfrm state add ${stateId(index, tag, direction)} reqid ${MARK} mode transport aead rfc4106(gcm(aes)) ${key} 64`
}

export function stateDeletion(index: number, tag: number, direction: Direction): string {
  return `xfrm state delete ${stateId(index, tag, direction)}`
}

function stateId(index: number, tag: number, direction: Direction): string {
  const [from, to] = direction === 'in' ? [peerAddress(index), LOCAL] : [LOCAL, peerAddress(index)]
  return `src ${from} dst ${to} proto esp spi ${spiOf(index, tag, direction)}`
}

function spiOf(index: number, tag: number, direction: Direction): number {
  return (direction === 'in' ? reverseSpi : forwardSpi)(index, tag)
}

/** A peer's own policy, as Docker has it. */
export function policyLine(verb: 'add' | 'update', index: number, tag: number): string {
  const template = `src ${LOCAL} dst ${peerAddress(index)} proto esp spi ${spiOf(index, tag, 'out')} reqid ${MARK}`
  return `xfrm policy ${verb} ${policyId(index)} tmpl ${template} mode transport`
}

export function policyDeletion(index: number): string {
  return `xfrm policy delete ${policyId(index)}`
}

function policyId(index: number): string {
  const selector = `src ${LOCAL}/32 dst ${peerAddress(index)}/32 proto udp dport ${PORT}`
  return `${selector} dir out mark ${MARK} mask 0xffffffff`
}

/** iproute2 with all commands in one file. Its start is on the clock: it is a start each time for whoever uses it. */
export function ipBatch(lines: Lines): Contestant {
  return {
    name: 'ip -batch',
    role: 'peer',
    open: ({ name }, size) => {
      const doing = Object.entries(lines).map(([step, line]): [string, Doing] => {
        const file = keepFile(Array.from({ length: size }, (_, index) => `${line(index).join('\n')}\n`).join(''))
        return [step, () => timed(() => run('ip', ['-n', name, '-batch', file]))]
      })
      return Promise.resolve(session(Object.fromEntries(doing)))
    },
  }
}

/** iproute2 once a command, from Node: what a Node user does today. */
export function ipEach(lines: Lines, most: number): Contestant {
  return {
    name: 'ip, each from Node',
    role: 'peer',
    most,
    open: ({ name }, size) => {
      const each = async (linesOf: Lines[string]) => {
        for (let i = 0; i < size; i++) for (const line of linesOf(i)) await run('ip', ['-n', name, ...line.split(' ')])
      }
      const doing = Object.entries(lines).map(([step, line]): [string, Doing] => [step, () => timed(() => each(line))])
      return Promise.resolve(session(Object.fromEntries(doing)))
    },
  }
}
