/** The attacks on the guard of nftables, on that of iptables-legacy. */
import { guardBy } from '../attacks.js'

guardBy('legacy')
await import('../anywhere/attacks.test.js')
await import('../anywhere/leaving.test.js')
