/** The attacks on the guard of nftables, on that of iptables-nft. */
import { guardBy } from '../attacks.js'

guardBy('nft')
await import('../anywhere/attacks.test.js')
await import('../anywhere/leaving.test.js')
