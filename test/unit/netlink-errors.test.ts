import { constants } from 'node:os'
import { describe, expect, test } from 'vitest'
import { InvalidState, NetlinkError, Unsupported, XfrmeshError } from '../../lib/base/errors.js'
import { checkEnding, errnoText, netlinkError } from '../../lib/kernel/netlink-errors.js'
import { Ending } from '../../lib/native.js'

describe('an errno is told by its name', () => {
  test.each([
    ['EEXIST', 17, 'file already exists'],
    ['EBADMSG', 74, 'EBADMSG (error 74)'],
    ['ERESTART', 85, 'ERESTART (error 85)'],
    ['ENOKEY', 126, 'ENOKEY (error 126)'],
    ['EKEYREJECTED', 129, 'EKEYREJECTED (error 129)'],
    ['E200', 200, 'error 200'],
  ])('%s', (name, errno, sentence) => expect(errnoText(errno)).toEqual([name, sentence]))

  test('all that this system has', () => {
    for (const errno of Object.values(constants.errno)) expect(errnoText(errno)[0]).not.toBe(`E${errno}`)
  })
})

describe('how a job ended is an error of its own', () => {
  const thrown = (ending: number, errno = 0, message?: string): unknown => {
    try {
      checkEnding('reading states', { ending, errno, message })
    } catch (error) {
      return error
    }
    return undefined
  }
  test('but for one that is complete', () => expect(thrown(Ending.complete)).toBeUndefined())
  test.each([
    ['closed', Ending.closed, 0, InvalidState, 'ERR_XFRMESH_CLOSED', 'reading states: closed'],
    ['cancelled', Ending.cancelled, 0, XfrmeshError, 'ERR_XFRMESH_ABORTED', 'reading states: aborted'],
    ['late', Ending.late, 0, XfrmeshError, 'ERR_XFRMESH_TIMEOUT', 'reading states: out of time'],
    ['without an answer in time', Ending.failed, 110, XfrmeshError, 'ERR_XFRMESH_TIMEOUT', 'no answer from the kernel'],
    [
      'that changed under each reading',
      Ending.failed,
      11,
      XfrmeshError,
      'ERR_XFRMESH_BUSY',
      'changed during each of 16',
    ],
    ['whose answer was lost', Ending.failed, 105, XfrmeshError, 'ERR_XFRMESH_ANSWER_LOST', 'read back'],
    ['not permitted', Ending.failed, 1, Unsupported, 'ERR_XFRMESH_UNSUPPORTED', 'CAP_NET_ADMIN'],
    ['refused', Ending.failed, 22, NetlinkError, 'ERR_XFRMESH_NETLINK', 'reading states: invalid argument'],
  ])('%s', (_, ending, errno, type, code, message) => {
    const error = thrown(ending, errno) as XfrmeshError
    expect(error).toBeInstanceOf(type)
    expect(error.code).toBe(code)
    expect(error.message).toContain(message)
  })
  test("refused, in the kernel's own words", () => {
    const error = netlinkError('add state', 22, 'Invalid SPI')
    expect(error).toMatchObject({ message: 'add state: Invalid SPI', errno: 22 })
  })
})
