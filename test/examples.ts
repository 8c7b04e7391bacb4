import { readFileSync } from 'node:fs'

/** An example of the README: its file, its code, and what it prints, as the README has them. */
export interface Example {
  file: string
  code: string
  output: string
}

/** The README's examples: a link to a file, a block of its code, and, after words that end in a colon, one of its output. */
export function examples(): Example[] {
  const text = readFileSync('README.md', 'utf8')
  const pattern = /\[(test\/examples\/[\w.]+)\]\(\1\):\n\n```js\n([^]*?)```\n\n[^`]*?:\n\n```text\n([^]*?)```\n/g
  return Array.from(text.matchAll(pattern), ([, file, code, output]) => ({ file: file!, code: code!, output: output! }))
}
