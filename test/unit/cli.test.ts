import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { judge } from '../../lib/cli/errors.js'
import { runProgram } from '../../lib/cli/program.js'
import { ProgressShow } from '../../lib/cli/show.js'
import { problems, workOf, type DemoResult } from '../../lib/demo/demo.js'
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

describe('the demo', () => {
  const all = { sent: 10, received: 10, lost: 0 }
  const none = { sent: 3, received: 0, lost: 3 }
  const work = workOf(100, 10)
  const right: Omit<DemoResult, 'problems'> = {
    before: { ping: all, cleartext: { packets: 40, dropped: 0 } },
    closed: { ping: none },
    hosts: { ...work, count: 2 },
    peers: { ...work, perHost: 10 },
    through: { ping: all, esp: { packets: 40, dropped: 0 } },
    rotation: { add: work, primary: work, prune: work, ping: all, xfrmErrors: {} },
    removal: { ...work, ping: none },
    left: { states: 0, policies: 0, rulesets: 0 },
    cleartext: { packets: 0, dropped: 0 },
  }

  it('is content if nothing leaked, was lost or left', () => {
    expect(problems(right)).toEqual([])
  })

  const lost = { sent: 10, received: 9, lost: 1 }
  const { before, through, rotation, removal, left } = right
  it.each<[Partial<typeof right>, string]>([
    [{ before: { ...before, ping: lost } }, 'before encryption 1 of 10 pings were lost'],
    [{ before: { ...before, cleartext: { packets: 0, dropped: 0 } } }, 'the sniffers saw no VXLAN'],
    [{ closed: { ping: lost } }, '9 pings came through before there were peers'],
    [{ through: { ...through, ping: lost } }, '1 of 10 pings were lost'],
    [{ through: { ...through, esp: { packets: 39, dropped: 0 } } }, 'less ESP on the links than pings came through'],
    [{ rotation: { ...rotation, ping: lost } }, '1 of 10 pings were lost during the rotation'],
    [{ rotation: { ...rotation, ping: { sent: 0, received: 0, lost: 0 } } }, 'nothing was sent during the rotation'],
    [{ rotation: { ...rotation, xfrmErrors: { XfrmInNoStates: 2 } } }, 'errors during the rotation: XfrmInNoStates 2'],
    [{ removal: { ...removal, ping: lost } }, '9 pings came through after the peers were removed'],
    [{ left: { ...left, states: 1 } }, '1 SAs were left'],
    [{ left: { ...left, policies: 1 } }, '1 policies were left'],
    [{ left: { ...left, rulesets: 1 } }, 'nftables tables were left'],
    [{ cleartext: { packets: 1, dropped: 0 } }, '1 packet of an encrypted network crossed the links in the clear'],
    [{ cleartext: { packets: 0, dropped: 1 } }, 'tcpdump missed 1 packet'],
  ])('finds fault with %j', (wrong, expected) => {
    const found = problems({ ...right, ...wrong })
    expect(found).toHaveLength(1)
    expect(found[0]).toContain(expected)
  })
})
