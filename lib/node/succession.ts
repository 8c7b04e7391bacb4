import { startsOf } from '../kernel/record-identity.js'
import type { Belonging } from './belonging.js'
import type { XfrmPort } from './port.js'
import { keyIdAt } from './tunnels.js'

/**
 * In which order keys came into use on this node, as the kernel remembers it whatever became of the process: it lists SAs
 * by when they were added, the last first. Of each key the oldest SA counts: those of nodes that came later are newer.
 */
export class Succession {
  /** For each key, by its id, and each way: how many SAs were added since its first one. */
  readonly #outbound: ReadonlyMap<number, number>
  readonly #inbound: ReadonlyMap<number, number>

  private constructor(outbound: ReadonlyMap<number, number>, inbound: ReadonlyMap<number, number>) {
    this.#outbound = outbound
    this.#inbound = inbound
  }

  static async read(xfrm: XfrmPort, belonging: Belonging): Promise<Succession> {
    const found = await xfrm.read({ policies: false, reqid: 0, details: false, keys: [], algorithms: [] })
    for (const key of found.keys) key.fill(0)
    const [outbound, inbound] = [new Map<number, number>(), new Map<number, number>()]
    for (const [place, at] of startsOf(found.records).entries()) {
      if (belonging.ofState(found.records, at) === undefined) continue
      // The one that comes last is the oldest.
      const id = keyIdAt(found.records, at)
      const way = belonging.isInbound(found.records, at) ? inbound : outbound
      way.set(id, place)
    }
    return new Succession(outbound, inbound)
  }

  /** Keys that began to encrypt after one did. */
  encryptingAfter(id: number): number[] {
    return this.#after(id, this.#outbound)
  }

  /** Keys that began to decrypt after one began to encrypt: they were prepared since. */
  decryptingAfter(id: number): number[] {
    return this.#after(id, this.#inbound)
  }

  #after(id: number, way: ReadonlyMap<number, number>): number[] {
    const began = this.#outbound.get(id) ?? -1
    return [...way].filter(([other, place]) => other !== id && place < began).map(([other]) => other)
  }
}
