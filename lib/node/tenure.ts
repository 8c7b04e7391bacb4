/** How long the present key has encrypted, and no other was about to: what reclaiming waits for. */
export class Tenure {
  readonly #monotonic: () => number
  /** When this process turned to it, or first saw that an earlier one had, by the monotonic clock in milliseconds. */
  #from: number | undefined
  #isOwn = false
  /** When a key that had been prepared was last given up. */
  #abandoned: number | undefined

  constructor(monotonic = () => performance.now()) {
    this.#monotonic = monotonic
  }

  /** From now on it encrypts. */
  began(): void {
    this.#from = this.#monotonic()
    this.#isOwn = true
  }

  /** Whether this process turned to it: then it knows by itself how long it has encrypted, and the kernel need not be asked. */
  get isOwn(): boolean {
    return this.#isOwn
  }

  /** It was seen to encrypt. */
  seen(): void {
    this.#from ??= this.#monotonic()
  }

  /** A key that had been prepared is not to encrypt after all: others may encrypt under it still. */
  abandoned(): void {
    this.#abandoned = this.#monotonic()
  }

  /**
   * What is left of `after` milliseconds, also of those since a prepared key was given up. A process that turned to the key
   * itself has its own clock, which nobody sets. One that was started since has what the kernel remembers, by the clock of
   * the host: set forward, it lets go early; set back, it never holds on for longer than if the key had been new when this
   * process saw it.
   *
   * @param added when the key's oldest outbound SA was added, in seconds since 1970; undefined: it has none, and no need
   */
  left(after: number, added: number | undefined): number {
    return Math.max(this.#leftOfPresent(after, added), this.#leftSince(this.#abandoned ?? -Infinity, after))
  }

  #leftOfPresent(after: number, added: number | undefined): number {
    const own = this.#leftSince(this.#from ?? this.#monotonic(), after)
    if (this.#isOwn) return own
    return added === undefined ? 0 : Math.min(own, after - Math.max(0, Date.now() - added * 1000))
  }

  #leftSince(from: number, after: number): number {
    return after - (this.#monotonic() - from)
  }
}
