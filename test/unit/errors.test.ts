import { describe, expect, test } from 'vitest'
import {
  Aborted,
  InvalidArgument,
  InvalidState,
  NetlinkError,
  PartialFailure,
  type Report,
  Unsupported,
  XfrmeshError,
} from '../../lib/base/errors.js'

const failure = { subject: '10.0.0.2', operation: 'add inbound SA', errno: 17, code: 'EEXIST', message: 'File exists' }
const report: Report = { requested: 2, applied: 1, unchanged: 0, failures: [failure], operations: 3, elapsedMs: 1 }

test.each<[XfrmeshError, string, string]>([
  [new InvalidArgument('a', 'b'), 'InvalidArgument', 'ERR_XFRMESH_INVALID_ARGUMENT'],
  [new InvalidState('a'), 'InvalidState', 'ERR_XFRMESH_INVALID_STATE'],
  [new NetlinkError('a', 1, 'b'), 'NetlinkError', 'ERR_XFRMESH_NETLINK'],
  [new PartialFailure(report), 'PartialFailure', 'ERR_XFRMESH_PARTIAL_FAILURE'],
  [new Aborted('a'), 'Aborted', 'ERR_XFRMESH_ABORTED'],
  [new Unsupported('CAP_NET_ADMIN', 'a'), 'Unsupported', 'ERR_XFRMESH_UNSUPPORTED'],
])('%s has its name and code', (error, name, code) => {
  expect(error).toBeInstanceOf(XfrmeshError)
  expect(error).toBeInstanceOf(Error)
  expect(error.name).toBe(name)
  expect(error.code).toBe(code)
})

describe('InvalidArgument', () => {
  test('shows neither bytes, nor long strings, nor what is in an object', () => {
    const hex = 'ab'.repeat(36)
    expect(new InvalidArgument('v', 'x', Buffer.from(hex, 'hex')).message).toBe('v must be x, not 36 bytes')
    expect(new InvalidArgument('v', 'x', hex).message).toBe('v must be x, not a string of 72 characters')
    expect(new InvalidArgument('v', 'x', [0xab, 0xcd]).message).toBe('v must be x, not an array of 2')
    expect(new InvalidArgument('v', 'x', { hex }).message).toBe('v must be x, not an object')
  })
})

describe('PartialFailure', () => {
  test('says what failed first and how many more', () => {
    expect(new PartialFailure(report).message).toBe('10.0.0.2: add inbound SA: File exists; reconcile() tries again')
    const many = { ...report, failures: [failure, failure, failure] }
    expect(new PartialFailure(many).message).toContain('File exists (and 2 more); ')
    expect(new PartialFailure(many).report).toBe(many)
    expect(new PartialFailure({ ...report, failures: [] }).message).toBe('not all of it was applied')
  })
})

test('causes are kept', () => {
  const cause = new Error('why')
  expect(new Aborted('a', report, { cause })).toMatchObject({ cause, report })
  expect(new NetlinkError('open', 2, 'No such file', { cause })).toMatchObject({
    cause,
    errno: 2,
    message: 'open: No such file',
  })
})
