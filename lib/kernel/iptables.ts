import { existsSync } from 'node:fs'
import { NetlinkError, Unsupported } from '../base/errors.js'
import { NETLINK_ROUTE } from '../native.js'
import { Channel } from './channel.js'
import { failed } from './iptables-errors.js'
import { parseSaved, type SavedTable } from './iptables-save.js'
import { findProgram, ProgramPlace } from './program.js'

/** IPv4, by iptables, or IPv6, by ip6tables. */
export type XtFamily = 4 | 6

/** iptables' own kernel half, or its way of writing nftables' rules. */
export type XtVariant = 'legacy' | 'nft'

const FAMILIES = [4, 6] as const
const EACCES = 13

/** Changes of a table, in the order that they are made in: lines as iptables-restore takes them. */
export interface TableLines {
  readonly table: string
  readonly lines: readonly string[]
}

export interface IptablesOptions {
  /** A network namespace by path (`/run/netns/a`) or open descriptor; default: the process's own. */
  netns?: string | number | undefined
  /** How long one program may run, 1 to 2^31 - 1 ms, waiting for the lock that they share included; default 10,000. */
  timeoutMs?: number | undefined
  /** Default: what this system calls iptables. */
  variant?: XtVariant | undefined
}

/**
 * iptables and ip6tables in one network namespace, by their own programs: `iptables-save` to read, and
 * `iptables-restore --noflush` to change, one process for as many rules as there are.
 */
export class Iptables implements AsyncDisposable {
  readonly variant: XtVariant
  /** Those that this kernel speaks: without IPv6 there is nothing for ip6tables to see. */
  readonly families: readonly XtFamily[]
  readonly #programs: Programs
  readonly #seconds: string
  readonly #place: ProgramPlace

  private constructor(variant: XtVariant, programs: Programs, timeoutMs: number, place: ProgramPlace) {
    this.variant = variant
    this.families = families()
    this.#programs = programs
    // Before the time is up: what waits in vain for the lock should say so.
    this.#seconds = String(Math.max(1, Math.ceil(timeoutMs / 1000) - 1))
    this.#place = place
  }

  /** @throws InvalidArgument for a namespace that is not there; Unsupported if iptables is not installed */
  static async open(options: IptablesOptions = {}): Promise<Iptables> {
    const iptables = await Iptables.openIfInstalled(options)
    if (iptables !== null) return iptables
    const name = programName(4, 'restore', options.variant)
    throw new Unsupported('iptables', `there is no ${name} on this system: install it (package iptables)`)
  }

  /** null if it is not installed. @throws as {@link open} */
  static async openIfInstalled({ netns, timeoutMs = 10_000, variant }: IptablesOptions): Promise<Iptables | null> {
    const place = await ProgramPlace.open(netns, timeoutMs)
    try {
      const found = await installed(place, variant)
      if (found !== undefined) return new Iptables(...found, timeoutMs, place)
    } catch (error) {
      await place.close()
      throw error
    }
    await place.close()
    return null
  }

  /**
   * Whether the legacy kernel half has any of these tables in a namespace: it makes them when they are first looked at. It
   * takes no program, and where that half is not loaded, nothing. The kernel tells it root alone: to others there is none.
   * @throws what {@link Channel.open} does; NetlinkError
   */
  static async hasLegacyTables(
    tables: readonly string[],
    { netns, timeoutMs }: Pick<IptablesOptions, 'netns' | 'timeoutMs'>,
  ): Promise<boolean> {
    const files = FAMILIES.map((family) => `net/${family === 4 ? 'ip' : 'ip6'}_tables_names`)
    const loaded = files.filter((file) => existsSync(`/proc/${file}`))
    if (loaded.length === 0) return false
    const channel = await Channel.open(NETLINK_ROUTE, { netns, timeoutMs })
    try {
      const names = await Promise.all(loaded.map((file) => channel.readFile(`/proc/thread-self/${file}`)))
      return names.some((text) => text?.split('\n').some((name) => tables.includes(name)))
    } catch (error) {
      if (error instanceof NetlinkError && error.errno === EACCES) return false
      throw error
    } finally {
      await channel.close()
    }
  }

  /**
   * A table, with its counters. The legacy kernel half makes the table for that, if there is none.
   * @throws Unsupported; IptablesError
   */
  async save(family: XtFamily, table: string): Promise<SavedTable> {
    const text = await this.#run(family, 'save', ['-c', '-t', table], [table])
    return parseSaved(text).get(table) ?? new Map()
  }

  /**
   * Changes tables, each in one step, in the order given.
   * @throws Unsupported; IptablesError. The tables before the one that failed are changed then
   */
  async restore(family: XtFamily, tables: readonly TableLines[]): Promise<void> {
    const text = tables.map(({ table, lines }) => `*${table}\n${lines.join('\n')}\nCOMMIT\n`).join('')
    const names = tables.map(({ table }) => table)
    await this.#run(family, 'restore', ['--noflush', '-w', this.#seconds], names, text)
  }

  close(): Promise<void> {
    return this.#place.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  async #run(
    family: XtFamily,
    what: 'save' | 'restore',
    words: readonly string[],
    tables: readonly string[],
    input?: string,
  ): Promise<string> {
    const name = programName(family, what)
    const { status, stdout, stderr } = await this.#place.run(name, [this.#programs.get(name)!, ...words], input)
    if (status !== 0) throw failed(name, tables, status, stderr)
    return stdout
  }
}

function families(): readonly XtFamily[] {
  return existsSync('/proc/net/if_inet6') ? FAMILIES : [4]
}

function programName(family: XtFamily, what: 'save' | 'restore', variant?: XtVariant): string {
  return [family === 4 ? 'iptables' : 'ip6tables', variant, what].filter((part) => part !== undefined).join('-')
}

/** Paths of the programs, by their names without the variant. */
type Programs = ReadonlyMap<string, string>

/** What this system calls iptables, or a variant by whatever name; undefined if it is not installed. */
async function installed(place: ProgramPlace, wanted?: XtVariant): Promise<[XtVariant, Programs] | undefined> {
  if (wanted !== undefined) {
    const programs = await programsOf(wanted)
    if (programs !== undefined) return [wanted, programs]
  }
  const programs = await programsOf()
  if (programs === undefined) return undefined
  const name = programName(4, 'restore')
  const { stdout } = await place.run(name, [programs.get(name)!, '--version'])
  const variant = stdout.includes('nf_tables') ? 'nft' : 'legacy'
  return wanted === undefined || wanted === variant ? [variant, programs] : undefined
}

async function programsOf(variant?: XtVariant): Promise<Programs | undefined> {
  const programs = new Map<string, string>()
  for (const family of families()) {
    for (const what of ['save', 'restore'] as const) {
      const path = await findProgram(programName(family, what, variant))
      if (path === undefined) return undefined
      programs.set(programName(family, what), path)
    }
  }
  return programs
}
