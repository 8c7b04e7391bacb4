import progress from 'cli-progress'
import type { Show } from '../demo/show.js'

/** Where text goes: a terminal, or anything that takes lines. */
export interface Output {
  write(text: string): unknown
  readonly isTTY?: boolean
  readonly columns?: number
}

/** What is done sooner needs no bar. */
const BAR_MS = 300
/** Between two lines of progress, where there is no terminal to draw on. */
const LINE_MS = 1000

/** Shows the demo as it goes; progress as a bar on a terminal, elsewhere as a line now and then. */
export class ProgressShow implements Show {
  readonly #output: Output
  #bar: progress.SingleBar | undefined
  #label = ''
  /** When the work of that label began, or when it was last told of. */
  #since = 0

  constructor(output: Output) {
    this.#output = output
  }

  part(title: string): void {
    this.#endBar()
    this.#output.write(`\n${title}\n`)
  }

  line(text: string): void {
    this.#endBar()
    this.#output.write(`  ${text}\n`)
  }

  progress(label: string, done: number, total: number): void {
    const now = performance.now()
    if (label !== this.#label) {
      this.#endBar()
      this.#label = label
      this.#since = now
    }
    if (this.#output.isTTY === true) {
      if (now - this.#since >= BAR_MS) this.#draw(label, done, total)
    } else if (now - this.#since >= LINE_MS && done < total) {
      this.#since = now
      this.#output.write(`  ${label}: ${done} of ${total}\n`)
    }
  }

  #draw(label: string, done: number, total: number): void {
    if (this.#bar === undefined) {
      this.#bar = new progress.SingleBar({
        format: '  {label} {bar} {value} of {total}',
        barCompleteChar: '#',
        barIncompleteChar: '.',
        barsize: 30,
        clearOnComplete: true,
        // So that Ctrl-C leaves a terminal as it was.
        hideCursor: null,
        linewrap: null,
        gracefulExit: false,
        stream: this.#output as NodeJS.WritableStream,
      })
      this.#bar.start(total, done, { label })
    }
    this.#bar.update(done)
  }

  #endBar(): void {
    this.#bar?.stop()
    this.#bar = undefined
    this.#label = ''
  }
}
