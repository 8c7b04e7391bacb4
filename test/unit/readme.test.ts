import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { examples } from '../examples.js'

const text = readFileSync('README.md', 'utf8')

describe('README', () => {
  it('has each example as its file has it', () => {
    const shown = examples()
    expect(shown.map(({ file }) => file).sort()).toEqual(
      readdirSync('test/examples')
        .map((name) => `test/examples/${name}`)
        .sort(),
    )
    for (const { file, code } of shown) expect(code, file).toBe(readFileSync(file, 'utf8'))
  })

  it('links to files that are there', () => {
    const links = Array.from(text.matchAll(/\]\((?!https?:)([^)#]+)/g), ([, path]) => path!)
    expect(links.length).toBeGreaterThan(5)
    expect(links.filter((path) => !existsSync(path))).toEqual([])
  })

  it('names scripts that package.json has', () => {
    const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> }
    const named = Array.from(
      text.matchAll(/npm (?:run )?(?:--silent )?(demo|test|lab|setup|[a-z:]+)/g),
      ([, name]) => name!,
    )
    expect(named.filter((name) => name !== 'install' && scripts[name] === undefined)).toEqual([])
    expect(named).toEqual(expect.arrayContaining(['demo', 'test', 'lab']))
  })
})
