import { afterEach, describe, expect, test, vi } from 'vitest'
import { Tenure } from '../../lib/node/tenure.js'

describe('how long a key has encrypted', () => {
  afterEach(() => vi.useRealTimers())
  /** What is left of ten seconds, on a monotonic clock, and where the wall's stands. */
  function clocks() {
    vi.useFakeTimers({ toFake: ['Date'], now: 1_000_000 })
    const clock = { now: 500 }
    const tenure = new Tenure(() => clock.now)
    const pass = (ms: number) => {
      clock.now += ms
      vi.setSystemTime(Date.now() + ms)
    }
    return { tenure, pass, left: (added: number | undefined) => tenure.left(10_000, added) }
  }

  test('the process that turned to it goes by its own clock, whoever sets the other', () => {
    const { tenure, pass, left } = clocks()
    tenure.began()
    pass(4000)
    expect(left(1000)).toBe(6000)
    vi.setSystemTime(Date.now() + 3_600_000)
    expect(left(1000)).toBe(6000)
    vi.setSystemTime(0)
    expect(left(1000)).toBe(6000)
    pass(6000)
    expect(left(1000)).toBe(0)
  })

  test('one that was started since goes by what the kernel remembers', () => {
    const { tenure, pass, left } = clocks()
    tenure.seen()
    expect(left(997)).toBe(7000)
    pass(2000)
    expect(left(997)).toBe(5000)
    expect(left(undefined)).toBe(0)
  })

  test('and waits no longer than for a new key, though the clock was set back', () => {
    const { tenure, pass, left } = clocks()
    tenure.seen()
    vi.setSystemTime(0)
    expect(left(1000)).toBe(10_000)
    pass(10_000)
    expect(left(1000)).toBe(0)
  })

  test('and as long after a prepared key was given up, however long the present one has encrypted', () => {
    const { tenure, pass, left } = clocks()
    tenure.began()
    pass(20_000)
    expect(left(1000)).toBeLessThanOrEqual(0)
    tenure.abandoned()
    expect(left(1000)).toBe(10_000)
    pass(4000)
    expect(left(1000)).toBe(6000)
    tenure.began()
    expect(left(1000)).toBe(10_000)
  })
})
