import type { XtVariant } from '../../lib/kernel/iptables.js'
import { Nft } from '../../lib/kernel/nft.js'
import { Firewall, type FirewallState } from '../../lib/overlay/firewall.js'
import type { GuardOptions } from '../../lib/overlay/guard.js'
import { GUARD, withIptables } from './iptables.js'

/** What the tests of the guard have in common. */

let kind: 'nftables' | XtVariant = 'nftables'

/** From here on it is this kind that guards: tests are told again with another. */
export function guardBy(other: typeof kind): void {
  kind = other
}

/** Whether first fragments that hide their port are counted: ip6tables' legacy kind drops them by itself. */
export function countsFragments(): boolean {
  return kind !== 'legacy'
}

/** Runs `work` with a guard of networks in a namespace, and takes it away again. */
export async function guarding<T>(
  { netns, networks, ...more }: { netns: string; networks: readonly number[] } & Partial<GuardOptions>,
  work: (firewall: { read(): Promise<FirewallState> }) => Promise<T>,
): Promise<T> {
  const guarded = async (firewall: Pick<Firewall, 'apply' | 'read' | 'remove'>): Promise<T> => {
    await firewall.apply({ add: networks })
    try {
      return await work(firewall)
    } finally {
      await firewall.remove()
    }
  }
  if (kind !== 'nftables') return withIptables(netns, kind, guarded, more)
  await using nft = await Nft.open({ netns })
  return await guarded(new Firewall({ nft, ...GUARD, ...more }))
}

/** Whether the first fragment of one of shapes.py's shapes is too short for the VNI. */
export function isTiny(name: string): boolean {
  return name.includes('tiny: ')
}

/** Whether a shape is of several fragments. */
export function isCut(name: string): boolean {
  return /cut|piece|lie/.test(name)
}

/** Whether a shape's first fragment lacks a part of the chain of headers: it must not be sent (RFC 8200, 4.5). */
export function isIllegal(name: string): boolean {
  return name.startsWith('headers cut: ')
}

/** Whether the kernel itself does not take a shape. */
export function isContradictory(name: string): boolean {
  return name.includes('overlap: ')
}
