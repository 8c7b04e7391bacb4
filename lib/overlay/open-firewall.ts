import { NetlinkError, Unsupported } from '../base/errors.js'
import { Iptables, type XtVariant } from '../kernel/iptables.js'
import { Nft } from '../kernel/nft.js'
import { Firewall, otherPortError } from './firewall.js'
import { IptablesFirewall } from './firewall-iptables.js'
import type { GuardOptions } from './guard.js'
import { TABLES } from './guard-iptables.js'
import type { Settings } from './options.js'
import type { FirewallPort } from './ports.js'

export interface OpenFirewall {
  readonly firewall: FirewallPort
  close(): Promise<void>
}

const EINVAL = 22

/**
 * Opens the firewall that the options ask for. What guards of another kind an earlier process left under this mark it takes
 * over: this one guards their networks before theirs are taken away.
 *
 * @throws Unsupported for what is not installed, or what the kernel lacks; InvalidState ERR_XFRMESH_OTHER_PORT if what was
 *   left guards networks on another port
 */
export function openFirewall(settings: Settings): Promise<OpenFirewall> {
  return settings.firewall === 'iptables' ? openIptables(settings) : openNftables(settings)
}

async function openNftables(settings: Settings): Promise<OpenFirewall> {
  const nft = await Nft.open(placeOf(settings)).catch((error: unknown) => {
    throw lacksNftables(error) ? withWayOut(error) : error
  })
  try {
    const firewall = new Firewall({ nft, ...guardOptions(settings) })
    for (const variant of ['nft', 'legacy'] as const) await takeOverIptables(firewall, settings, nft, variant)
    return { firewall, close: () => nft.close() }
  } catch (error) {
    await nft.close()
    throw error
  }
}

async function openIptables(settings: Settings): Promise<OpenFirewall> {
  await using nft = await nftIfThere(settings)
  const iptables = await Iptables.open({ ...placeOf(settings), ...(nft === null && { variant: 'legacy' }) })
  try {
    const firewall = new IptablesFirewall(iptables, guardOptions(settings))
    if (nft) await takeOver(firewall, new Firewall({ nft, ...guardOptions(settings) }), settings)
    await takeOverIptables(firewall, settings, nft, iptables.variant === 'nft' ? 'legacy' : 'nft')
    return { firewall, close: () => iptables.close() }
  } catch (error) {
    await iptables.close()
    throw error
  }
}

function lacksNftables(error: unknown): error is Unsupported {
  return error instanceof Unsupported && error.missing.startsWith('CONFIG_NF_TABLES')
}

function withWayOut(error: Unsupported): Unsupported {
  return new Unsupported(error.missing, `${error.message}, or firewall: 'iptables', which does without`, {
    cause: error,
  })
}

/** null on a kernel without nf_tables. */
async function nftIfThere(settings: Settings): Promise<Nft | null> {
  let nft: Nft | undefined
  try {
    nft = await Nft.open(placeOf(settings))
    await nft.generation()
    return nft
  } catch (error) {
    await nft?.close()
    // The second is nfnetlink's, of a subsystem that it does not have.
    if (lacksNftables(error)) return null
    if (error instanceof NetlinkError && error.errno === EINVAL) return null
    throw error
  }
}

/** Takes over what one variant of iptables has of our guard, if it can have any: most hosts are spared its programs. */
async function takeOverIptables(
  firewall: FirewallPort,
  settings: Settings,
  nft: Nft | null,
  variant: XtVariant,
): Promise<void> {
  const place = placeOf(settings)
  const mayHave = variant === 'nft' ? nft && (await hasTables(nft)) : await Iptables.hasLegacyTables(TABLES, place)
  if (mayHave !== true) return
  await using iptables = await Iptables.openIfInstalled({ ...place, variant })
  if (iptables === null) return
  await takeOver(firewall, new IptablesFirewall(iptables, guardOptions(settings)), settings)
}

/** What was left is guarded by both for a moment, and never by neither. */
async function takeOver(firewall: FirewallPort, left: Firewall | IptablesFirewall, { form }: Settings): Promise<void> {
  const { exists, networks, otherPort } = await left.read()
  if (!exists) return
  if (otherPort !== undefined && networks.size > 0) {
    throw otherPortError(`the firewall of another kind that an earlier process left`, otherPort, form.port)
  }
  if (networks.size > 0) await firewall.apply({ add: networks })
  await left.remove()
}

/** Whether iptables, by way of nftables, has a table that our chains could be in. */
async function hasTables(nft: Nft): Promise<boolean> {
  for (const family of ['ip', 'ip6'] as const) {
    for (const table of TABLES) if (await nft.table({ family, table })) return true
  }
  return false
}

function placeOf({ netns, timeoutMs }: Settings): { netns?: string | number; timeoutMs: number } {
  return { timeoutMs, ...(netns !== undefined && { netns }) }
}

function guardOptions({ form: { mark, port, exclusive }, linksElsewhere }: Settings): GuardOptions {
  return { mark, port, exclusive, linksElsewhere }
}
