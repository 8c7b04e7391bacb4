import { readdir, readFile, readlink } from 'node:fs/promises'
import { type Address, AF_INET, ADDRESS_BYTES } from '../base/address.js'
import type { Channel } from './channel.js'
import { LITTLE_ENDIAN } from './records.js'

/**
 * Who has a UDP port that is taken, as far as can be told: `process 812 (charon)`. For an error's message: it looks at all
 * processes there are.
 */
export async function portHolder(channel: Channel, local: Address, port: number): Promise<string> {
  const held = await heldSocket(channel, local, port)
  if (held === undefined) return 'somebody'
  const holder = await holderOf(held.inode)
  if (holder === undefined) {
    return `user ${held.uid}, and no process that is to be seen from here: one in another PID namespace, one of another user's, or the kernel itself`
  }
  return holder.pid === process.pid
    ? 'this very process, another Overlay say'
    : `process ${holder.pid} (${holder.name})`
}

/** The socket in the way: of the same address, or of all. */
async function heldSocket(
  channel: Channel,
  local: Address,
  port: number,
): Promise<{ uid: number; inode: string } | undefined> {
  // An IPv6 socket at all addresses may have IPv4's too.
  for (const file of local.family === AF_INET ? ['udp', 'udp6'] : ['udp6']) {
    const read = await channel.run('nat', (native, job) => native.readFile(job, `/proc/thread-self/net/${file}`))
    for (const line of read.text.split('\n').slice(1)) {
      // sl, local address, remote address, state, queues, timer, retransmits, uid, timeout, inode
      const [, bound = '', , , , , , uid, , inode] = line.trim().split(/\s+/)
      const [address = '', hex = ''] = bound.split(':')
      const isInTheWay = /^0+$/.test(address) || address === procAddress(local)
      if (isInTheWay && Number.parseInt(hex, 16) === port) return { uid: Number(uid), inode: inode! }
    }
  }
  return undefined
}

/** An address as /proc/net shows it: words in hexadecimal, each in host byte order. */
function procAddress({ bytes, family }: Address): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  let text = ''
  for (let at = 0; at < (family === AF_INET ? 4 : ADDRESS_BYTES); at += 4) {
    text += view.getUint32(at, LITTLE_ENDIAN).toString(16).padStart(8, '0')
  }
  return text.toUpperCase()
}

/** The first process found that has a socket open. */
async function holderOf(inode: string): Promise<{ pid: number; name: string } | undefined> {
  const target = `socket:[${inode}]`
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  for (const pid of pids) {
    // It may end while it is looked at, or be none of ours to look at.
    const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => [])
    for (const descriptor of descriptors) {
      if ((await readlink(`/proc/${pid}/fd/${descriptor}`).catch(() => '')) !== target) continue
      const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '?')
      return { pid: Number(pid), name: name.trim() }
    }
  }
  return undefined
}
