import { AF_INET6 } from '../base/address.js'
import { NetlinkError, Unsupported } from '../base/errors.js'
import { checkEnding } from '../kernel/netlink-errors.js'
import { Cipher, NO_ALGORITHM, NO_KEY, Operation, RecordWriter, State } from '../kernel/records.js'
import { refusals } from '../kernel/xfrm-channel.js'
import { IPPROTO_ESP, XFRMA } from '../kernel/xfrm-names.js'
import type { Form } from './form.js'
import type { XfrmPort } from './ports.js'
import { algorithms, encapTemplate } from './writer.js'

const EPERM = 1
const ENOENT = 2
const EINVAL = 22
const ESRCH = 3
const ENOSYS = 38
const EPROTONOSUPPORT = 93

/**
 * Asks the kernel whether it has what our SAs need, changing nothing: an update of an SA that cannot be there (its SPI is
 * 0) goes as far as setting up ESP and its cipher, and is refused for want of the SA.
 *
 * @throws Unsupported naming the kernel option, or the capability
 */
export async function probe(xfrm: XfrmPort, form: Form): Promise<void> {
  const { suite, local, natPort } = form
  const writer = new RecordWriter(256)
  writer.begin(Operation.updateState)
  writer.u8(State.family, local.family)
  writer.u8(State.protocol, IPPROTO_ESP)
  writer.bytes(State.destination, local.bytes)
  writer.u32(State.reqid, form.mark)
  writer.u8(State.salted, 1)
  writer.u8(State.cipher, Cipher.aead)
  writer.u16(State.icvBits, suite.icvBits)
  writer.u16(State.authAlgorithm, NO_ALGORITHM)
  writer.u32(State.authKey, NO_KEY)
  if (natPort !== 0) writer.attribute(XFRMA.ENCAP, encapTemplate(natPort, natPort))
  const key = new Uint8Array(suite.keyBytes[0]!).fill(1)
  const outcome = await xfrm.commit(writer.take(), { keys: [key], algorithms: algorithms(form) })
  checkEnding('asking the kernel for ESP', outcome)
  const [refusal] = refusals(outcome)
  if (refusal === undefined || refusal.errno === ESRCH) return
  if (refusal.errno === EINVAL && natPort !== 0 && local.family === AF_INET6) {
    throw new Unsupported(
      'Linux 5.8',
      `this kernel has no ESP in UDP over IPv6 (it says: ${refusal.message}): it needs Linux 5.8; leave nat out otherwise`,
    )
  }
  const esp = local.family === AF_INET6 ? ['CONFIG_INET6_ESP', 'esp6'] : ['CONFIG_INET_ESP', 'esp4']
  const gcm = suite.algorithm.startsWith('rfc4106')
  const cipher = gcm ? ['CONFIG_CRYPTO_GCM', 'gcm'] : ['CONFIG_CRYPTO_CHACHA20POLY1305', 'chacha20poly1305']
  switch (refusal.errno) {
    case EPROTONOSUPPORT:
      throw lacks(esp, 'has no ESP', refusal.message)
    case ENOSYS:
      throw lacks(cipher, `has no ${suite.algorithm}`, refusal.message)
    case ENOENT:
      throw lacks(['CONFIG_CRYPTO_SEQIV', 'seqiv'], `cannot set up ${suite.algorithm}`, refusal.message)
    case EPERM:
      throw new Unsupported(
        'CAP_NET_ADMIN',
        'adding SAs is not permitted: it takes CAP_NET_ADMIN in the user namespace that owns the network namespace (run as root, or grant the capability to the process)',
      )
    default:
      throw new NetlinkError('asking the kernel for ESP', refusal.errno, refusal.message)
  }
}

function lacks([option, module]: string[], what: string, sentence: string): Unsupported {
  return new Unsupported(
    option!,
    `this kernel ${what} (it says: ${sentence}): it needs ${option!}; if that is a module, modprobe ${module!} loads it`,
  )
}
