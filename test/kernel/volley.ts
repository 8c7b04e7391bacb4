import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { inNetns, startInNetns } from './netns.js'

/** Packets of every shape that volley.py makes: see there. */

const script = fileURLToPath(new URL('volley.py', import.meta.url))

/** What came: for each 'port VNI' the shapes, and how often each. */
export type Heard = Partial<Record<string, Record<string, number>>>

/** The names of the shapes of a family. */
export async function shapeNames(netns: string, family: 4 | 6): Promise<string[]> {
  return JSON.parse(await volley(netns, 'names', family)) as string[]
}

/** Whether a shape's first fragment is too short for the VNI. */
export function isTiny(name: string): boolean {
  return name.includes('tiny: ')
}

/** Whether a shape's first fragment lacks a part of the chain of headers: it must not be sent (RFC 8200, 4.5). */
export function isIllegal(name: string): boolean {
  return name.startsWith('headers cut: ')
}

/** Whether the kernel itself refuses to put a shape together. */
export function isContradictory(name: string): boolean {
  return name.includes('overlap: ')
}

export function volley(netns: string, ...words: (string | number)[]): Promise<string> {
  return inNetns(netns, 'python3', '-B', script, ...words.map(String))
}

/** What arrives at UDP ports of a namespace while `work` runs. */
export async function heardDuring(
  netns: string,
  ports: readonly number[],
  work: () => Promise<unknown>,
): Promise<Heard> {
  const hearing = startInNetns(netns, 'python3', '-B', script, 'hear', ports.join(','))
  await once(hearing.child.stdout!, 'data')
  try {
    await work()
  } catch (error) {
    await hearing.stop()
    throw error
  }
  return JSON.parse((await hearing.stop()).replace('ready\n', '')) as Heard
}
