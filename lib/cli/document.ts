import { isAlias, LineCounter, parseDocument, visit, type Document, type Node } from 'yaml'
import { XfrmeshError } from '../base/errors.js'

/** A file given to the command line that cannot be used: which one, where in it, and why. Never what stands there. */
export class FileError extends XfrmeshError {
  readonly file: string

  constructor(file: string, why: string, options?: ErrorOptions) {
    super('ERR_XFRMESH_FILE', `${file}: ${why}`, options)
    this.file = file
  }
}

/** A field's way from the top: names and list positions. */
export type FieldPath = readonly (string | number)[]

/** A YAML document (JSON is one too), and where its fields stand. */
export class SourceDocument {
  readonly file: string
  /** What it says, as plain values. */
  readonly value: unknown
  readonly #document: Document
  readonly #lines: LineCounter

  /**
   * @param scalars 'typed': numbers are numbers, as YAML has them; 'text': all scalars are strings, so that a key of
   *   nothing but digits stays what it is
   * @throws FileError
   */
  constructor(file: string, text: string, scalars: 'typed' | 'text') {
    this.file = file
    this.#lines = new LineCounter()
    this.#document = parseDocument(text, {
      // What the parser says in full quotes the source.
      prettyErrors: false,
      logLevel: 'silent',
      lineCounter: this.#lines,
      schema: scalars === 'text' ? 'failsafe' : 'core',
    })
    const [wrong] = [...this.#document.errors, ...this.#document.warnings]
    if (wrong !== undefined) {
      throw new FileError(file, `${this.#at(wrong.pos[0])}: not YAML: ${wrong.code.toLowerCase().replaceAll('_', ' ')}`)
    }
    visit(this.#document, (_, node) => {
      if (isAlias(node)) throw new FileError(file, `${this.#at(node.range?.[0] ?? 0)}: an alias: write it out`)
    })
    this.value = this.#document.toJS()
  }

  /** Refuses a field. */
  refuse(path: FieldPath, why: string): FileError {
    return new FileError(this.file, `${this.#at(this.#offset(path))}: ${fieldName(path)} ${why}`)
  }

  /** Where a field stands, or the innermost there is of those around it. */
  #offset(path: FieldPath): number {
    for (let length = path.length; length >= 0; length--) {
      const node = this.#document.getIn(path.slice(0, length), true) as Partial<Node> | null | undefined
      const start = node?.range?.[0]
      if (start !== undefined) return start
    }
    return 0
  }

  #at(offset: number): string {
    const { line, col } = this.#lines.linePos(offset)
    return `line ${line}, column ${col}`
  }
}

/** As in nodes[2].address. */
function fieldName(path: FieldPath): string {
  if (path.length === 0) return 'the file'
  return path.reduce<string>(
    (name, part) => name + (typeof part === 'number' ? `[${part}]` : `${name && '.'}${part}`),
    '',
  )
}
