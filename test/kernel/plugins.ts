import { createHash } from 'node:crypto'
import { feedNetns, inNetns } from './netns.js'

/**
 * The CNI plugins' masquerading as they do it (pkg/ip/ipmasq_nftables_linux.go): what is there is found by its comment in
 * `nft -j list chain`, what is to be is fed to `nft -f`. No code of ours is in it.
 */

export interface Container {
  network: string
  interfaceName: string
  containerId: string
}

export const TABLE = 'inet cni_plugins_masquerade'

const half = (text: string) => createHash('sha512').update(text).digest('hex').slice(0, 16)
const commentOf = ({ network, interfaceName, containerId }: Container) =>
  Buffer.from(
    `${half(network)}-${half(`${interfaceName}:${containerId}`)}, net: ${network}, if: ${interfaceName}, id: ${containerId}`.replaceAll(
      '"',
      '',
    ),
  )
    .subarray(0, 128)
    .toString()

/** As `nft` takes it. */
export const base = `
add table ${TABLE} { comment "Masquerading for plugins from github.com/containernetworking/plugins" ; }
add chain ${TABLE} masq_checks { comment "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet" ; }
add chain ${TABLE} postrouting { type nat hook postrouting priority 100 ; }
flush chain ${TABLE} postrouting
add rule ${TABLE} postrouting ip daddr == 224.0.0.0/4  return
add rule ${TABLE} postrouting ip6 daddr == ff00::/8  return
add rule ${TABLE} postrouting goto masq_checks
`

/** The plugins give the subnet's first address; `nft` makes it of any. */
export function ruleFor(container: Container, address: string): string {
  const [ip = ''] = address.split('/')
  const family = ip.includes(':') ? 'ip6' : 'ip'
  return `add rule ${TABLE} masq_checks ${family} saddr == ${ip} ${family} daddr != ${address} masquerade comment "${commentOf(container)}"\n`
}

interface Found {
  handle: number
  comment: string
}

async function found(netns: string, prefix: string): Promise<Found[]> {
  const listed = await inNetns(netns, 'nft', '-j', 'list', 'chain', ...TABLE.split(' '), 'masq_checks').catch(
    () => '{"nftables":[]}',
  )
  const { nftables } = JSON.parse(listed) as { nftables: { rule?: { handle: number; comment?: string } }[] }
  return nftables.flatMap(({ rule }) =>
    rule?.comment?.startsWith(prefix) ? [{ handle: rule.handle, comment: rule.comment }] : [],
  )
}

const deletion = ({ handle }: Found) => `delete rule ${TABLE} masq_checks handle ${handle}\n`
export const idOf = ({ network, interfaceName, containerId }: Container): string =>
  `${half(network)}-${half(`${interfaceName}:${containerId}`)}`

export const plugins = {
  async add(netns: string, container: Container, addresses: string[]): Promise<void> {
    const stale = await found(netns, idOf(container))
    const rules = addresses.map((address) => ruleFor(container, address))
    await feedNetns(netns, base + stale.map(deletion).join('') + rules.join(''), 'nft', '-f', '-')
  },

  async remove(netns: string, container: Container): Promise<void> {
    await feedNetns(netns, (await found(netns, idOf(container))).map(deletion).join(''), 'nft', '-f', '-')
  },

  async collect(netns: string, network: string, valid: Omit<Container, 'network'>[]): Promise<void> {
    const comments = new Set(valid.map((attachment) => commentOf({ network, ...attachment })))
    const stale = (await found(netns, half(network))).filter(({ comment }) => !comments.has(comment))
    await feedNetns(netns, stale.map(deletion).join(''), 'nft', '-f', '-')
  },
}

/** The table as `nft` prints it; empty if there is none. */
export async function listTable(netns: string): Promise<string> {
  return inNetns(netns, 'nft', 'list', 'table', ...TABLE.split(' ')).catch((error: unknown) => {
    if (String((error as { stderr?: string }).stderr).includes('No such file')) return ''
    throw error
  })
}
