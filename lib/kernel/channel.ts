import { namespace } from '../base/check.js'
import { native, type NativeSocket } from '../native.js'
import { checkNamespace } from './namespace.js'
import { checkEnding, closedError, openError } from './netlink-errors.js'

/** What a netlink socket is opened with, whatever the family. */
export interface ChannelOptions {
  /** A network namespace by path (`/run/netns/a`) or open descriptor; default: the process's own. */
  netns?: string | number | undefined
  /**
   * How long one call may take once its turn has come, in milliseconds, 1 to 2^31 - 1; default 10,000. Looked at between
   * sends: nothing is left in flight.
   */
  timeoutMs?: number | undefined
  /** Receive buffer to ask for, in bytes. Chunks are sized by what is granted. */
  receiveBuffer?: number | undefined
  /** Send buffer to ask for, in bytes: one nftables transaction must fit. */
  sendBuffer?: number | undefined
  /** Most messages in one send. Leave it: the default is what was measured best, within the buffer granted. */
  chunk?: number | undefined
  /** Goes on in a namespace that lost its name: it is for the caller to ask {@link Channel.checkName}. Default: refuses. */
  outlivesName?: boolean
}

/** An open netlink socket with its namespace and time limit: what Xfrm and Nft have in common. */
export class Channel {
  readonly timeoutMs: number
  readonly #socket: NativeSocket
  readonly #path: string | undefined
  readonly #outlivesName: boolean
  #job = 0
  #closed: Promise<void> | undefined

  private constructor(socket: NativeSocket, path: string | undefined, options: ChannelOptions) {
    this.#socket = socket
    this.#path = path
    this.#outlivesName = options.outlivesName ?? false
    this.timeoutMs = options.timeoutMs ?? 10_000
  }

  /**
   * @param argument what the caller knows the namespace as
   * @throws InvalidArgument for a namespace that is not there or is none; Unsupported; NetlinkError
   */
  static open(protocol: number, options: ChannelOptions, argument = 'netns'): Promise<Channel> {
    return Channel.#open(protocol, options, namespace(options.netns, argument), undefined, argument)
  }

  /** Another socket, of the same family or not, in the same namespace. `what` names it in errors. @throws as {@link run} */
  sibling(what: string, protocol: number): Promise<Channel> {
    this.#check(what)
    return Channel.#open(protocol, { timeoutMs: this.timeoutMs }, this.#path, this.#socket)
  }

  static async #open(
    protocol: number,
    options: ChannelOptions,
    netns: string | number | undefined,
    like?: NativeSocket,
    argument?: string,
  ): Promise<Channel> {
    const socket = new native.Socket({
      protocol,
      netns: like ?? netns,
      receiveBuffer: options.receiveBuffer ?? 0,
      sendBuffer: options.sendBuffer ?? 0,
      chunk: options.chunk ?? 0,
    })
    try {
      await socket.open(0)
    } catch (error) {
      await socket.close()
      throw openError(error, protocol, netns, argument)
    }
    return new Channel(socket, typeof netns === 'string' ? netns : undefined, options)
  }

  /** Most messages in one send. */
  get chunk(): number {
    return this.#socket.chunk
  }

  /** Most bytes in one send. */
  get sendLimit(): number {
    return this.#socket.sendLimit
  }

  /** The inode of the network namespace that the socket is in; 0 where the kernel does not say (see {@link checkName}). */
  get namespaceInode(): number {
    return this.#socket.namespaceInode
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
    this.#check(what)
    const job = this.#nextJob()
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

  /** Runs one job that is about the host: also when the namespace's name is gone. @throws InvalidState if closed */
  async runOnHost<T>(what: string, work: (socket: NativeSocket, job: number) => Promise<T>): Promise<T> {
    if (this.#closed) throw closedError(what)
    return work(this.#socket, this.#nextJob())
  }

  /** The text of a file as this namespace shows it; undefined where there is none. */
  async readFile(path: string): Promise<string | undefined> {
    const file = await this.run(`reading ${path}`, (socket, job) => socket.readFile(job, path))
    if (file.errno === ENOENT) return undefined
    checkEnding(`reading ${path}`, file)
    return file.text
  }

  /** Writes to a file that is there, as this namespace shows it. Returns 0 or an errno. */
  async writeFile(path: string, text: string): Promise<number> {
    const what = `writing ${path}`
    const file = await this.run(what, (socket, job) => socket.writeFile(job, path, text))
    if (file.errno === 0) checkEnding(what, file)
    return file.errno
  }

  /**
   * Takes a name in this namespace until the channel is closed or the process dies.
   * @returns who holds it, if it is taken (pid 0: not to be told), or undefined: it is ours now
   */
  async lock(name: string): Promise<{ pid: number; uid: number } | undefined> {
    const taken = await this.run('lock', (socket, job) => socket.lock(job, name))
    if (taken.errno === EADDRINUSE) return { pid: taken.pid, uid: taken.uid }
    checkEnding('lock', taken)
    return undefined
  }

  /** Ends what is at work at its next chunk; resolves when the socket and its thread are gone. */
  close(): Promise<void> {
    return (this.#closed ??= this.#socket.close())
  }

  #nextJob(): number {
    return (this.#job = (this.#job % 0x7fffffff) + 1)
  }

  #check(what: string): void {
    if (this.#closed) throw closedError(what)
    if (!this.#outlivesName) this.checkName(what)
  }

  /** Whether the namespace still bears the name that it was opened by. @throws XfrmeshError ERR_XFRMESH_NAMESPACE_GONE */
  checkName(what: string): void {
    const inode = this.#socket.namespaceInode
    // Where the kernel does not say which namespace the socket is in (SIOCGSKNS takes CAP_NET_ADMIN).
    if (this.#path === undefined || inode === 0) return
    checkNamespace(what, this.#path, inode)
  }
}

const ENOENT = 2
const EADDRINUSE = 98
