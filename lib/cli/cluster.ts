import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import { hostAddress, ONE_FAMILY } from '../base/address.js'
import { nearest, U16 } from '../base/check.js'
import { InvalidArgument } from '../base/errors.js'
import { suites, type SuiteName } from '../overlay/suites.js'
import { FileError, SourceDocument, type FieldPath } from './document.js'

/** A node of the mesh, as all nodes know it. */
export interface ClusterNode {
  name: string
  /** Outer address, canonical. */
  address: string
  /** The address that the others know it by, where that is another. */
  advertise?: string
}

/** What a cluster file says. */
export interface Cluster {
  /** VXLAN's UDP port. */
  port: number
  suite: SuiteName
  /** The key file's absolute path. */
  keys: string
  networks: { vni: number }[]
  /** At least one; all of one family; no two with one name or address. */
  nodes: ClusterNode[]
}

const LAST_VNI = 0xffffff

/** Each schema's `error` ends the sentence "`field` must be …". */
const text = (error: string) => z.string({ error }).min(1, error)

function integer(min: number, max: number) {
  const error = `an integer from ${min} to ${max}`
  return z.int({ error }).min(min, error).max(max, error)
}

const address = text('an address').transform((value, context) => {
  try {
    return hostAddress(value, '').text
  } catch (error) {
    if (!(error instanceof InvalidArgument)) throw error
    context.addIssue({ code: 'custom', message: error.message.replace(/^ must be /, '') })
    return z.NEVER
  }
})

const suiteNames = Object.keys(suites) as SuiteName[]

const schema = z.strictObject(
  {
    port: integer(1, U16).default(4789),
    suite: z.enum(suiteNames, { error: `one of ${suiteNames.join(', ')}` }).default('aes-gcm-64'),
    keys: text("a key file's path, taken from this file's directory").refine(
      (value) => !/^[\da-f]{32,}$/i.test(value),
      {
        error: "a key file's path, not a key: this file need not be secret",
      },
    ),
    networks: z.array(z.strictObject({ vni: integer(0, LAST_VNI) }, { error: 'an object { vni }' }), {
      error: 'a list of { vni }',
    }),
    nodes: z
      .array(
        z.strictObject(
          { name: text("the node's name"), address, advertise: address.optional() },
          { error: 'an object { name, address, advertise? }' },
        ),
        { error: 'a list of { name, address, advertise? }' },
      )
      .min(1, 'a list of at least one node'),
  },
  { error: 'an object { port, suite, keys, networks, nodes }' },
)

const known: Readonly<Record<string, readonly string[]>> = {
  '': ['port', 'suite', 'keys', 'networks', 'nodes'],
  networks: ['vni'],
  nodes: ['name', 'address', 'advertise'],
}

/** Reads a cluster file. @throws FileError naming line and field */
export async function loadCluster(file: string): Promise<Cluster> {
  return parseCluster(file, await read(file))
}

/** The same of its text; `file` is its path, for messages and for finding the key file. */
export function parseCluster(file: string, source: string): Cluster {
  const document = new SourceDocument(file, source, 'typed')
  const parsed = schema.safeParse(document.value)
  if (!parsed.success) throw refusal(document, parsed.error.issues)
  const { nodes, ...rest } = parsed.data
  const cluster: Cluster = {
    ...rest,
    keys: resolve(dirname(file), rest.keys),
    nodes: nodes.map(({ advertise, ...node }) => (advertise === undefined ? node : { ...node, advertise })),
  }
  checkUnique(document, cluster)
  checkFamily(document, cluster)
  return cluster
}

/** Reads a file that the user named. @throws FileError */
export async function read(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    throw unreadable(file, error)
  }
}

/** Why a file could not be read, by errno. */
export function unreadable(file: string, error: unknown): FileError {
  const sentences: Readonly<Record<string, string>> = {
    ENOENT: 'there is no such file',
    EACCES: 'not readable: permission denied',
    EISDIR: 'a directory, not a file',
  }
  const { code = 'unknown error' } = error as NodeJS.ErrnoException
  return new FileError(file, sentences[code] ?? `not readable: ${code}`, { cause: error })
}

function refusal(document: SourceDocument, issues: readonly z.core.$ZodIssue[]): FileError {
  // A misspelled name is the reason why the right one is missing: it comes first.
  const unknown = issues.find((issue) => issue.code === 'unrecognized_keys')
  if (unknown === undefined) {
    const { path, message } = issues[0]!
    return document.refuse(path as FieldPath, `must be ${message}`)
  }
  const path = unknown.path as FieldPath
  const [name] = unknown.keys as [string]
  const names = known[typeof path[0] === 'string' ? path[0] : '']!
  const near = nearest(name, names)
  const help = near === undefined ? `there are ${names.join(', ')}` : `did you mean '${near}'?`
  return document.refuse([...path, name], `is unknown: ${help}`)
}

function checkUnique(document: SourceDocument, { networks, nodes }: Cluster): void {
  const seen = new Map<string, FieldPath>()
  const claim = (what: string, path: FieldPath, value: string | number) => {
    const key = `${what} ${value}`
    const before = seen.get(key)
    if (before !== undefined) throw document.refuse(path, `must be its own: ${before.join('.')} has the same`)
    seen.set(key, path)
  }
  networks.forEach(({ vni }, i) => claim('vni', ['networks', i, 'vni'], vni))
  nodes.forEach((node, i) => {
    claim('name', ['nodes', i, 'name'], node.name)
    claim('address', ['nodes', i, 'address'], node.address)
  })
  nodes.forEach((node, i) => {
    if (node.advertise !== undefined && node.advertise !== node.address) {
      claim('address', ['nodes', i, 'advertise'], node.advertise)
    }
  })
}

function checkFamily(document: SourceDocument, { nodes }: Cluster): void {
  const family = familyOf(nodes[0]!.address)
  nodes.forEach((node, i) => {
    for (const field of ['address', 'advertise'] as const) {
      const value = node[field]
      if (value === undefined || familyOf(value) === family) continue
      throw document.refuse(
        ['nodes', i, field],
        `must be an IPv${family} address, as that of nodes[0] is: ${ONE_FAMILY}`,
      )
    }
  })
}

/** The family of a canonical address. */
export function familyOf(canonical: string): 4 | 6 {
  return canonical.includes(':') ? 6 : 4
}
