import type { Family } from '../base/address.js'
import { Holdings, Kind, type Entry } from './holdings.js'
import type { Subnet } from './subnet.js'

/** How many elements lead to a subnet's chain. */
interface Count {
  readonly family: Family
  elements: number
}

/** What the table holds: what a change is planned from. */
export class Ledger extends Holdings {
  readonly #counts = new Map<string, Count>()
  /** Families whose map is there. */
  readonly maps = new Set<Family>()
  /** Handles of the rules that look addresses up in those maps. */
  readonly mapRules = new Map<Family, number>()

  /** How many elements lead to that subnet's chain. */
  inSubnet(subnet: string): number {
    return this.#counts.get(subnet)?.elements ?? 0
  }

  /** How many elements that family's map has. */
  inFamily(family: Family): number {
    let all = 0
    for (const count of this.#counts.values()) if (count.family === family) all += count.elements
    return all
  }

  override add(entry: Readonly<Entry>): number {
    if (entry.kind === Kind.element) this.#count(entry.subnet!, 1)
    return super.add(entry)
  }

  override delete(row: number): void {
    if (this.kinds[row] === Kind.element) this.#count(this.subnets[row]!, -1)
    super.delete(row)
  }

  #count({ text, family }: Subnet, change: 1 | -1): void {
    const count = this.#counts.get(text)
    if (count === undefined) this.#counts.set(text, { family, elements: change })
    else if ((count.elements += change) === 0) this.#counts.delete(text)
  }
}
