import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { judge } from '../../lib/cli/errors.js'
import { runProgram } from '../../lib/cli/program.js'
import { ProgressShow } from '../../lib/cli/show.js'
import { InvalidArgument } from '../../lib/index.js'

let directory: string
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'xfrmesh-test-'))
})
afterAll(() => rm(directory, { recursive: true }))

/** Runs the command line and returns what it left. */
async function xfrmesh(...args: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  const said = { stdout: '', stderr: '' }
  const status = await runProgram(args, {
    stdout: { write: (text) => (said.stdout += text) },
    stderr: { write: (text) => (said.stderr += text) },
  })
  return { status, ...said }
}

describe('xfrmesh', () => {
  it('--version is that of package.json', async () => {
    const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
    expect(await xfrmesh('--version')).toEqual({ status: 0, stdout: `${version}\n`, stderr: '' })
  })

  it('--help names the commands, and a command its options', async () => {
    const top = await xfrmesh('--help')
    expect(top).toMatchObject({ status: 0, stderr: '' })
    expect(top.stdout).toMatch(/^ {2}demo \[options\] \[FILE\]/m)
    const demo = await xfrmesh('demo', '--help')
    expect(demo.stdout).toMatch(/--peers <N> +further peers on each host \(default: 2000\)/)
  })

  it.each([
    [[], 'Usage: xfrmesh'],
    [['dmeo'], "unknown command 'dmeo'\n(Did you mean demo?)"],
    [['demo', '--peer', '3'], "unknown option '--peer'\n(Did you mean --peers?)"],
    [['demo', '--peers', '-1'], 'An integer from 0 to 100000.'],
    [['demo', '--hosts', '1'], 'An integer from 2 to 16.'],
    [['demo', '--suite', 'aes'], 'Allowed choices are aes-gcm-64'],
    [['demo', 'cluster.yaml', '--peers', '3'], "option '--peers': FILE says that"],
    [['demo', 'a', 'b'], 'too many arguments'],
  ])('called wrongly (%j) says what is wrong and exits with 2', async (args, expected) => {
    const { status, stdout, stderr } = await xfrmesh(...args)
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
    expect(stderr).toContain(expected)
  })

  it('says in one line, without a stack, what is wrong with a file, and exits with 1', async () => {
    const file = join(directory, 'cluster.yaml')
    await writeFile(file, 'keys: k\nnetworks: [{ vni: 1 }]\nnodes: [{ name: a, addres: 192.0.2.1 }]\n')
    expect(await xfrmesh('demo', file)).toEqual({
      status: 1,
      stdout: '',
      stderr: `xfrmesh: ${file}: line 3, column 28: nodes[0].addres is unknown: did you mean 'address'?\n`,
    })
  })

  it('refuses a cluster that the demo cannot show', async () => {
    const file = join(directory, 'cluster.yaml')
    const nodes = (...advertise: string[]) =>
      `[{ name: a, address: 192.0.2.1 }, { name: b, address: 192.0.2.2${advertise.map((to) => `, advertise: ${to}`).join('')} }]`
    await writeFile(join(directory, 'keys'), `- { tag: 1, value: ${'00'.repeat(16)} }\n`, { mode: 0o600 })
    await writeFile(file, `keys: keys\nnetworks: []\nnodes: ${nodes()}\n`)
    expect((await xfrmesh('demo', file)).stderr).toContain('networks must be a list of at least one')
    await writeFile(file, `keys: keys\nnetworks: [{ vni: 1 }]\nnodes: ${nodes()}\n`)
    expect((await xfrmesh('demo', '--hosts', '3', file)).stderr).toContain('nodes must be a list of at least 3')
    await writeFile(file, `keys: keys\nnetworks: [{ vni: 1 }]\nnodes: ${nodes('203.0.113.1')}\n`)
    expect((await xfrmesh('demo', file)).stderr).toContain('nodes[1].advertise must be left out')
  })
})

describe('errors', () => {
  it('of xfrmesh are one line; those that are our own mistakes show where they were made', () => {
    expect(judge(new InvalidArgument('local', 'an\naddress'))).toEqual({
      status: 1,
      said: 'xfrmesh: local must be an; address\n',
    })
    expect(judge(new TypeError('x is undefined')).said).toMatch(/TypeError: x is undefined\n +at /)
  })
})

describe('progress', () => {
  function show(isTTY: boolean): { written: string[]; progress: ProgressShow } {
    const written: string[] = []
    const output = { isTTY, columns: 80, write: (text: string) => written.push(text) }
    return { written, progress: new ProgressShow(output) }
  }

  it('is a bar on a terminal, where it takes a while, and gone when the next line comes', async () => {
    const { written, progress } = show(true)
    progress.progress('adding', 0, 10)
    expect(written).toEqual([])
    await sleep(400)
    progress.progress('adding', 5, 10)
    progress.line('done')
    expect(written.join('')).toContain('adding ')
    // cli-progress erases it by ANSI's EL.
    expect(written.at(-2)).toContain('\x1b[')
    expect(written.at(-1)).toBe('  done\n')
  })

  it('is no more than a line now and then elsewhere', () => {
    const { written, progress } = show(false)
    for (let i = 0; i <= 1000; i++) progress.progress('adding', i, 1000)
    progress.line('done')
    expect(written.length).toBeLessThan(10)
    expect(written.join('')).not.toContain('\x1b')
    expect(written.at(-1)).toBe('  done\n')
  })
})
