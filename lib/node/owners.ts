/** Owners of objects that are no node's. */
export const Owner = {
  /** Of what all nodes share. */
  shared: 0,
  /** Of what was found and nobody asks for. */
  stale: 1,
  /** Of what is not ours, and was in the way. */
  others: 2,
  firstNode: 3,
} as const
