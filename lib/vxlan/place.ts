import { Route } from '../kernel/route.js'
import type { Wanted } from './options.js'

/** Where a link is to be: the namespace that it is made in, where its socket stays, and the one that it lives in. */
export interface Place {
  readonly here: Route
  readonly home: Route
  /** Whether these are two. */
  readonly apart: boolean
}

/** Places, one after the other: what stays the same from one to the next is open already. */
export class Places {
  #here: Opened | undefined
  #home: Opened | undefined

  /** @throws InvalidArgument for a namespace that is not there */
  async of({ argument, netns, moveTo }: Pick<Wanted, 'argument' | 'netns' | 'moveTo'>): Promise<Place> {
    this.#here = await reopened(this.#here, netns, `${argument}.netns`)
    const here = this.#here.route
    if (moveTo === undefined) return { here, home: here, apart: false }
    this.#home = await reopened(this.#home, moveTo, `${argument}.moveTo`)
    const home = this.#home.route
    return here.isWhere(home) ? { here, home: here, apart: false } : { here, home, apart: true }
  }

  async close(): Promise<void> {
    await this.#here?.route.close()
    await this.#home?.route.close()
  }
}

interface Opened {
  readonly netns: string | number | undefined
  readonly route: Route
}

async function reopened(
  before: Opened | undefined,
  netns: string | number | undefined,
  argument: string,
): Promise<Opened> {
  if (before !== undefined && before.netns === netns) return before
  // Only now is it known that it is there: the one before stays for who comes next otherwise.
  const route = await Route.open(netns, argument)
  await before?.route.close()
  return { netns, route }
}
