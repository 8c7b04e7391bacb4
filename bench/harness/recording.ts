import { Ending, native, type NativeDump, type NativeOutcome } from '#dist/native.js'
import type { Ports } from '#dist/overlay/ports.js'
import type { SideTables } from '#dist/kernel/xfrm-channel.js'
import { keepFile } from './files.js'

/** A kernel that says yes to all: what an Overlay sends it is kept, or thrown away where only the sending is measured. */
export class YesKernel {
  #messages: Uint8Array[] = []
  readonly #keep: boolean

  constructor(keep: boolean) {
    this.#keep = keep
  }

  readonly ports: Ports = {
    xfrm: {
      commit: (records, tables) => Promise.resolve(this.#yes(records, tables)),
      read: () => Promise.resolve(nothing),
      close: () => Promise.resolve(),
    },
    close: () => Promise.resolve(),
  }

  /** The file of the messages since the last call. */
  take(): string {
    const file = keepFile(...this.#messages)
    this.#messages = []
    return file
  }

  #yes(records: Uint8Array, { keys, algorithms }: SideTables): NativeOutcome {
    if (this.#keep) this.#messages.push(native.encode(records, keys, algorithms))
    const view = new DataView(records.buffer, records.byteOffset, records.byteLength)
    let sent = 0
    for (let at = 0; at < records.length; at += view.getUint32(at, true)) sent++
    return { ...yes, sent }
  }
}

const yes: NativeOutcome = {
  ending: Ending.complete,
  errno: 0,
  sent: 0,
  unknown: 0,
  failures: new Uint32Array(),
  messages: [],
  sends: 0,
  readBack: 0,
}

const nothing: NativeDump = {
  ending: Ending.complete,
  errno: 0,
  message: undefined,
  records: new Uint8Array(),
  keys: [],
  algorithms: [],
}
