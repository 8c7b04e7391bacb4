import { XfrmeshError } from '../base/errors.js'

/** One attribute that is not as it was asked for. */
export interface Difference {
  /** As in {@link VxlanOptions}, or another that the kernel has: `learning`. */
  readonly attribute: string
  readonly have: Value
  readonly want: Value
}

type Value = string | number | boolean | undefined

/** There is a link of that name, and it is another than was asked for. It was left alone. */
export class LinkDiffers extends XfrmeshError {
  readonly link: string
  readonly differences: readonly Difference[]

  constructor(link: string, differences: readonly Difference[], advice: string) {
    super('ERR_XFRMESH_LINK_DIFFERS', `${link}: the link of that name differs: ${list(differences)}; ${advice}`)
    this.link = link
    this.differences = differences
  }
}

/** Another link, or socket, keeps the one that was asked for from being. Nothing was made. */
export class LinkClash extends XfrmeshError {
  readonly link: string
  /** The name of the other link, if it is a link and was found. */
  readonly other: string | undefined
  /** What the other link would have to agree in. */
  readonly differences: readonly Difference[]

  constructor(
    link: string,
    why: string,
    other?: string,
    differences: readonly Difference[] = [],
    options?: ErrorOptions,
  ) {
    super('ERR_XFRMESH_LINK_CLASH', `${link}: ${why}`, options)
    this.link = link
    this.other = other
    this.differences = differences
  }
}

export function list(differences: readonly Difference[]): string {
  return differences
    .map(({ attribute, have, want }) => `${attribute} is ${String(have ?? 'none')}, not ${String(want ?? 'none')}`)
    .join(', ')
}
