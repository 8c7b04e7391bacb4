/** What the words of an `ip xfrm` command ask for, in the options of XfrmBatch. Throws at a word that it does not know. */

export interface IpCommand {
  object: 'state' | 'policy'
  action: 'add' | 'update' | 'delete' | 'get'
  /** StateOptions or PolicyOptions, whichever parts there were. */
  options: Record<string, unknown>
}

/** Splits a command line as a shell does; only single quotes occur. */
export function words(command: string): string[] {
  return [...command.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain!)
}

export function ipCommand(command: string): IpCommand | undefined {
  const all = words(command).filter((word) => word !== '-d' && word !== '-s')
  const [, family, object, action] = all
  if (family !== 'xfrm' || (object !== 'state' && object !== 'policy')) return undefined
  if (action !== 'add' && action !== 'update' && action !== 'delete' && action !== 'get') return undefined
  const reader = new Words(all.slice(4))
  return { object, action, options: object === 'state' ? stateOf(reader) : policyOf(reader) }
}

class Words {
  readonly #words: string[]
  #at = 0
  constructor(list: string[]) {
    this.#words = list
  }
  get more(): boolean {
    return this.#at < this.#words.length
  }
  get peek(): string {
    return this.#words[this.#at] ?? ''
  }
  next(): string {
    return this.#words[this.#at++] ?? ''
  }
  number(): number {
    return Number(this.next())
  }
  /** The words that follow while they are among these. */
  among(names: readonly string[]): string[] {
    const found: string[] = []
    while (names.includes(this.peek)) found.push(this.next())
    return found
  }
}

const STATE_FLAGS = ['noecn', 'decap-dscp', 'nopmtudisc', 'wildrecv', 'icmp', 'af-unspec', 'align4', 'esn']

function stateOf(words: Words): Record<string, unknown> {
  const state: Record<string, unknown> = {}
  while (words.more) {
    const word = words.next()
    switch (word) {
      case 'src':
        state['source'] = words.next()
        break
      case 'dst':
        state['destination'] = words.next()
        break
      case 'proto':
      case 'mode':
        state[word === 'proto' ? 'protocol' : 'mode'] = words.next()
        break
      case 'spi':
      case 'reqid':
        state[word] = words.number()
        break
      case 'if_id':
        state['ifId'] = words.number()
        break
      case 'aead':
        state['aead'] = { name: words.next(), key: bytes(words.next()), icvBits: words.number() }
        break
      case 'auth':
      case 'enc':
        state[word === 'auth' ? 'auth' : 'encryption'] = { name: words.next(), key: bytes(words.next()) }
        break
      case 'auth-trunc':
        state['auth'] = { name: words.next(), key: bytes(words.next()), truncateBits: words.number() }
        break
      case 'mark':
      case 'output-mark':
        state[word === 'mark' ? 'mark' : 'outputMark'] = mark(words)
        break
      case 'encap':
        state['encap'] = { type: words.next(), sourcePort: words.number(), destinationPort: words.number() }
        words.next()
        break
      case 'replay-window':
        state['replayWindow'] = words.number()
        break
      case 'flag': {
        const flags = words.among(STATE_FLAGS)
        if (flags.includes('esn')) state['esn'] = true
        const rest = flags.filter((flag) => flag !== 'esn')
        if (rest.length > 0) state['flags'] = rest
        break
      }
      case 'extra-flag':
        state['extraFlags'] = words.among(['dont-encap-dscp', 'oseq-may-wrap'])
        break
      case 'limit':
        state['limits'] = { ...(state['limits'] as object), ...limit(words) }
        break
      case 'sel':
        state['selector'] = selector(words)
        break
      default:
        throw new Error(`ip's word '${word}' is not known here`)
    }
  }
  return state
}

function policyOf(words: Words): Record<string, unknown> {
  const policy: Record<string, unknown> = {}
  const templates: Record<string, unknown>[] = []
  const found = selector(words)
  if (Object.keys(found).length > 0) policy['selector'] = found
  while (words.more) {
    const word = words.next()
    switch (word) {
      case 'dir':
        policy['direction'] = words.next()
        break
      case 'action':
        policy['action'] = words.next()
        break
      case 'priority':
      case 'index':
        policy[word] = words.number()
        break
      case 'mark':
        policy['mark'] = mark(words)
        break
      case 'if_id':
        policy['ifId'] = words.number()
        break
      case 'flag':
        policy['flags'] = words.among(['localok', 'icmp'])
        break
      case 'limit':
        policy['limits'] = { ...(policy['limits'] as object), ...limit(words) }
        break
      case 'tmpl':
        templates.push(template(words))
        break
      default:
        throw new Error(`ip's word '${word}' is not known here`)
    }
  }
  if (templates.length > 0) policy['templates'] = templates
  return policy
}

function template(words: Words): Record<string, unknown> {
  const found: Record<string, unknown> = {}
  const names = { src: 'source', dst: 'destination', proto: 'protocol', mode: 'mode' } as const
  for (;;) {
    const word = words.peek
    if (word in names) {
      words.next()
      found[names[word as keyof typeof names]] = words.next()
    } else if (word === 'spi' || word === 'reqid') {
      words.next()
      found[word] = words.number()
    } else if (word === 'level') {
      words.next()
      found['optional'] = words.next() === 'use'
    } else {
      return found
    }
  }
}

const TYPE_AND_CODE = ['sport', 'type']

function selector(words: Words): Record<string, unknown> {
  const found: Record<string, unknown> = {}
  for (;;) {
    switch (words.peek) {
      case 'src':
      case 'dst':
        found[words.next() === 'src' ? 'source' : 'destination'] = words.next()
        break
      case 'proto':
        words.next()
        found['protocol'] = words.next()
        break
      case 'sport':
      case 'type':
      case 'dport':
      case 'code':
        found[TYPE_AND_CODE.includes(words.next()) ? 'sourcePort' : 'destinationPort'] = words.number()
        break
      case 'key': {
        words.next()
        const key = words.number()
        found['sourcePort'] = key >>> 16
        found['destinationPort'] = key & 0xffff
        break
      }
      case 'dev':
        words.next()
        words.next()
        found['interfaceIndex'] = DUMMY_INDEX
        break
      default:
        return found
    }
  }
}

/** Of the device d0, in the namespace in which the captures were made. */
const DUMMY_INDEX = 2

function mark(words: Words): number | { value: number; mask: number } {
  const value = words.number()
  if (words.peek !== 'mask') return value
  words.next()
  return { value, mask: words.number() }
}

/** `byte-soft 5` as `{ byteSoft: 5 }`. */
function limit(words: Words): Record<string, number> {
  const name = words.next().replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())
  return { [name]: words.number() }
}

function bytes(hex: string): Uint8Array {
  return new Uint8Array(Buffer.from(hex.slice(2), 'hex'))
}
