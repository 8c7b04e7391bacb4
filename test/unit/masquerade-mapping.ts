import { formatAddress } from '../../lib/base/address.js'
import { addressBytes, ADDRESS_WORDS, Subnets, takeAddress, type Mapping } from '../../lib/masquerade/subnet.js'

/** The mapping that a text stands for: what is refused is named by `argument`. */
export function mappingAt(text: unknown, argument = 'x'): Mapping {
  const words = new Uint32Array(ADDRESS_WORDS)
  const subnet = takeAddress(text, argument, new Subnets(), words, 0)
  return { text: formatAddress(addressBytes(words, 0, subnet.family), 0, subnet.family), subnet }
}
