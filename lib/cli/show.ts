import progress from 'cli-progress'
import type { Show } from '../demo/show.js'

/** Where text goes: a terminal, or anything that takes lines. */
export interface Output {
  write(text: string): unknown
  readonly isTTY?: boolean
  readonly columns?: number
}

/** Between two lines of progress, where there is no terminal to draw on. */
const LINE_MS = 1000

/**
 * Shows the demo as it goes: parts and lines on `text`; on `bars` a progress bar if it is a terminal, else a line now and
 * then.
 */
export class ProgressShow implements Show {
  readonly #text: Output
  readonly #bars: Output
  #bar: progress.SingleBar | undefined
  #label = ''
  #said = 0

  constructor(text: Output, bars: Output) {
    this.#text = text
    this.#bars = bars
  }

  part(title: string): void {
    this.#endBar()
    this.#text.write(`\n${title}\n`)
  }

  line(text: string): void {
    this.#endBar()
    this.#text.write(`  ${text}\n`)
  }

  progress(label: string, done: number, total: number): void {
    if (this.#bars.isTTY === true) this.#draw(label, done, total)
    else this.#say(label, done, total)
  }

  #draw(label: string, done: number, total: number): void {
    if (this.#bar === undefined || label !== this.#label) {
      this.#endBar()
      this.#label = label
      this.#bar = new progress.SingleBar({
        format: '  {label} {bar} {value} of {total}, {eta_formatted} left',
        barCompleteChar: '#',
        barIncompleteChar: '.',
        barsize: 30,
        clearOnComplete: true,
        // So that Ctrl-C leaves a terminal as it was.
        hideCursor: null,
        linewrap: null,
        gracefulExit: false,
        stream: this.#bars as NodeJS.WritableStream,
      })
      this.#bar.start(total, done, { label })
    }
    this.#bar.update(done)
  }

  #say(label: string, done: number, total: number): void {
    const now = performance.now()
    if (label !== this.#label) {
      this.#label = label
      this.#said = now
    }
    if (now - this.#said < LINE_MS || done === total) return
    this.#said = now
    this.#bars.write(`  ${label}: ${done} of ${total}\n`)
  }

  #endBar(): void {
    this.#bar?.stop()
    this.#bar = undefined
  }
}
