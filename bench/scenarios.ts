import type { Scenario } from './harness/contest.js'
import { masquerading } from './masquerade/scenarios.js'
import { networks } from './nft/networks.js'
import { guardedNodes, nodesScenario } from './node/nodes.js'
import { packets } from './packets/packets.js'
import { throughput } from './throughput/throughput.js'
import { endpoints } from './vxlan/endpoints.js'
import { peers } from './xfrm/peers.js'
import { policies } from './xfrm/policies.js'
import { records } from './xfrm/records.js'
import { stale } from './xfrm/stale.js'

/** All that `npm run bench` runs, in this order. */
export const scenarios: readonly Scenario[] = [
  ...[policies, records, ...peers, stale, nodesScenario, guardedNodes],
  ...[networks, endpoints, ...masquerading, packets, ...throughput],
]
