/** The lab itself: what a command sees, what its caller gets back, and that nothing stays behind. */
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, describe, expect, it } from 'vitest'

const root = join(import.meta.dirname, '../..')
const scratch = mkdtempSync(join(tmpdir(), 'xfrmesh-lab-test-'))
afterAll(() => rmSync(scratch, { recursive: true }))

/** A lab at work: its output so far, and its exit status once it has ended. */
class Lab {
  stdout = ''
  stderr = ''
  readonly pid: number
  readonly ended: Promise<number | NodeJS.Signals | null>
  /** Where this lab, and no other, keeps its temporary files. */
  readonly temporary = mkdtempSync(join(scratch, 'tmp-'))

  constructor(command: readonly string[], environment: Record<string, string> = {}) {
    const [program, ...rest] = command
    const env = { ...process.env, ...environment, TMPDIR: this.temporary }
    const child = spawn(program!, rest, { cwd: scratch, env, stdio: ['ignore', 'pipe', 'pipe'] })
    child.stdout.setEncoding('utf8').on('data', (text: string) => (this.stdout += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (this.stderr += text))
    this.pid = child.pid!
    this.ended = new Promise((resolve, reject) => {
      child.on('error', reject).on('close', (code, signal) => resolve(code ?? signal))
    })
  }
}

const program = join(root, 'test/lab/lab')
const lab = (...command: string[]): Lab => new Lab([program, ...command])
const nativeLab = (...command: string[]): Lab =>
  new Lab([...(process.getuid?.() === 0 ? [] : ['sudo', '-n']), program, '--native', ...command])

/** Waits for what is bound to become true; vitest's own limit ends a wait in vain. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(20)
}

/** All processes below this one, by the kernel's account. */
function descendants(pid: number): number[] {
  const parents = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => ({ pid: Number(name), parent: parentOf(Number(name)) }))
  const below = (ancestor: number): number[] =>
    parents.filter(({ parent }) => parent === ancestor).flatMap((child) => [child.pid, ...below(child.pid)])
  return below(pid)
}

/** The parent's process id; undefined for a process that is gone or waits to be reaped. */
function parentOf(pid: number): number | undefined {
  try {
    const [state, parent] = readFileSync(`/proc/${pid}/stat`, 'latin1')
      .replace(/^.*\) /s, '')
      .split(' ')
    return state === 'Z' ? undefined : Number(parent)
  } catch {
    return undefined
  }
}

function nameOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim()
  } catch {
    return ''
  }
}

/** Arguments that a shell, a serial line or a list by lines would spoil. */
const awkward = ['', ' two  words ', `'"\\$HOME\``, 'line\nline\n', '--limit', '--', '*', 'ü€', '']

/** Says as JSON what the command sees, and leaves a process behind. */
const describeSelf = `
  const { spawn } = require('node:child_process')
  spawn('sleep', ['1000'], { detached: true, stdio: 'inherit' }).unref()
  const { env, argv } = process
  console.log(JSON.stringify({
    arguments: argv.slice(1), directory: process.cwd(), uid: process.getuid(), place: env.XFRMESH_LAB,
    given: env.XFRMESH_GIVEN, kept: env.XFRMESH_KEPT, home: env.HOME, stdin: require('node:fs').readFileSync(0, 'utf8'),
  }))`

describe('the virtual machine', () => {
  it('runs a command as it stands, and streams what it says while it says it', async () => {
    const shared = join(scratch, 'shared directory')
    const elsewhere = join(scratch, 'elsewhere')
    mkdirSync(shared)
    // The bulk is far more than any pipe or port holds, and comes last: all of it must still arrive.
    const script = `
      node -e "$1" -- "\${@:3}"
      date +%s
      touch ${elsewhere} "$2/written"
      echo waiting >&2
      until [ -e "$2/go" ]; do sleep 0.05; done
      head -c 3000000 /dev/zero | tr '\\0' x
      exit 7`
    process.env['XFRMESH_GIVEN'] = 'a b'
    process.env['XFRMESH_KEPT'] = 'not passed on'
    const machine = lab(
      ...['--vm', '--writable', shared, '--env', 'XFRMESH_GIVEN', '--'],
      ...['bash', '-ec', script, 'script', describeSelf, shared, ...awkward],
    )

    await until(() => machine.stderr.includes('waiting\n'))
    const [seen, clock] = machine.stdout.split('\n')
    expect(JSON.parse(seen!)).toEqual({
      arguments: awkward,
      directory: root,
      uid: 0,
      place: 'vm',
      given: 'a b',
      home: '/run/home',
      stdin: '',
    })
    expect(Math.abs(Number(clock) - Date.now() / 1000)).toBeLessThan(60)
    expect(readdirSync(shared)).toEqual(['written'])
    expect(readdirSync(scratch)).not.toContain('elsewhere')

    writeFileSync(join(shared, 'go'), '')
    expect(await machine.ended).toBe(7)
    expect(machine.stdout).toBe(`${seen}\n${clock}\n${'x'.repeat(3_000_000)}`)
    expect(machine.stderr).toBe('waiting\n')
    expect(readdirSync(machine.temporary)).toEqual([])
  })

  it('hides a module as if the kernel had been built without it, and says by which signal a command died', async () => {
    const add = (source: string, destination: string): string =>
      `ip xfrm state add src ${source} dst ${destination} proto esp spi 4096 mode transport ` +
      `aead 'rfc4106(gcm(aes))' 0x${'07'.repeat(20)} 128`
    const script = `
      ! ${add('192.0.2.1', '192.0.2.2')} && ${add('2001:db8::1', '2001:db8::2')} && ip xfrm state count && kill -KILL $$`
    const machine = lab('--without', 'esp4', 'bash', '-c', script)
    expect(await machine.ended).toBe(128 + 9)
    expect(machine.stderr).toContain('Requested type not found')
    expect(machine.stdout).toContain('SAD count 1')
  })

  it('ends at its time limit with status 124', async () => {
    const machine = lab('--vm', '--limit', '45', 'bash', '-c', 'echo up; sleep 1000')
    expect(await machine.ended).toBe(124)
    expect(machine.stdout).toBe('up\n')
  })

  it.each([
    ['SIGTERM', 128 + 15],
    ['SIGINT', 128 + 2],
    ['SIGKILL', 'SIGKILL'],
  ] as const)('leaves nothing behind after %s', async (signal, status) => {
    const machine = lab('--vm', 'sleep', '1000')
    await until(() => descendants(machine.pid).some((pid) => nameOf(pid).startsWith('qemu-system')))
    const processes = descendants(machine.pid)
    process.kill(machine.pid, signal)
    expect(await machine.ended).toBe(status)
    await until(() => processes.every((pid) => parentOf(pid) === undefined))
    expect(readdirSync(machine.temporary)).toEqual([])
  })
})

describe('this kernel', () => {
  it('runs a command as it stands, in a network of its own', async () => {
    const script = 'echo error >&2; ls /sys/class/net; node -e "$1" -- "${@:2}"; exit 7'
    const here = nativeLab('bash', '-c', script, 'script', describeSelf, ...awkward)
    expect(await here.ended).toBe(7)
    const [link, seen, ...rest] = here.stdout.split('\n')
    expect(link).toBe('lo')
    expect(JSON.parse(seen!)).toMatchObject({ arguments: awkward, directory: root, uid: 0, place: 'native', stdin: '' })
    expect(rest).toEqual([''])
    expect(here.stderr).toBe('error\n')
  })

  it('ends at its time limit with status 124', async () => {
    expect(await nativeLab('--limit', '1', 'sleep', '1000').ended).toBe(124)
  })

  it('leaves nothing behind when it is killed', async () => {
    const here = nativeLab('bash', '-c', 'sleep 1000 & echo up; wait')
    await until(() => here.stdout === 'up\n')
    const processes = descendants(here.pid)
    process.kill(here.pid, 'SIGTERM')
    expect(await here.ended).toBe(128 + 15)
    await until(() => processes.every((pid) => parentOf(pid) === undefined))
  })
})

describe('the lab refuses, with status 125 and a sentence,', () => {
  it.each([
    [[], 'no command'],
    [['--limits', '1', 'true'], "unknown option '--limits'"],
    [['--limit', 'soon', 'true'], '--limit takes a whole number above zero'],
    [['--writable', '/nowhere', 'true'], "no directory '/nowhere'"],
    [['--kernel'], '--kernel needs a value'],
  ])('%j', async (options, sentence) => {
    const refused = lab(...options)
    expect(await refused.ended).toBe(125)
    expect(refused.stderr).toContain(sentence)
  })
})
