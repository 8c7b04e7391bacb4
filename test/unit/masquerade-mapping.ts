import { checkedMapping, Subnets, type Mapping } from '../../lib/masquerade/subnet.js'

/** The mapping that a text stands for: what is refused is named by `argument`. */
export function mappingAt(text: unknown, argument = 'x'): Mapping {
  return checkedMapping(text, argument, new Subnets())
}
