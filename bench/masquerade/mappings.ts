import { createHash } from 'node:crypto'
import type { Namespace } from '#dist/demo/namespace.js'
import type { Attachment } from 'xfrmesh/masquerade'

/** The containers whose addresses are masqueraded, and the text that the CNI plugins make of them. No code of ours is in it. */

const NETWORK = 'podnet'
const TABLE = 'inet cni_plugins_masquerade'
/** Containers of one subnet. */
const PER_SUBNET = 50_000

/** A container with one address: 10.1.0.2/16 and on. Its ID has 64 digits, as runtimes make them. */
export function attachment(index: number): Attachment {
  const host = (index % PER_SUBNET) + 2
  const address = `10.${1 + Math.floor(index / PER_SUBNET)}.${host >> 8}.${host & 255}/16`
  return {
    network: NETWORK,
    interfaceName: 'eth0',
    containerId: sha512(`container ${index}`, 64),
    addresses: [address],
  }
}

function sha512(text: string, digits: number): string {
  return createHash('sha512').update(text).digest('hex').slice(0, digits)
}

/** What all comments of the network begin with. */
export const networkPrefix = sha512(NETWORK, 16)

/** What all comments of an attachment begin with. */
export function ownerPrefix({ interfaceName, containerId }: Attachment): string {
  return `${networkPrefix}-${sha512(`${interfaceName}:${containerId}`, 16)}`
}

function commentOf(of: Attachment): string {
  const whole = `${ownerPrefix(of)}, net: ${of.network}, if: ${of.interfaceName}, id: ${of.containerId}`
  return whole.slice(0, 128)
}

/** What the plugins feed to `nft -f` at each addition, whatever is there (pkg/ip/ipmasq_nftables_linux.go). */
export const baseText = `
add table ${TABLE} { comment "Masquerading for plugins from github.com/containernetworking/plugins" ; }
add chain ${TABLE} masq_checks { comment "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet" ; }
add chain ${TABLE} postrouting { type nat hook postrouting priority 100 ; }
flush chain ${TABLE} postrouting
add rule ${TABLE} postrouting ip daddr == 224.0.0.0/4  return
add rule ${TABLE} postrouting ip6 daddr == ff00::/8  return
add rule ${TABLE} postrouting goto masq_checks
`

export function ruleText(of: Attachment): string {
  const [address = ''] = of.addresses
  const [ip = ''] = address.split('/')
  return `add rule ${TABLE} masq_checks ip saddr == ${ip} ip daddr != ${subnetOf(address)} masquerade comment "${commentOf(of)}"\n`
}

export function deletionText(handle: number): string {
  return `delete rule ${TABLE} masq_checks handle ${handle}\n`
}

function subnetOf(address: string): string {
  return `${address.split('.').slice(0, 2).join('.')}.0.0/16`
}

/** As `nft -j` lists it. */
interface ListedRule {
  chain: string
  handle: number
  comment?: string
  expr: unknown[]
}

interface ListedMap {
  name: string
  elem?: [{ elem: { val: string; comment?: string } }, { jump: { target: string } }][]
}

/** The rules of `masq_checks` whose comments begin so: how the plugins find theirs. */
export async function findRules(namespace: Namespace, prefix: string): Promise<ListedRule[]> {
  const listed = await namespace.run('nft', ['-j', 'list', 'chain', ...TABLE.split(' '), 'masq_checks'])
  const { nftables } = JSON.parse(listed) as { nftables: { rule?: ListedRule }[] }
  return nftables.flatMap(({ rule }) => (rule?.comment?.startsWith(prefix) === true ? [rule] : []))
}

/** Throws unless `nft` lists these mappings and no other, as rules or as elements of a map, each with its comment. */
export async function expectMappings(namespace: Namespace, expected: readonly Attachment[]): Promise<void> {
  const listed = await list(namespace)
  const there = new Map<string, number>()
  const see = (mapping: string) => there.set(mapping, (there.get(mapping) ?? 0) + 1)
  for (const { rule, map } of listed.nftables) {
    if (rule?.chain === 'masq_checks' && rule.comment?.startsWith(networkPrefix) === true) see(mappingOfRule(rule))
    for (const [{ elem }, { jump }] of map?.elem ?? []) see(`${elem.val} ${jump.target} ${elem.comment ?? ''}`)
  }
  for (const of of expected) {
    const [address = ''] = of.addresses
    const mapping = `${address.split('/')[0]!} subnet_${subnetOf(address)} ${commentOf(of)}`
    if (there.get(mapping) !== 1) throw new Error(`${mapping} is there ${there.get(mapping) ?? 0} times`)
  }
  if (there.size !== expected.length) throw new Error(`${there.size} mappings are there, not ${expected.length}`)
}

/** As `nft` lists the table. While a map's hash table grows, the kernel tells some twice and leaves out others: until none is. */
async function list(namespace: Namespace): Promise<{ nftables: { rule?: ListedRule; map?: ListedMap }[] }> {
  for (;;) {
    const said = await namespace.run('nft', ['-j', 'list', 'table', ...TABLE.split(' ')])
    const listed = JSON.parse(said) as { nftables: { rule?: ListedRule; map?: ListedMap }[] }
    const isWhole = ({ map }: { map?: ListedMap }) =>
      new Set(map?.elem?.map(([{ elem }]) => elem.val)).size === (map?.elem?.length ?? 0)
    if (listed.nftables.every(isWhole)) return listed
  }
}

/** As the element for it would read; otherwise, what the rule says instead. */
function mappingOfRule({ expr, comment = '' }: ListedRule): string {
  const found = JSON.stringify(expr)
  const [, ip, first, bits] =
    /^\[{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"([\d.]+)"}},{"match":{"op":"!=","left":{"payload":{"protocol":"ip","field":"daddr"}},"right":{"prefix":{"addr":"([\d.]+)","len":(\d+)}}}},{"masquerade":null}\]$/.exec(
      found,
    ) ?? []
  return ip === undefined ? found : `${ip} subnet_${first}/${bits} ${comment}`
}
