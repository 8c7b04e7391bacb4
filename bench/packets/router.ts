import { join } from 'node:path'
import { Namespace } from '#dist/demo/namespace.js'
import { run } from '#dist/demo/processes.js'
import { LineProgram } from '../harness/sessions.js'

const program = join(import.meta.dirname, '../../../build/packets/packets')

const ROUTER = '192.0.2.1'
const RECEIVER = '192.0.2.2'
/** How long a burst lasts, in milliseconds. */
const BURST_MS = 40

/** Counts what arrives by whom it says it comes from, and ends its way there. */
const COUNTING = `
table ip seen {
  counter translated { }
  counter plain { }
  chain prerouting {
    type filter hook prerouting priority raw
    ip saddr ${ROUTER} counter name translated drop
    udp dport >= 1024 counter name plain drop
  }
}
`

export interface Burst {
  sent: number
  elapsedMs: number
  /** What arrived with the router's address, and with its own. */
  translated: number
  plain: number
}

/**
 * A namespace as the router between two others: containers, with all addresses of 10.0.0.0/8, send through it to a host on
 * its other side. Each is the far end of a veth pair.
 */
export class Router {
  readonly #router: Namespace
  readonly #receiver: Namespace
  readonly #others: readonly Namespace[]
  readonly #sender: LineProgram

  private constructor(router: Namespace, sender: Namespace, receiver: Namespace, program: LineProgram) {
    this.#router = router
    this.#receiver = receiver
    this.#others = [sender, receiver]
    this.#sender = program
  }

  static async open(router: Namespace): Promise<Router> {
    const [sender, receiver] = ['sender', 'receiver'].map((end) => new Namespace(`${router.name}-${end}`)) as [
      Namespace,
      Namespace,
    ]
    const made: Namespace[] = []
    try {
      for (const end of [sender, receiver]) {
        await run('ip', ['netns', 'add', end.name])
        made.push(end)
      }
      await router.ip([
        ['link', 'add', 'inside', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', sender.name],
        ['link', 'add', 'outside', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', receiver.name],
        ['link', 'set', 'inside', 'up'],
        ['link', 'set', 'outside', 'up'],
        ['address', 'add', '10.0.0.1/8', 'dev', 'inside'],
        ['address', 'add', `${ROUTER}/24`, 'dev', 'outside'],
      ])
      await sender.ip([['link', 'set', 'eth0', 'up']])
      await receiver.ip([['link', 'set', 'eth0', 'up']])
      const [from, to, last] = await Promise.all([mac(sender, 'eth0'), mac(router, 'inside'), mac(receiver, 'eth0')])
      await router.ip([['neighbour', 'replace', RECEIVER, 'lladdr', last, 'dev', 'outside', 'nud', 'permanent']])
      await router.run('sysctl', ['-qw', 'net.ipv4.ip_forward=1'])
      await receiver.run('nft', ['-f', '-'], { input: COUNTING })
      return new Router(router, sender, receiver, LineProgram.start(sender, program, ['send', 'eth0', from, to]))
    } catch (error) {
      for (const end of made) await run('ip', ['netns', 'delete', end.name])
      throw error
    }
  }

  /** Forgets all connections. */
  async flush(): Promise<void> {
    await this.#router.run(program, ['flush'])
  }

  /** Sends as much as goes in a while: with `new` each packet is a connection, with `same` all of a source's are one. */
  async burst(kind: 'new' | 'same', sources: readonly string[], ms = BURST_MS): Promise<Burst> {
    await this.#counted()
    const { ms: elapsedMs, sent } = await this.#sender.tell(`${ms} ${RECEIVER} ${kind} ${sources.join(' ')}`)
    return { sent: sent!, elapsedMs, ...(await this.#counted()) }
  }

  /** What was counted since the last time. */
  async #counted(): Promise<Pick<Burst, 'translated' | 'plain'>> {
    const said = await this.#receiver.run('nft', ['-j', 'reset', 'counters', 'table', 'ip', 'seen'])
    const { nftables } = JSON.parse(said) as { nftables: { counter?: { name: string; packets: number } }[] }
    const packets = (name: string) => nftables.find(({ counter }) => counter?.name === name)!.counter!.packets
    return { translated: packets('translated'), plain: packets('plain') }
  }

  async close(): Promise<void> {
    await this.#sender.end()
    for (const end of this.#others) await run('ip', ['netns', 'delete', end.name])
  }
}

async function mac(namespace: Namespace, device: string): Promise<string> {
  const [link] = JSON.parse(await namespace.run('ip', ['-j', 'link', 'show', device])) as [{ address: string }]
  return link.address
}
