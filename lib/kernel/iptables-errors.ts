import { Unsupported, XfrmeshError } from '../base/errors.js'

/** What goes wrong with iptables' programs, by what they print. */

/** A program of iptables' failed. The message holds what it printed on standard error. */
export class IptablesError extends XfrmeshError {
  /** What was being done, as in `ip6tables-restore`. */
  readonly operation: string
  /** What the program exited with: 2 if it did not understand, 4 if it had no lock, 1 for most else; null if it was killed. */
  readonly status: number | null

  constructor(operation: string, status: number | null, sentence: string) {
    super('ERR_XFRMESH_IPTABLES', `${operation}: ${sentence}`)
    this.operation = operation
    this.status = status
  }
}

/** Kernel option and module by what iptables calls a match or a target. */
const EXTENSIONS: Readonly<Record<string, readonly [option: string, module: string]>> = {
  bpf: ['CONFIG_NETFILTER_XT_MATCH_BPF', 'xt_bpf'],
  policy: ['CONFIG_NETFILTER_XT_MATCH_POLICY', 'xt_policy'],
  owner: ['CONFIG_NETFILTER_XT_MATCH_OWNER', 'xt_owner'],
  udp: ['CONFIG_NETFILTER_XTABLES', 'xt_tcpudp'],
  mark: ['CONFIG_NETFILTER_XT_MARK', 'xt_mark'],
  MARK: ['CONFIG_NETFILTER_XT_MARK', 'xt_mark'],
  CT: ['CONFIG_NETFILTER_XT_TARGET_CT', 'xt_CT'],
  frag: ['CONFIG_IP6_NF_MATCH_FRAG', 'ip6t_frag'],
}

/**
 * @param operation the program, as in `ip6tables-restore`
 * @param tables that it was about
 */
export function failed(
  operation: string,
  tables: readonly string[],
  status: number | null,
  printed: string,
): XfrmeshError {
  if (/you must be root|Operation not permitted/.test(printed)) {
    return new Unsupported(
      'CAP_NET_ADMIN',
      `${operation}: not permitted: it takes CAP_NET_ADMIN in the user namespace that owns the network namespace (run as root, or grant the capability to the process)`,
    )
  }
  if (/generation id: (Invalid argument|Protocol not supported|Operation not supported)/.test(printed))
    return missing(NF_TABLES, operation)
  const extension = /Extension (\S+) .*not supported/.exec(printed)?.[1]
  if (extension !== undefined) {
    return missing(EXTENSIONS[extension] ?? [`the extension ${extension}`, `xt_${extension}`], operation)
  }
  const library = /Couldn't load (match|target) `(\S+)'/.exec(printed)
  if (library) {
    return new Unsupported(
      'iptables',
      `${operation}: this iptables lacks the ${library[1]} ${library[2]}: install the whole package iptables`,
    )
  }
  if (/Table does not exist|initialize table/.test(printed)) {
    const table = tables.find((name) => printed.includes(`'${name}'`)) ?? tables[0]!
    const [ip, module] = operation.startsWith('ip6') ? ['IP6', 'ip6table'] : ['IP', 'iptable']
    return missing([`CONFIG_${ip}_NF_${table.toUpperCase()}`, `${module}_${table}`], operation)
  }
  return new IptablesError(operation, status, sentence(printed) || `failed with status ${status ?? 'unknown'}`)
}

const NF_TABLES = ['CONFIG_NF_TABLES', 'nf_tables', ', or iptables-legacy, which does without'] as const

function missing([option, module, else_ = '']: readonly [string, string, string?], operation: string): Unsupported {
  return new Unsupported(
    option,
    `${operation}: this kernel lacks what it needs: ${option}${else_}; if that is a module, modprobe ${module} loads it`,
  )
}

/** What was printed, without the advice on how to use the program. */
function sentence(printed: string): string {
  const lines = printed.split('\n').filter((line) => line.trim() !== '' && !/^(Try `|# Warning:)/.test(line))
  return lines.map((line) => line.trim()).join('; ')
}
