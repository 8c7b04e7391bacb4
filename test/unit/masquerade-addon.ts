import type { Nft } from '../../lib/kernel/nft.js'
import { ElementAttribute, ElementsAttribute, Message, RuleAttribute } from '../../lib/kernel/nft-names.js'
import { readComment } from '../../lib/kernel/nft-userdata.js'
import { Given } from '../../lib/masquerade/given.js'
import { emptyLedger, type Ledger } from '../../lib/masquerade/ledger.js'
import { plan, type Change, type Layout, type Plan } from '../../lib/masquerade/plan.js'
import { Families } from '../../lib/masquerade/rules.js'
import { write } from '../../lib/masquerade/write.js'
import { native, NETLINK_NETFILTER } from '../../lib/native.js'
import { heldBy, type Tree } from './nft-wire.js'

/** What masquerading works out in C++, without a kernel: on the thread of a socket that is never opened. */
export type Addon = Pick<Nft, 'run'>

export async function withAddon<T>(work: (addon: Addon) => Promise<T>): Promise<T> {
  const socket = new native.Socket({
    protocol: NETLINK_NETFILTER,
    netns: undefined,
    receiveBuffer: 0,
    sendBuffer: 0,
    chunk: 0,
  })
  let job = 0
  try {
    return await work({ run: (_, make) => make(socket, ++job) })
  } finally {
    await socket.close()
  }
}

export type Name = readonly [network: string, interfaceName: string, containerId: string]
export type Named = readonly [...Name, addresses: readonly string[]]

export function given(addon: Addon, all: readonly Named[]): Given {
  const given = new Given(addon, 'x')
  given.each(all, (one) => given.add(...(one as Named)))
  return given
}

export function planned(
  addon: Addon,
  ledger: Ledger,
  change: Change,
  layout: Layout,
  all: readonly Named[],
): Promise<Plan | undefined> {
  return plan(addon, ledger, given(addon, all), change, layout)
}

/** User data of the mappings that a plan makes, as they go to the kernel: of elements, then of rules. */
export function heldUserdata(made: Plan, ledger: Ledger): Buffer[] {
  const find = (tree: Tree[], type: number) => tree.find(([one]) => one === type)?.[1]
  const chain = Buffer.from('masq_checks\0').toString('hex')
  const comments = heldBy(write(made, ledger).transaction).flatMap(({ type, attributes }) => {
    if (type === Message.newElements) {
      const elements = find(attributes, ElementsAttribute.elements) as Tree[]
      return elements.map(([, element]) => find(element as Tree[], ElementAttribute.userdata))
    }
    if (type !== Message.newRule || find(attributes, RuleAttribute.chain) !== chain) return []
    return [find(attributes, RuleAttribute.userdata)]
  })
  const userdata = comments.map((one) => Buffer.from((one ?? '') as string, 'hex'))
  // What the maps' own rules say stands before.
  const maps = Object.values(Families).map(({ comment }) => comment)
  return userdata.filter((one) => !maps.some((comment) => one.includes(comment)))
}

/** The comments of attachments. */
export async function commentsOf(...names: Name[]): Promise<string[]> {
  return (await userdataFor(...names)).map((userdata) => readComment(userdata)!)
}

/** The same as user data. */
export async function userdataFor(...names: Name[]): Promise<Buffer[]> {
  return withAddon(async (addon) => {
    const ledger = emptyLedger()
    const all = names.map((name, i) => [...name, [`10.1.${i >> 8}.${i & 255}/16`]] as const)
    const made = await planned(addon, ledger, { what: 'add' }, 'rules', all)
    return heldUserdata(made!, ledger)
  })
}
