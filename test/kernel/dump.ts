import { inNetns } from './netns.js'

/**
 * The SAs or policies of a namespace as `ip` lists them, with keys, limits and counters, but without times and the
 * kernel's running numbers, sorted.
 */
export async function objects(netns: string, kind: 'state' | 'policy'): Promise<string[]> {
  const text = await inNetns(netns, 'ip', '-s', 'xfrm', kind)
  return text
    .split(/^(?=src )/m)
    .filter((object) => object !== '')
    .map((object) => object.replace(/ add \S+ \S+ use .*/, '').replace(/ index \d+/, ''))
    .sort()
}

export interface Dump {
  states: string[]
  policies: string[]
  ruleset: string
}

/** All that an Overlay may have in a namespace, as `ip` and `nft` list it, without what changes by itself. */
export async function dump(netns: string): Promise<Dump> {
  const [states, policies, ruleset] = await Promise.all([
    objects(netns, 'state'),
    objects(netns, 'policy'),
    inNetns(netns, 'nft', '--stateless', 'list', 'ruleset'),
  ])
  return { states, policies, ruleset }
}
