import { constants } from 'node:os'
import { getSystemErrorMap } from 'node:util'
import { InvalidArgument, InvalidState, NetlinkError, Unsupported, XfrmeshError } from '../base/errors.js'
import { Ending, NETLINK_NETFILTER, NETLINK_XFRM } from '../native.js'

/** What goes wrong on a netlink socket, as errors: an errno of the kernel's, the ending of a job, a socket that won't open. */

/** Those of Linux alone that XFRM and the kernel's ciphers may answer (asm-generic/errno.h). */
const linuxNames: readonly (readonly [name: string, errno: number])[] = [
  ['ENOPKG', 65],
  ['ERESTART', 85],
  ['ENOKEY', 126],
  ['EKEYEXPIRED', 127],
  ['EKEYREVOKED', 128],
  ['EKEYREJECTED', 129],
]

/** Names of errnos that libuv has no sentence for. */
const otherNames = new Map([...Object.entries(constants.errno), ...linuxNames].map(([name, errno]) => [errno, name]))

/** errno's name and sentence, as `strerror` has them: `['EEXIST', 'file already exists']`. */
export function errnoText(errno: number): readonly [name: string, sentence: string] {
  const known = getSystemErrorMap().get(-errno)
  if (known !== undefined) return known
  const name = otherNames.get(errno)
  return name === undefined ? [`E${errno}`, `error ${errno}`] : [name, `${name} (error ${errno})`]
}

export function closedError(what: string): InvalidState {
  return new InvalidState(`${what}: closed`, 'ERR_XFRMESH_CLOSED')
}

/** Throws for an ending that is none of the caller's operations' fault. `complete` passes. */
export function checkEnding(
  what: string,
  result: { ending: number; errno: number; message?: string | undefined },
): void {
  switch (result.ending) {
    case Ending.complete:
      return
    case Ending.closed:
      throw closedError(what)
    case Ending.cancelled:
      throw new XfrmeshError('ERR_XFRMESH_ABORTED', `${what}: aborted`)
    case Ending.late:
      throw new XfrmeshError('ERR_XFRMESH_TIMEOUT', `${what}: out of time`)
    default:
      throw netlinkError(what, result.errno, result.message)
  }
}

const EPERM = 1
const EBADF = 9
const EAGAIN = 11
const EINVAL = 22
const EPROTONOSUPPORT = 93
const ENOBUFS = 105
const ETIMEDOUT = 110

/**
 * An errno as an error: a missing capability by its name, an answer that was lost, late or of no one moment (the addon's
 * ENOBUFS, ETIMEDOUT and EAGAIN) as what it is, the rest as the kernel put it.
 */
export function netlinkError(what: string, errno: number, sentence?: string): XfrmeshError {
  if (errno === EPERM) return new Unsupported('CAP_NET_ADMIN', `${what}: ${permission}`)
  if (errno === ENOBUFS) {
    return new XfrmeshError(
      'ERR_XFRMESH_ANSWER_LOST',
      `${what}: the kernel's answer was lost (the receive buffer overran): read back what it came to`,
    )
  }
  if (errno === ETIMEDOUT) {
    return new XfrmeshError(
      'ERR_XFRMESH_TIMEOUT',
      `${what}: out of time, with no answer from the kernel: read back what it came to`,
    )
  }
  if (errno === EAGAIN) {
    return new XfrmeshError('ERR_XFRMESH_BUSY', `${what}: the list changed during each of 16 readings: try again later`)
  }
  return new NetlinkError(what, errno, sentence ?? errnoText(errno)[1])
}

const permission =
  'not permitted: it takes CAP_NET_ADMIN in the user namespace that owns the network namespace (run as root, or grant the capability to the process)'

/** What opening a socket of that protocol rejected with: an Error with `errno` and `step`. */
export function openError(
  error: unknown,
  protocol: number,
  netns: string | number | undefined,
  argument = 'netns',
): Error {
  const { errno, step } = error as { errno?: number; step?: string }
  if (errno === undefined) return error instanceof Error ? error : new Error(String(error))
  const sentence = errnoText(errno)[1]
  if (step === 'namespace') {
    if (errno === EPERM) {
      return new Unsupported(
        'CAP_SYS_ADMIN',
        `${argument}: entering ${String(netns)} takes CAP_SYS_ADMIN (run as root, or in the namespace's own user namespace)`,
        { cause: error },
      )
    }
    const why = errno === EINVAL ? 'it is no network namespace' : sentence
    const expected = 'a network namespace: its path, as in /run/netns/a, or an open descriptor of it'
    return new InvalidArgument(
      argument,
      `${expected} (${String(netns)}: ${errno === EBADF ? 'no open descriptor' : why})`,
    )
  }
  if (errno === EPROTONOSUPPORT) {
    const [name, option] =
      protocol === NETLINK_XFRM
        ? ['XFRM', 'CONFIG_XFRM_USER (module xfrm_user)']
        : protocol === NETLINK_NETFILTER
          ? ['nftables', 'CONFIG_NF_TABLES (module nf_tables)']
          : ['this netlink family', 'it']
    return new Unsupported(option, `this kernel has no ${name} over netlink: it needs ${option}`, { cause: error })
  }
  return new NetlinkError(`opening a netlink socket (${step ?? '?'})`, errno, sentence, { cause: error })
}
