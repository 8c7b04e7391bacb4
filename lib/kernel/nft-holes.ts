import { integer } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { AttributeWriter } from './netlink-attributes.js'
import { align4 } from './records.js'

/** NFT_DATA_VALUE_MAXLEN */
const LONGEST = 64

/**
 * Stands for bytes of an expression that differ from rule to rule in a `RuleTemplate`: a `cmp`'s data, a `bitwise`'s mask.
 */
export class Hole extends Uint8Array {
  readonly name: string

  /** @param bytes 1 to 64 */
  constructor(name: string, bytes: number) {
    super(integer(bytes, 'bytes', 1, LONGEST))
    if (typeof (name as unknown) !== 'string' || name === '') {
      throw new InvalidArgument('name', 'a string that is not empty', name)
    }
    this.name = name
  }

  /** A copy of it is plain bytes. */
  static get [Symbol.species](): Uint8ArrayConstructor {
    return Uint8Array
  }
}

/** Where a hole is in what was written. */
export interface HolePlace {
  readonly name: string
  readonly at: number
  readonly bytes: number
}

/** Writes holes as zeroes, and knows where. */
export class HoleWriter extends AttributeWriter {
  readonly holes: HolePlace[] = []

  override bytes(type: number, value: Uint8Array): this {
    super.bytes(type, value)
    if (value instanceof Hole) {
      this.holes.push({ name: value.name, at: this.position - align4(value.length), bytes: value.length })
    }
    return this
  }
}
