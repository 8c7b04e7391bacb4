import { expect } from 'vitest'
import { Overlay, type OverlayOptions, PartialFailure, type Report } from '../../lib/index.js'
import { Operation, State } from '../../lib/kernel/records.js'
import { Endpoints } from '../../lib/vxlan/endpoints.js'
import { key } from './model.js'
import { NeighbourKernel } from './neighbour-model.js'
import { LOCAL, ModelPorts } from './stories.js'

export interface Linked {
  readonly ports: ModelPorts
  readonly neighbours: NeighbourKernel
  readonly overlay: Overlay
  readonly endpoints: Endpoints
}

/**
 * An Overlay and a link's endpoints, on models of the SAD and of the link's entries: whenever one of these changes, all FDB
 * entries have to lead to where there is an SA.
 */
export async function openedWithLink(options: Partial<OverlayOptions> = {}): Promise<Linked> {
  const ports = new ModelPorts()
  const neighbours = new NeighbourKernel()
  const encrypted = (vtep: string) => ports.kernel.outboundTo(vtep).length > 0
  const led = () => [...neighbours.listed.fdb.values()]
  neighbours.onLead = (vtep) => expect(encrypted(vtep), `no SA to ${vtep} before an FDB entry`).toBe(true)
  const take = ports.kernel.take.bind(ports.kernel)
  ports.kernel.take = (record, keys) => {
    const said = take(record, keys)
    if (record[State.operation] === Operation.deleteState) {
      for (const vtep of led()) expect(encrypted(vtep), `an FDB entry to ${vtep} after its last SA`).toBe(true)
    }
    return said
  }
  const overlay = Overlay.over({ local: LOCAL, ...options }, ports)
  await overlay.addNetworks([4096])
  await overlay.setKeys([key(1)])
  const endpoints = new Endpoints({ link: 'vx0' }, neighbours.link())
  return { ports, neighbours, overlay, endpoints }
}

/** Of each peer, by its address. */
export function references({ peers }: Overlay): Map<string, number> {
  return new Map([...peers].map(({ address, references }): [string, number] => [address, references]).sort())
}

/** The report of a call that was not all done. */
export async function refused(call: Promise<unknown>): Promise<Report> {
  const error: unknown = await call.then(
    () => expect.unreachable(),
    (reason: unknown) => reason,
  )
  if (!(error instanceof PartialFailure)) throw error
  return error.report
}
