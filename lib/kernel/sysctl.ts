import { NETLINK_ROUTE } from '../native.js'
import { Channel } from './channel.js'
import { devicesOf } from './device-switches.js'

/** Sysctls whose value is one integer, by their names as sysctl(8) has them: `net.ipv4.ip_forward`. */

/** Where a sysctl is: a dot parts, and a slash in its name is a dot, as in `net.ipv4.conf.eth0/5.forwarding`. */
export function sysctlPath(name: string): string {
  const parts = name.split('.').map((part) => part.replaceAll('/', '.'))
  return `/proc/sys/${parts.join('/')}`
}

/** The sysctls that one network namespace shows: its own, and those of the host that it lets see. */
export class Sysctls {
  readonly #channel: Channel

  private constructor(channel: Channel) {
    this.#channel = channel
  }

  /** @throws what {@link Channel.open} does */
  static async open(netns: string | number | undefined): Promise<Sysctls> {
    return new Sysctls(await Channel.open(NETLINK_ROUTE, { netns }))
  }

  /** Most messages, and most bytes, that a socket of ours sends at once: what it was granted of the buffers it asks for. */
  get granted(): { messages: number; bytes: number } {
    return { messages: this.#channel.chunk, bytes: this.#channel.sendLimit }
  }

  /** null where the namespace shows none of that name. */
  async read(name: string): Promise<number | null> {
    const text = await this.#channel.readFile(sysctlPath(name))
    return text === undefined ? null : Number(text)
  }

  /** The namespace's devices, but for the loopback. */
  async devices(): Promise<string[]> {
    return devicesOf((await this.#channel.readFile('/proc/thread-self/net/dev')) ?? '')
  }

  /** Returns 0, or the errno that the kernel refused it with. */
  write(name: string, value: number): Promise<number> {
    return this.#channel.writeFile(sysctlPath(name), String(value))
  }

  close(): Promise<void> {
    return this.#channel.close()
  }
}
