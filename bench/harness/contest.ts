import type { Namespace } from '#dist/demo/namespace.js'

/** What one step took, as its contestant measured it. */
export interface Sample {
  /** Wall time from the call to its answer, in milliseconds. */
  ms: number
  /**
   * Further figures, by name: `buildMs`, `sends` … They are kept in the JSON, and shown where a scenario asks for it.
   * `nothing`: 1 where the step came to nothing, and there is no time of it; else 0.
   */
  [figure: string]: number
}

/** A contestant at work in a namespace of its own. */
export interface Session {
  /** Carries out one step of the scenario to its end. Rejects if any of it was refused. */
  step(name: string): Promise<Sample>
  close(): Promise<void>
}

export interface Contestant {
  readonly name: string
  /** The floor is run twice a round, to show its spread against itself; peers are what we compare with. */
  readonly role: 'ours' | 'floor' | 'peer'
  /** The largest size at which it takes part: what takes a millisecond an object would take all day. */
  readonly most?: number
  /** Rounds that it takes part in, the first ones, where it takes so long that few must do. */
  mostRounds?(size: number): number
  /** Steps that it has no way to do, or that would mean something else: left out of its column. */
  readonly without?: readonly string[]
  /** Makes ready in a fresh namespace, with all that need not be on the clock. */
  open(namespace: Namespace, size: number): Promise<Session>
}

export interface Step {
  readonly name: string
  /** Operations that the kernel has to carry out for it: what a time per operation is counted by. */
  operations(size: number): number
  /** What happens before it, off the clock, whoever the contestant is: somebody else's work. */
  before?(namespace: Namespace, size: number): Promise<void>
  /**
   * Looks at the kernel with a tool that no contestant is, and throws if the work was not done. `thorough` (in the warm-up)
   * allows for a look at each object; otherwise a count will do, or one look after the last step at what all have left.
   */
  check(namespace: Namespace, size: number, thorough: boolean): Promise<void>
}

/** The same work, done by several contestants, at several sizes. */
export interface Scenario {
  readonly name: string
  /** One line: what is done. */
  readonly title: string
  /** What a size counts, in the plural: 'policies'. */
  readonly unit: string
  /** What operations in a second are called, where that is what is asked: its picture then shows them, not times. */
  readonly rate?: string
  /** Whether it takes ESP, so that it runs in the lab where this kernel has none. */
  readonly needsEsp: boolean
  readonly sizes: { readonly quick: readonly number[]; readonly full: readonly number[] }
  /** That a quick run leaves it out, unless it is asked for by its name. */
  readonly long?: true
  /** Fewer rounds than asked for, where one takes minutes. */
  mostRounds?(size: number): number
  /** That the warm-up of its first contestant serves all, which run the same programs for seconds. */
  readonly warmsOnce?: true
  /** Figures of its samples that its table has columns for. */
  readonly shows?: readonly string[]
  /** What is there before anyone opens, whoever the contestant is. */
  prepare?(namespace: Namespace): Promise<void>
  /** In order, each on what the one before left. */
  readonly steps: readonly Step[]
  /** Each is at work in a process of its own, as the floor and the peers are, but in one for all rounds: a daemon. */
  readonly ours: readonly Contestant[]
  others(size: number): Promise<readonly Contestant[]>
}

/** What a contest came to at one size. */
export interface Outcome {
  readonly scenario: string
  readonly title: string
  readonly unit: string
  readonly rate?: string
  readonly size: number
  readonly place: string
  readonly rounds: number
  readonly shows?: readonly string[]
  readonly steps: readonly { readonly name: string; readonly operations: number }[]
  readonly contestants: readonly Results[]
  readonly anatomies?: readonly Anatomy[]
}

/** What the steps of one of ours do to its process, each by its name. */
export interface Anatomy {
  readonly name: string
  readonly steps: Readonly<Record<string, Effects>>
}

export interface Effects {
  /** The event loop's delay while it lasted, measured by a timer of 1 ms, which is part of it. */
  loopP50Ms: number
  loopP99Ms: number
  loopMostMs: number
  /** The same of half a second in which nothing was done. */
  idleP99Ms: number
  /** Garbage collections. */
  collections: number
  collectionMs: number
  /** In V8's heap, what was collected since included. */
  allocatedBytes: number
  /** That stay when all is collected: in V8's heap, and in array buffers beside it. */
  heapBytes: number
  bufferBytes: number
  /** The largest resident set of the process meanwhile. */
  peakKiB: number
  /** Of all threads: allocations outside V8's heap, system calls by name, bytes to netlink and from it. */
  mallocs: number
  systemCalls: Record<string, number>
  bytesSent: number
  bytesReceived: number
}

export interface Results {
  readonly name: string
  readonly role: Contestant['role']
  /** By step: a sample a round, in the order of rounds, so that those of one round can be paired. */
  readonly samples: Record<string, Sample[]>
}
