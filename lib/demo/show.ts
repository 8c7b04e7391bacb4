/** Where the demo says what it does. */
export interface Show {
  /** A new part begins. */
  part(title: string): void
  /** Something was seen. */
  line(text: string): void
  /** Work goes on: `done` of `total`, 0 to begin with and `total` at the end. */
  progress(label: string, done: number, total: number): void
}
