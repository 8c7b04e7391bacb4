/** What `iptables-save` prints, as values. */

/** The chains of a table, built-in ones too, by name; their rules in order. */
export type SavedTable = ReadonlyMap<string, readonly SavedRule[]>

export interface SavedRule {
  /** Matches and target as iptables-save words them, as in `-p udp -m udp --dport 4789 -j DROP`. */
  readonly rule: string
  /** Packets counted; 0 where it was not asked for counters. */
  readonly packets: number
}

/** @returns tables by name */
export function parseSaved(text: string): Map<string, SavedTable> {
  const tables = new Map<string, SavedTable>()
  let chains = new Map<string, SavedRule[]>()
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) {
      chains = new Map()
      tables.set(line.slice(1), chains)
    } else if (line.startsWith(':')) {
      chains.set(line.slice(1, line.indexOf(' ')), [])
    } else {
      const [, packets = '0', chain = '', rule = ''] = RULE.exec(line) ?? []
      chains.get(chain)?.push({ rule, packets: Number(packets) })
    }
  }
  return tables
}

const RULE = /^(?:\[(\d+):\d+\] )?-A (\S+) ?(.*)$/
