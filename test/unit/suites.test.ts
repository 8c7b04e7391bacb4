import { expect, test } from 'vitest'
import { suite, suites } from '../../lib/overlay/suites.js'

test.each(Object.entries(suites))('%s is found by its name', (name, found) => {
  expect(suite(name)).toBe(found)
  expect(found.name).toBe(name)
})

test('an unknown suite is refused with the nearest', () => {
  expect(() => suite('aes-gcm128')).toThrow(
    `suite must be one of 'aes-gcm-64', 'aes-gcm-96', 'aes-gcm-128', 'chacha20-poly1305' (did you mean 'aes-gcm-128'?), not "aes-gcm128"`,
  )
  expect(() => suite('toString')).toThrow('suite must be one of')
})
