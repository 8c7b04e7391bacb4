/**
 * What goes wrong, as types. Every error of xfrmesh is an {@link XfrmeshError} with a stable `code`; messages are for
 * people and may change. No message, property or cause of these errors ever holds a key byte.
 */

/** What the caller asked for that the kernel, or a check made before asking it, refused. */
export interface Failure {
  /** The object it concerns, in the caller's words: a peer's address, `vni 4096`, `key 7`, or a kernel object. */
  subject: string
  /** What was being done to it, as in `add inbound SA`. */
  operation: string
  /** The kernel's errno, positive; 0 if xfrmesh refused before the kernel was asked. */
  errno: number
  /** `EEXIST` and the like, or an `ERR_XFRMESH_…` code if errno is 0. */
  code: string
  /** The kernel's own sentence where it gave one (NETLINK_EXT_ACK), else what errno stands for. */
  message: string
}

/** What a call on an Overlay came to. `requested`, `applied` and `unchanged` count the caller's unit: peers, networks, keys. */
export interface Report {
  requested: number
  applied: number
  unchanged: number
  failures: Failure[]
  /** Netlink operations that the kernel took. */
  operations: number
  elapsedMs: number
}

export class XfrmeshError extends Error {
  readonly code: string

  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = new.target.name
    this.code = code
  }
}

/** An argument that was refused before anything was done. `argument` is its path, as in `keys[2].value`. */
export class InvalidArgument extends XfrmeshError {
  readonly argument: string
  readonly #expected: string

  /** @param expected what the argument takes, ending the sentence "`argument` must be …" */
  constructor(argument: string, expected: string, received?: unknown) {
    const got = received === undefined ? '' : `, not ${describe(received)}`
    super('ERR_XFRMESH_INVALID_ARGUMENT', `${argument} must be ${expected}${got}`)
    this.argument = argument
    this.#expected = expected + got
  }

  /** The same of what is a part of something: where arguments come by the thousand, only those refused get their path. */
  within(whole: string): InvalidArgument {
    return new InvalidArgument(whole + this.argument, this.#expected)
  }
}

/** A call that came too early or too late: before keys were set, after `close()`. */
export class InvalidState extends XfrmeshError {
  constructor(message: string, code = 'ERR_XFRMESH_INVALID_STATE') {
    super(code, message)
  }
}

/** The kernel refused one operation. */
export class NetlinkError extends XfrmeshError {
  readonly errno: number
  readonly operation: string

  constructor(operation: string, errno: number, sentence: string, options?: ErrorOptions) {
    super('ERR_XFRMESH_NETLINK', `${operation}: ${sentence}`, options)
    this.operation = operation
    this.errno = errno
  }
}

/** Part of a call was refused. What was applied stays. With an Overlay the wish is recorded, and `reconcile()` completes it. */
export class PartialFailure extends XfrmeshError {
  readonly report: Report

  /** @param again what to do about it */
  constructor(report: Report, again = 'reconcile() tries again') {
    const [first] = report.failures
    const many = report.failures.length > 1 ? ` (and ${report.failures.length - 1} more)` : ''
    super(
      'ERR_XFRMESH_PARTIAL_FAILURE',
      first ? `${first.subject}: ${first.operation}: ${first.message}${many}; ${again}` : 'not all of it was applied',
    )
    this.report = report
  }
}

/** The call was aborted by its signal (its reason is the `cause`). What the kernel had taken by then is in the report. */
export class Aborted extends XfrmeshError {
  readonly report: Report | undefined

  constructor(message: string, report?: Report, options?: ErrorOptions) {
    super('ERR_XFRMESH_ABORTED', message, options)
    this.report = report
  }
}

/** This kernel, process or host lacks something. The message names it and says how to get it. */
export class Unsupported extends XfrmeshError {
  /** The missing kernel option, capability or limit: `CONFIG_INET_ESP`, `CAP_NET_ADMIN`, `net.core.wmem_max`. */
  readonly missing: string

  constructor(missing: string, message: string, options?: ErrorOptions) {
    super('ERR_XFRMESH_UNSUPPORTED', message, options)
    this.missing = missing
  }
}

/** What a key looks like where it does not belong: hex, base64, bytes in decimal. Names and addresses do not. */
const couldBeKey = /[0-9a-f]{12}|[\w+/-]{20}|(\d+[, ]+){5}/i

/** A value as an error may show it: short, and never the content of something that could hold a secret. */
function describe(value: unknown): string {
  if (value === null) return 'null'
  switch (typeof value) {
    case 'string':
      return value.length > 64 || couldBeKey.test(value)
        ? `a string of ${value.length} characters`
        : JSON.stringify(value)
    case 'number':
    case 'boolean':
      return String(value)
    case 'bigint':
      return `${value}n`
    case 'object':
      if (ArrayBuffer.isView(value)) return `${value.byteLength} bytes`
      return Array.isArray(value) ? `an array of ${value.length}` : 'an object'
    default:
      return `a ${typeof value}`
  }
}
