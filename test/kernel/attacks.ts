import { Nft } from '../../lib/kernel/nft.js'
import { Firewall, type FirewallOptions } from '../../lib/overlay/firewall.js'

/** What the tests of the guard have in common. */

/** Runs `work` with a guard of networks in a namespace, and takes it away again. */
export async function guarding<T>(
  { netns, networks, ...more }: { netns: string; networks: readonly number[] } & Partial<FirewallOptions>,
  work: (firewall: Firewall) => Promise<T>,
): Promise<T> {
  await using nft = await Nft.open({ netns })
  const firewall = new Firewall({ nft, mark: 0x58464d, port: 4789, ...more })
  await firewall.apply({ add: networks })
  try {
    return await work(firewall)
  } finally {
    await firewall.remove()
  }
}

/** Whether the first fragment of one of shapes.py's shapes is too short for the VNI. */
export function isTiny(name: string): boolean {
  return name.includes('tiny: ')
}

/** Whether a shape's first fragment lacks a part of the chain of headers: it must not be sent (RFC 8200, 4.5). */
export function isIllegal(name: string): boolean {
  return name.startsWith('headers cut: ')
}

/** Whether the kernel itself does not take a shape. */
export function isContradictory(name: string): boolean {
  return name.includes('overlap: ')
}
