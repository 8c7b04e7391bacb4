/** The UDP socket that ESP in UDP comes to: whose it is, and who else has its port. Needs no ESP. */
import { spawn } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { openSync } from 'node:fs'
import { createServer } from 'node:net'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { InvalidArgument, Overlay, type OverlayOptions } from '../../../lib/index.js'
import { inNetns, startInNetns, withNetns } from '../netns.js'

const LOCAL = { 4: '192.0.2.1', 6: '2001:db8::1' } as const

/** What is bound to UDP ports in a namespace, as `ss` lists it. */
async function bound(netns: string): Promise<string[]> {
  const lines = (await inNetns(netns, 'ss', '-Hanu')).split('\n').filter((line) => line !== '')
  return lines.map((line) => line.trim().split(/\s+/)[3]!).sort()
}

function descriptorOf(socket: object): number {
  return (socket as { _handle: { fd: number } })._handle.fd
}

async function open(options: OverlayOptions): Promise<Overlay> {
  const overlay = await Overlay.open({ firewall: 'none', ...options })
  onTestFinished(() => overlay.close())
  return overlay
}

test.each([4, 6] as const)(
  'it is bound to the local address before that is there, and closed with the overlay, over IPv%i',
  (family) =>
    withNetns(async (netns) => {
      const local = LOCAL[family]
      const at = family === 4 ? `${local}:4500` : `[${local}]:4500`
      const overlay = await open({ local, netns, nat: { port: 4500 } })
      expect(await bound(netns)).toEqual([at])
      expect(overlay.natSocket).toBeGreaterThan(2)
      expect((await overlay.status()).nat).toMatchObject({ port: 4500, socket: 'own', intact: true })
      await overlay.close()
      expect(overlay.natSocket).toBe(undefined)
      expect(await bound(netns)).toEqual([])
      expect((await (await open({ local, netns })).status()).nat).toBe(null)
    }),
)

test('a port that another process has is refused, naming it', () =>
  withNetns(async (netns) => {
    const options = { local: LOCAL[4], netns }
    // At all addresses of IPv6, and so of IPv4 too.
    const script = "require('node:dgram').createSocket('udp6').bind(4500, () => console.log('bound'))"
    const holder = startInNetns(netns, process.execPath, '-e', script)
    onTestFinished(() => void holder.stop('SIGKILL'))
    await once(holder.child.stdout!, 'data')
    await expect(open({ ...options, nat: {} })).rejects.toMatchObject({
      code: 'ERR_XFRMESH_PORT_HELD',
      message: expect.stringMatching(
        `UDP port 4500 of ${LOCAL[4]} is held by process ${holder.child.pid} \\(.*node.*\\)\\..*nat.port.*nat.socket`,
      ) as string,
    })
    // Nothing of the attempt is left: neither the lock nor a socket.
    await (await open({ ...options, nat: { port: 4501 } })).close()
    await holder.stop('SIGKILL')
    await open({ ...options, nat: {} })
  }))

test('a port that the kernel has for a tunnel of its own is refused, naming nobody', () =>
  withNetns(async (netns) => {
    await inNetns(netns, 'ip', ...'link add vx type vxlan id 1 dstport 4500 local 2001:db8::1'.split(' '))
    await inNetns(netns, 'ip', ...'link set vx up'.split(' '))
    await expect(open({ local: LOCAL[6], netns, nat: {} })).rejects.toThrow(
      'UDP port 4500 of 2001:db8::1 is held by user 0, and no process that is to be seen from here',
    )
  }))

test('two overlays of one process share the socket of one', () =>
  withNetns(async (netns) => {
    const local = LOCAL[4]
    const first = await open({ local, netns, nat: {} })
    await expect(open({ local, netns, mark: 5, nat: {} })).rejects.toThrow('held by this very process')
    const second = await open({ local, netns, mark: 5, nat: { socket: first.natSocket! } })
    expect((await second.status()).nat).toMatchObject({ socket: 'given', intact: true })
    await first.close()
    expect(await bound(netns)).toEqual(['192.0.2.1:4500'])
    expect((await second.status()).nat).toMatchObject({ intact: true })
    await second.close()
    expect(await bound(netns)).toEqual([])
  }))

/** What a process that has the socket too does with it, by names of Python's module. */
async function misuse(socket: number, what: string): Promise<void> {
  const script = `from _socket import *\nsocket(fileno=3).${what}`
  const child = spawn('python3', ['-ISc', script], { stdio: ['ignore', 'inherit', 'inherit', socket] })
  expect(await once(child, 'exit')).toEqual([0, null])
}

test.each([
  ['has another use for it', 'setsockopt(17, 100, 3)', 'setsockopt(17, 100, 2)'],
  ['shares its port', 'setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)', 'setsockopt(SOL_SOCKET, SO_REUSEPORT, 0)'],
  [
    'binds it to a device',
    "setsockopt(SOL_SOCKET, SO_BINDTODEVICE, b'lo')",
    "setsockopt(SOL_SOCKET, SO_BINDTODEVICE, b'')",
  ],
])('that another holder %s is told', (_, what, undone) =>
  withNetns(async (netns) => {
    const overlay = await open({ local: LOCAL[4], netns, nat: {} })
    const socket = overlay.natSocket!
    const isIntact = async () => {
      const { nat, degraded } = await overlay.status()
      expect(degraded).toHaveLength(nat!.intact ? 0 : 1)
      return nat!.intact
    }
    expect(await isIntact()).toBe(true)
    await misuse(socket, what)
    expect(await isIntact()).toBe(false)
    await expect(open({ local: LOCAL[4], netns, mark: 5, nat: { socket } })).rejects.toThrow(
      /nat.socket must be a UDP socket (without SO_REUSEPORT|of which nothing but ESP|that is not bound to a device)/,
    )
    await misuse(socket, undone)
    expect(await isIntact()).toBe(true)
  }),
)

test('it is handed on to a child, whose overlay goes on with it', () =>
  withNetns(async (netns) => {
    const options = { local: LOCAL[4], netns, firewall: 'none' } as const
    const overlay = await open({ ...options, nat: {} })
    const script = fileURLToPath(new URL('nat-heir.mjs', import.meta.url))
    const given = JSON.stringify({ ...options, nat: { socket: 3 } })
    const heir = spawn(process.execPath, [script, given], { stdio: ['ignore', 'pipe', 'inherit', overlay.natSocket!] })
    onTestFinished(() => void heir.kill('SIGKILL'))
    await once(heir.stdout!, 'data')
    await overlay.close()
    const [said] = (await once(heir.stdout!, 'data')) as [Buffer]
    expect(JSON.parse(said.toString())).toMatchObject({ socket: 'given', intact: true })
    expect(await bound(netns)).toEqual(['192.0.2.1:4500'])
    heir.kill('SIGKILL')
    await once(heir, 'exit')
    expect(await bound(netns)).toEqual([])
  }))

test('a socket handed in that will not do is refused with what is wrong', () =>
  withNetns((netns) =>
    withNetns(async (elsewhere) => {
      const local = LOCAL[4]
      const there = await open({ local, netns: elsewhere, nat: {} })
      const six = await open({ local: LOCAL[6], netns, mark: 7, nat: {} })
      const tcp = createServer().listen(0, '127.0.0.1')
      await once(tcp, 'listening')
      onTestFinished(() => void tcp.close())
      const fd = descriptorOf(tcp)
      const connected = createSocket('udp4')
      connected.connect(4500, '127.0.0.1')
      await once(connected, 'connect')
      onTestFinished(() => void connected.close())
      const null_ = openSync('/dev/null', 'r')
      for (const [nat, message] of [
        [{ socket: null_ }, `a UDP socket; descriptor ${null_} is none`],
        [{ socket: fd }, `a UDP socket; descriptor ${fd} is none`],
        [{ socket: descriptorOf(connected) }, 'a UDP socket that is not connected'],
        [{ socket: six.natSocket! }, 'a UDP socket of IPv4, as local (192.0.2.1) is'],
        [{ socket: there.natSocket!, port: 4501 }, 'a UDP socket that is bound to port 4501, as nat.port says'],
        [{ socket: there.natSocket! }, "a UDP socket in the overlay's network namespace"],
        [{ socket: 9999 }, 'an open descriptor, not 9999'],
      ] as const) {
        const refused = open({ local, netns, nat })
        await expect(refused).rejects.toThrow(InvalidArgument)
        await expect(refused).rejects.toThrow(message)
      }
      await expect(
        open({ local: '192.0.2.9', netns: elsewhere, mark: 8, nat: { socket: there.natSocket! } }),
      ).rejects.toThrow('a UDP socket that is bound to local (192.0.2.9) or to all addresses')
    }),
  ))
