import { statSync } from 'node:fs'
import { getSystemErrorMap } from 'node:util'
import { namespace } from '../base/check.js'
import { InvalidArgument, InvalidState, NetlinkError, Unsupported, XfrmeshError } from '../base/errors.js'
import { Ending, NETLINK_NETFILTER, NETLINK_XFRM, native, type NativeSocket } from '../native.js'

/** What a netlink socket is opened with, whatever the family. */
export interface ChannelOptions {
  /** A network namespace by path (`/run/netns/a`) or open descriptor; default: the process's own. */
  netns?: string | number | undefined
  /** How long one call may take, in milliseconds, 1 to 2^31 - 1; default 10,000. Checked between sends: nothing is left in flight. */
  timeoutMs?: number | undefined
  /** Receive buffer to ask for, in bytes. Chunks are sized by what is granted. */
  receiveBuffer?: number | undefined
  /** Send buffer to ask for, in bytes: one nftables transaction must fit. */
  sendBuffer?: number | undefined
  /** Most messages in one send. Leave it: the default is what was measured best, within the buffer granted. */
  chunk?: number | undefined
}

/** An open netlink socket with its namespace and time limit: what Xfrm and Nft have in common. */
export class Channel {
  readonly timeoutMs: number
  readonly #socket: NativeSocket
  readonly #path: string | undefined
  #job = 0
  #closed: Promise<void> | undefined

  private constructor(socket: NativeSocket, path: string | undefined, timeoutMs: number) {
    this.#socket = socket
    this.#path = path
    this.timeoutMs = timeoutMs
  }

  /** @throws InvalidArgument for a namespace that is not there or is none; Unsupported; NetlinkError */
  static async open(protocol: number, options: ChannelOptions): Promise<Channel> {
    const netns = namespace(options.netns, 'netns')
    const socket = new native.Socket({
      protocol,
      netns,
      receiveBuffer: options.receiveBuffer ?? 0,
      sendBuffer: options.sendBuffer ?? 0,
      chunk: options.chunk ?? 0,
    })
    try {
      await socket.open(0)
    } catch (error) {
      await socket.close()
      throw openError(error, protocol, netns)
    }
    return new Channel(socket, typeof netns === 'string' ? netns : undefined, options.timeoutMs ?? 10_000)
  }

  /** Most messages in one send. */
  get chunk(): number {
    return this.#socket.chunk
  }

  /** Most bytes in one send. */
  get sendLimit(): number {
    return this.#socket.sendLimit
  }

  /**
   * Runs one job on the socket. `what` names it in errors. An abort ends the job at its next chunk; what it came to is
   * in its outcome. @throws InvalidState if closed; XfrmeshError ERR_XFRMESH_NAMESPACE_GONE
   */
  async run<T>(
    what: string,
    work: (socket: NativeSocket, job: number) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    if (this.#closed) throw closedError(what)
    this.#checkNamespace(what)
    const job = (this.#job = (this.#job % 0x7fffffff) + 1)
    if (signal === undefined) return work(this.#socket, job)
    const cancel = () => this.#socket.cancel(job)
    signal.addEventListener('abort', cancel, { once: true })
    try {
      const running = work(this.#socket, job)
      if (signal.aborted) cancel()
      return await running
    } finally {
      signal.removeEventListener('abort', cancel)
    }
  }

  /** Ends what is at work at its next chunk; resolves when the socket and its thread are gone. */
  close(): Promise<void> {
    return (this.#closed ??= this.#socket.close())
  }

  /**
   * A namespace that lost its name lives on while this socket is open; whoever asked for it by name must not be told
   * otherwise. Where the kernel does not say which one the socket is in (SIOCGSKNS takes CAP_NET_ADMIN), or this process
   * may not look at the path any more, there is nothing to compare.
   */
  #checkNamespace(what: string): void {
    const inode = this.#socket.namespaceInode
    if (this.#path === undefined || inode === 0) return
    const found = inodeAt(this.#path)
    if (found === inode || found === 'hidden') return
    throw new XfrmeshError(
      'ERR_XFRMESH_NAMESPACE_GONE',
      `${what}: the network namespace ${this.#path} is gone${found === undefined ? '' : ' (another bears its name now)'}: open it anew`,
    )
  }
}

/** Of the file at a path, links followed; undefined where the path leads to none. */
function inodeAt(path: string): number | 'hidden' | undefined {
  try {
    return statSync(path).ino
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === 'EACCES' || code === 'EPERM' ? 'hidden' : undefined
  }
}

export function closedError(what: string): InvalidState {
  return new InvalidState(`${what}: closed`, 'ERR_XFRMESH_CLOSED')
}

/** errno's name and sentence, as `strerror` has them: `['EEXIST', 'file already exists']`. */
export function errnoText(errno: number): readonly [name: string, sentence: string] {
  return getSystemErrorMap().get(-errno) ?? [`E${errno}`, `error ${errno}`]
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
const ENOBUFS = 105
const EBADF = 9
const EINVAL = 22
const EPROTONOSUPPORT = 93

/** An errno as an error: a missing capability by its name, a lost answer as what it is, the rest as the kernel put it. */
export function netlinkError(what: string, errno: number, sentence?: string): XfrmeshError {
  if (errno === EPERM) return new Unsupported('CAP_NET_ADMIN', `${what}: ${permission}`)
  if (errno === ENOBUFS) {
    return new XfrmeshError(
      'ERR_XFRMESH_ANSWER_LOST',
      `${what}: the kernel's answer was lost (the receive buffer overran): read back what it came to`,
    )
  }
  return new NetlinkError(what, errno, sentence ?? errnoText(errno)[1])
}

const permission =
  'not permitted: it takes CAP_NET_ADMIN in the user namespace that owns the network namespace (run as root, or grant the capability to the process)'

function openError(error: unknown, protocol: number, netns: string | number | undefined): Error {
  const { errno, step } = error as { errno?: number; step?: string }
  if (errno === undefined) return error instanceof Error ? error : new Error(String(error))
  const sentence = errnoText(errno)[1]
  if (step === 'namespace') {
    if (errno === EPERM) {
      return new Unsupported(
        'CAP_SYS_ADMIN',
        `netns: entering ${String(netns)} takes CAP_SYS_ADMIN (run as root, or in the namespace's own user namespace)`,
        { cause: error },
      )
    }
    const why = errno === EINVAL ? 'it is no network namespace' : sentence
    const expected = 'a network namespace: its path, as in /run/netns/a, or an open descriptor of it'
    return new InvalidArgument(
      'netns',
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
