import { KEY_WORDS } from '../base/address-key.js'
import type { Failure } from '../base/errors.js'
import { MAC_WORDS, NeighbourOperation, NeighbourReader, type NeighbourWriter } from '../kernel/neighbour-records.js'
import type { EndpointTable } from './endpoint-table.js'
import { Standing } from './rows.js'
import { addressAt, macAt } from './texts.js'

/** Operations of one kind, on rows of a table or on records that a dump showed. */
export interface Phase<Subject = unknown> {
  readonly subjects: readonly Subject[]
  readonly isDeletion: boolean
  /** Whether another entry is known to be in the place of this one. */
  isUpdate(subject: Subject): boolean
  write(writer: NeighbourWriter, subject: Subject): void
  /** The kernel has done it. */
  settle(subject: Subject): void
  describe(subject: Subject): Step
}

/** One operation, for people. */
export interface Step {
  readonly operation: `${'add' | 'update' | 'delete'} ${'neighbour' | 'FDB'} entry`
  /** `10.0.0.5 at 02:42:0a:00:00:05`, or `02:42:0a:00:00:05 to 192.0.2.9`. */
  readonly subject: string
}

const { set, delete: remove } = NeighbourOperation

/** What deletions have in common. */
const deletion = { isDeletion: true, isUpdate: () => false, settle: () => undefined }

/** FDB entries, by rows of heads. */
export function setFdb({ fdb }: EndpointTable, subjects: readonly number[]): Phase<number> {
  const isUpdate = (row: number) => fdb.standing[row] === Standing.differs
  return {
    subjects,
    isDeletion: false,
    isUpdate,
    write: (writer, row) => writer.fdb(set, fdb.macs, row * MAC_WORDS, fdb.vteps, row * KEY_WORDS),
    settle: (row) => (fdb.standing[row] = Standing.right),
    describe: (row) => ({
      operation: isUpdate(row) ? 'update FDB entry' : 'add FDB entry',
      subject: fdbText(macAt(fdb.macs, row), addressAt(fdb.vteps, row)),
    }),
  }
}

/** Whatever may stand in the place of FDB entries that are held back, by rows of heads. */
export function holdFdb({ fdb }: EndpointTable, subjects: readonly number[]): Phase<number> {
  return {
    ...deletion,
    subjects,
    write: (writer, row) => writer.wholeFdb(remove, fdb.macs, row * MAC_WORDS),
    settle: (row) => (fdb.standing[row] = Standing.held),
    describe: (row) => ({ operation: 'delete FDB entry', subject: `${macAt(fdb.macs, row)} to any VTEP` }),
  }
}

/** Why an FDB entry is not made: by the row of a head. */
export function heldBack({ fdb }: EndpointTable, row: number): Failure {
  const vtep = addressAt(fdb.vteps, row)
  return {
    subject: fdbText(macAt(fdb.macs, row), vtep),
    operation: 'add FDB entry',
    errno: 0,
    code: 'ERR_XFRMESH_HELD_BACK',
    message: `it is held back: what is sent to ${vtep} would not be encrypted`,
  }
}

/** Neighbour entries of endpoints. */
export function setNeighbours(table: EndpointTable, subjects: readonly number[]): Phase<number> {
  const { fdb } = table
  const isUpdate = (row: number) => table.standing[row] === Standing.differs
  return {
    subjects,
    isDeletion: false,
    isUpdate,
    write: (writer, row) => writer.neighbour(set, table.ips, row * KEY_WORDS, fdb.macs, table.pairs[row]! * MAC_WORDS),
    settle: (row) => (table.standing[row] = Standing.right),
    describe: (row) => ({
      operation: isUpdate(row) ? 'update neighbour entry' : 'add neighbour entry',
      subject: neighbourText(addressAt(table.ips, row), macAt(fdb.macs, table.pairs[row]!)),
    }),
  }
}

/** Neighbour entries of endpoints that went. */
export function deleteNeighbours(table: EndpointTable, subjects: readonly number[]): Phase<number> {
  const { fdb } = table
  return {
    ...deletion,
    subjects,
    write: (writer, row) =>
      writer.neighbour(remove, table.ips, row * KEY_WORDS, fdb.macs, table.pairs[row]! * MAC_WORDS),
    describe: (row) => ({
      operation: 'delete neighbour entry',
      subject: neighbourText(addressAt(table.ips, row), macAt(fdb.macs, table.pairs[row]!)),
    }),
  }
}

/**
 * FDB entries of MACs that no endpoint has any more, by rows. One that leads elsewhere by now is another's, and the kernel
 * leaves it; where it may be ours that does, whatever is there goes.
 */
export function deleteFdb({ fdb }: EndpointTable, subjects: readonly number[]): Phase<number> {
  const isKnown = (row: number) => fdb.standing[row] === Standing.right
  return {
    ...deletion,
    subjects,
    write: (writer, row) => {
      if (isKnown(row)) writer.fdb(remove, fdb.macs, row * MAC_WORDS, fdb.vteps, row * KEY_WORDS)
      else writer.wholeFdb(remove, fdb.macs, row * MAC_WORDS)
    },
    describe: (row) => ({
      operation: 'delete FDB entry',
      subject: fdbText(macAt(fdb.macs, row), addressAt(fdb.vteps, row)),
    }),
  }
}

/** What a dump showed, and nobody wants. */
export function deleteFound(kind: 'neighbour' | 'FDB', subjects: readonly Uint8Array[]): Phase<Uint8Array> {
  return {
    ...deletion,
    subjects,
    write: (writer, record) => writer.deletion(record),
    describe: (record) => ({ operation: `delete ${kind} entry`, subject: foundText(kind, record) }),
  }
}

function foundText(kind: 'neighbour' | 'FDB', record: Uint8Array): string {
  const reader = new NeighbourReader(record)
  reader.next()
  const macs = new Uint32Array(MAC_WORDS)
  const addresses = new Uint32Array(KEY_WORDS)
  reader.mac(macs)
  reader.destination(addresses)
  const [mac, address] = [macAt(macs, 0), addressAt(addresses, 0)]
  if (kind === 'neighbour') return neighbourText(address, mac)
  return fdbText(mac, reader.hasNexthop ? 'a next hop' : address)
}

function neighbourText(ip: string, mac: string): string {
  return `${ip} at ${mac}`
}

function fdbText(mac: string, to: string): string {
  return `${mac} to ${to}`
}
