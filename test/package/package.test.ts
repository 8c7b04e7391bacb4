import { execFile } from 'node:child_process'
import { access, cp, mkdir, mkdtemp, readdir, realpath, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'

/** What somebody who installs the packed tarball gets: in a directory of its own, with no network and an empty home. */

const run = promisify(execFile)
const root = new URL('../..', import.meta.url).pathname
const smoke = 'const { deriveSpi } = %; console.log(deriveSpi("10.0.0.1", "10.0.0.2", 1))'

let base: string

beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'xfrmesh-package-'))
  await pack(root, join(base, 'source.tgz'))
})

afterAll(() => rm(base, { recursive: true, force: true }))

test('without a prebuild it is built from source, and loads by import and by require', async () => {
  const consumer = await install('source')
  await offline(consumer, 'npm', ['run', '--silent', 'install'], join(consumer, 'node_modules/xfrmesh'))
  await expectLoads(consumer)
})

test('with a prebuild it needs no compiler', async () => {
  const workshop = await unpack('source', await mkdtemp(join(base, 'workshop-')))
  await symlink(join(root, 'node_modules'), join(workshop, 'node_modules'))
  await offline(workshop, 'native/prebuild.sh', [])
  expect(await readdir(join(workshop, 'prebuilds', `linux-${process.arch}`))).toEqual(['xfrmesh.node'])
  await pack(workshop, join(base, 'prebuilt.tgz'))

  const consumer = await install('prebuilt')
  const bare = await barePath()
  await offline(consumer, 'npm', ['run', '--silent', 'install'], join(consumer, 'node_modules/xfrmesh'), bare)
  await expect(access(join(consumer, 'node_modules/xfrmesh/build'))).rejects.toThrow('ENOENT')
  await expectLoads(consumer, bare)
})

test('without libmnl the build says which package to install', async () => {
  const consumer = await install('source')
  const packed = join(consumer, 'node_modules/xfrmesh')
  const environment = { PKG_CONFIG_LIBDIR: '/nowhere' }
  const failed = offline(consumer, 'npm', ['run', 'install'], packed, process.env['PATH'], environment)
  await expect(failed).rejects.toThrow(/apt-get install libmnl-dev/)
})

test('beside a prebuild, a missing libmnl is named with its package when the addon is loaded', async () => {
  const { stdout } = await run('/sbin/ldconfig', ['-p'])
  const library = /libmnl\.so\.0 .*=> (\S+)/.exec(stdout)?.[1]
  expect(library).toBeDefined()
  // In a mount namespace of its own, an empty file takes the library's place.
  const script = 'mount --bind /dev/null "$1" && exec node -e "import(process.argv[1])" "$2"'
  const load = run('/usr/bin/unshare', [
    '-rm',
    'sh',
    '-c',
    script,
    'sh',
    await realpath(library!),
    join(root, 'dist/index.js'),
  ])
  await expect(load).rejects.toThrow(/Unsupported: the system's libmnl is missing.*apt-get install libmnl0/s)
})

async function pack(directory: string, into: string): Promise<void> {
  const { stdout } = await run('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', base], {
    cwd: directory,
  })
  await cp(join(base, stdout.trim().split('\n').at(-1)!), into)
}

async function unpack(tarball: string, into: string): Promise<string> {
  await run('tar', ['-xzf', join(base, `${tarball}.tgz`), '-C', into, '--strip-components=1'])
  return into
}

/** A directory whose node_modules holds the tarball's content, unbuilt, beside what it depends on. */
async function install(tarball: string): Promise<string> {
  const consumer = await mkdtemp(join(base, `${tarball}-`))
  await mkdir(join(consumer, 'node_modules/xfrmesh'), { recursive: true })
  await unpack(tarball, join(consumer, 'node_modules/xfrmesh'))
  for (const name of await readdir(join(root, 'node_modules'))) {
    if (name !== '.cache') await symlink(join(root, 'node_modules', name), join(consumer, 'node_modules', name))
  }
  return consumer
}

/** Runs a command with no network, an empty home, and nothing of npm's configuration. */
async function offline(
  consumer: string,
  command: string,
  args: string[],
  cwd = consumer,
  path = process.env['PATH'],
  more: Record<string, string> = {},
): Promise<string> {
  const home = await mkdtemp(join(base, 'home-'))
  const { stdout } = await run('/usr/bin/unshare', ['--user', '--map-root-user', '--net', command, ...args], {
    cwd,
    env: {
      PATH: path,
      HOME: home,
      npm_config_userconfig: '/dev/null',
      npm_config_globalconfig: join(home, 'none'),
      ...more,
    },
  })
  return stdout
}

/** A PATH with Node and npm, and no compiler, cmake or pkg-config. */
async function barePath(): Promise<string> {
  const bin = await mkdtemp(join(base, 'bin-'))
  await symlink(process.execPath, join(bin, 'node'))
  const { stdout } = await run('which', ['npm'])
  const npm = await realpath(stdout.trim())
  await symlink(npm, join(bin, 'npm'))
  for (const tool of ['sh', 'env']) await symlink(join('/usr/bin', tool), join(bin, tool))
  expect(dirname(npm)).not.toBe(bin)
  return bin
}

async function expectLoads(consumer: string, path?: string): Promise<void> {
  const imported = await offline(
    consumer,
    'node',
    ['--input-type=module', '-e', smoke.replace('%', 'await import("xfrmesh")')],
    consumer,
    path,
  )
  const required = await offline(consumer, 'node', ['-e', smoke.replace('%', 'require("xfrmesh")')], consumer, path)
  expect(imported).toBe(required)
  expect(Number(imported)).toBeGreaterThan(255)
}
