import type { Namespace } from '#dist/demo/namespace.js'
import { deriveSpi } from 'xfrmesh'
import { kept } from '../harness/sessions.js'

/** This node, and what its objects bear: as Docker's, so that all contestants make the same. */
export const LOCAL = '10.100.0.1'
export const MARK = 0xd0c4e3
export const PORT = 4789

/** The address of a peer: 11.0.0.1 and on. */
export function peerAddress(index: number): string {
  const n = index + 1
  return `11.${(n >>> 16) & 255}.${(n >>> 8) & 255}.${n & 255}`
}

export const peerAddresses = kept((size) => Array.from({ length: size }, (_, index) => peerAddress(index)))

export interface BenchKey {
  readonly tag: number
  readonly value: Uint8Array
}

/** Three keys that a node has, and the one that comes with a rotation. */
export const KEYS: readonly BenchKey[] = [1, 2, 3].map(key)
export const NEXT_KEY = key(4)

function key(tag: number): BenchKey {
  return { tag, value: Uint8Array.from({ length: 16 }, (_, i) => tag * 16 + i) }
}

/** The SPI of what this node sends to a peer under a key. */
export function forwardSpi(index: number, tag: number): number {
  return deriveSpi(LOCAL, peerAddress(index), tag)
}

/** The SPI of what a peer sends to this node under a key. */
export function reverseSpi(index: number, tag: number): number {
  return deriveSpi(peerAddress(index), LOCAL, tag)
}

/** Throws unless `ip` counts so many policies; with `tag`, unless each points to the peer's SPI under that key. */
export async function expectPolicies(namespace: Namespace, size: number, tag?: number): Promise<void> {
  const count = await namespace.policies()
  if (count !== size) throw new Error(`${count} policies are there, not ${size}`)
  if (tag === undefined) return
  const shown = await namespace.run('ip', ['-o', 'xfrm', 'policy', 'list'])
  const spis = new Map(
    Array.from(shown.matchAll(/^src \S+ dst (\S+)\/32 .*\bspi 0x([0-9a-f]+)/gm), ([, peer, spi]) => [
      peer!,
      Number.parseInt(spi!, 16),
    ]),
  )
  for (let i = 0; i < size; i++) {
    const spi = spis.get(peerAddress(i))
    if (spi !== forwardSpi(i, tag)) throw new Error(`the policy to ${peerAddress(i)} has SPI ${spi ?? '(none)'}`)
  }
}
