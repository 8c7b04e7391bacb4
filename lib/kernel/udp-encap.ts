import { type Address, AF_INET } from '../base/address.js'
import { InvalidArgument, NetlinkError, Unsupported, XfrmeshError } from '../base/errors.js'
import type { Channel } from './channel.js'
import { checkEnding, errnoText } from './netlink-errors.js'
import { portHolder } from './port-holder.js'

/** Where ESP in UDP comes to. */
export interface EncapPlace {
  readonly local: Address
  readonly port: number
  /** An open descriptor of a socket that somebody else holds; its duplicate is used. */
  readonly socket?: number | undefined
}

const EBADF = 9
const EACCES = 13
const ENOPROTOOPT = 92
const EAFNOSUPPORT = 97
const EADDRINUSE = 98

/** The UDP socket by which the kernel receives ESP in UDP (RFC 3948), and by which keepalives are sent. */
export class UdpEncap {
  /** Of the socket: ours, and to be handed on at most. */
  readonly descriptor: number
  readonly #channel: Channel

  private constructor(channel: Channel, descriptor: number) {
    this.#channel = channel
    this.descriptor = descriptor
  }

  /**
   * Opens it in the channel's namespace. It need not have the address yet.
   *
   * @throws InvalidArgument naming `nat.socket`; Unsupported; XfrmeshError ERR_XFRMESH_PORT_HELD if somebody else has the
   *   port; NetlinkError
   */
  static async open(channel: Channel, place: EncapPlace): Promise<UdpEncap> {
    const { local, port, socket } = place
    const opened = await channel.run('nat', (native, job) =>
      native.openEncap(job, local.family, local.bytes, port, socket),
    )
    if (opened.errno !== 0) throw await openError(channel, place, opened)
    checkEnding('nat', opened)
    return new UdpEncap(channel, opened.descriptor)
  }

  /**
   * Sends a keepalive (RFC 3948, 2.3) to each of these, addresses of 16 bytes, each with its port. The arrays are the addon's
   * until this settles. Those that can't be sent to stand in nobody's way; `errno` is of the last of them. Where the send
   * buffer stays full, all that are left fail.
   */
  async keepAlive(addresses: Uint8Array, ports: Uint16Array): Promise<{ sent: number; failed: number; errno: number }> {
    const { timeoutMs } = this.#channel
    const { ending, sent, failed, errno } = await this.#channel.run('nat', (native, job) =>
      native.keepAlive(job, addresses, ports, timeoutMs),
    )
    checkEnding('nat', { ending, errno })
    return { sent, failed, errno }
  }

  /**
   * Whether the kernel still takes ESP out of all that comes to it: another holder may have made another use of it, have
   * connected it, or have it share its port.
   */
  async isIntact(): Promise<boolean> {
    const { ending, errno } = await this.#channel.run('nat', (native, job) => native.checkEncap(job))
    if (errno !== 0) return false
    checkEnding('nat', { ending, errno })
    return true
  }
}

async function openError(
  channel: Channel,
  { local, port, socket }: EncapPlace,
  { errno, step }: { errno: number; step: string },
): Promise<XfrmeshError> {
  const family = local.family === AF_INET ? 'IPv4' : 'IPv6'
  const should: Readonly<Record<string, string>> = {
    kind: 'a UDP socket',
    family: `a UDP socket of ${family}, as local (${local.text}) is`,
    port: `a UDP socket that is bound to port ${port}, as nat.port says`,
    address: `a UDP socket that is bound to local (${local.text}) or to all addresses`,
    connected: 'a UDP socket that is not connected: it would take in the packets of one peer alone',
    device: 'a UDP socket that is not bound to a device (SO_BINDTODEVICE): peers may come by another',
    reuseport:
      'a UDP socket without SO_REUSEPORT: of sockets that share a port by it, the kernel gives each the packets of some peers',
    use: 'a UDP socket of which nothing but ESP is taken out (UDP_ENCAP): this one has another use, as for L2TP',
    place: "a UDP socket in the overlay's network namespace",
  }
  if (should[step] !== undefined)
    return new InvalidArgument('nat.socket', `${should[step]}; descriptor ${socket} is none`)
  if (socket !== undefined && errno === EBADF) return new InvalidArgument('nat.socket', 'an open descriptor', socket)
  const where = `UDP port ${port} of ${local.text}`
  if (errno === EADDRINUSE) {
    const holder = await portHolder(channel, local, port)
    return new XfrmeshError(
      'ERR_XFRMESH_PORT_HELD',
      `nat: ${where} is held by ${holder}. IKE daemons keep 4500 for ESP of their own. Take another port (nat.port, which peers must then be told), or hand in that very socket (nat.socket)`,
    )
  }
  if (errno === EACCES && step === 'bind') {
    return new Unsupported(
      'CAP_NET_BIND_SERVICE',
      `nat: binding ${where} is not permitted: below net.ipv4.ip_unprivileged_port_start it takes CAP_NET_BIND_SERVICE`,
    )
  }
  if (errno === EAFNOSUPPORT)
    return new Unsupported('CONFIG_IPV6', 'nat: this kernel has no IPv6: it needs CONFIG_IPV6')
  if (errno === ENOPROTOOPT && step === 'encap') {
    return new Unsupported('CONFIG_XFRM', 'nat: this kernel takes no ESP out of UDP (UDP_ENCAP): it needs CONFIG_XFRM')
  }
  return new NetlinkError(`nat: opening ${where} (${step})`, errno, errnoText(errno)[1])
}
