import { closeSync, fstatSync } from 'node:fs'
import { NetlinkError, XfrmeshError } from '../base/errors.js'
import { NETLINK_ROUTE } from '../native.js'
import { Channel } from './channel.js'
import {
  LinkMessage,
  linkNamed,
  linksOfKind,
  newLink,
  readLinks,
  type Link,
  type LinkName,
  type NewLink,
} from './link.js'
import { GET_NAMESPACE_ID, namespaceIdOf, readNamespaceIds } from './namespace-id.js'
import { openNamespace } from './namespace.js'
import { checkEnding } from './netlink-errors.js'

const NLM_F_DUMP = 0x300
const NLM_F_EXCL = 0x200
const NLM_F_CREATE = 0x400

const EPERM = 1
const ENODEV = 19

/** Links of one network namespace, over rtnetlink. Calls run in the order made, on a thread of their own. */
export class Route {
  readonly #channel: Channel
  readonly #netns: string | number | undefined
  #descriptor: number | undefined

  private constructor(channel: Channel, netns: string | number | undefined) {
    this.#channel = channel
    this.#netns = netns
  }

  /**
   * @param argument what the caller knows the namespace as
   * @throws InvalidArgument for a namespace that is not there; Unsupported for one that must not be entered
   */
  static async open(netns: string | number | undefined, argument: string): Promise<Route> {
    return new Route(await Channel.open(NETLINK_ROUTE, { netns }, argument), netns)
  }

  /** undefined if there is no such link. `namespaceId`: in the namespace that is known here by that id. */
  async link(link: LinkName, namespaceId?: number): Promise<Link | undefined> {
    try {
      return readLinks(await this.#request('looking for a link', LinkMessage.get, 0, linkNamed(link, namespaceId)))[0]
    } catch (error) {
      if (error instanceof NetlinkError && error.errno === ENODEV) return undefined
      throw error
    }
  }

  /** All links of a kind. */
  async links(kind: string, namespaceId?: number): Promise<Link[]> {
    const payload = linksOfKind(kind, namespaceId)
    const links = readLinks(await this.#request(`listing ${kind} links`, LinkMessage.get, NLM_F_DUMP, payload))
    return links.filter((link) => link.kind === kind)
  }

  /**
   * Makes a link with all that is asked for, or none: where setting it up or attaching it fails, the kernel takes it away
   * again in the same call. One of that name that is there is left alone: EEXIST.
   */
  async create(link: NewLink): Promise<void> {
    await this.#request(`making link ${link.name}`, LinkMessage.new, NLM_F_CREATE | NLM_F_EXCL, newLink(link))
  }

  /** By its index, which another link gets only if that was given it: false if it is gone. */
  async delete({ name, index }: Link): Promise<boolean> {
    try {
      await this.#request(`deleting link ${name}`, LinkMessage.delete, 0, linkNamed({ index }))
      return true
    } catch (error) {
      if (error instanceof NetlinkError && error.errno === ENODEV) return false
      throw error
    }
  }

  /** The id by which another namespace is known in this one; undefined if it has none. */
  async namespaceId(of: Route): Promise<number | undefined> {
    const payload = namespaceIdOf(of.descriptor)
    return readNamespaceIds(await this.#request("looking for a namespace's id", GET_NAMESPACE_ID, 0, payload))[0]
  }

  /** Ids of all namespaces that are known in this one. */
  async namespaceIds(): Promise<number[]> {
    return readNamespaceIds(await this.#request('listing namespaces', GET_NAMESPACE_ID, NLM_F_DUMP, namespaceIdOf()))
  }

  /** Of the namespace, open for as long as this is. @throws XfrmeshError ERR_XFRMESH_NAMESPACE_GONE */
  get descriptor(): number {
    if (typeof this.#netns === 'number') return this.#netns
    if (this.#descriptor !== undefined) return this.#descriptor
    const path = this.#netns ?? '/proc/self/ns/net'
    const descriptor = openNamespace(path)
    const { namespaceInode } = this.#channel
    if (namespaceInode !== 0 && fstatSync(descriptor).ino !== namespaceInode) {
      closeSync(descriptor)
      throw new XfrmeshError('ERR_XFRMESH_NAMESPACE_GONE', `another network namespace bears the name ${path} now`)
    }
    return (this.#descriptor = descriptor)
  }

  /** Whether both are of one namespace. */
  isWhere(other: Route): boolean {
    return fstatSync(this.descriptor).ino === fstatSync(other.descriptor).ino
  }

  async close(): Promise<void> {
    await this.#channel.close()
    if (this.#descriptor === undefined) return
    closeSync(this.#descriptor)
    this.#descriptor = undefined
  }

  async #request(what: string, type: number, flags: number, payload: Uint8Array): Promise<Uint8Array> {
    const { timeoutMs } = this.#channel
    const reply = await this.#channel.run(what, (socket, job) => socket.request(job, type, flags, payload, timeoutMs))
    // For want of a capability the kernel has no words.
    if (reply.errno === EPERM && reply.message !== undefined) throw new NetlinkError(what, EPERM, reply.message)
    checkEnding(what, reply)
    return reply.messages
  }
}
