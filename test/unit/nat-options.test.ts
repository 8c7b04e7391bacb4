import { expect, test } from 'vitest'
import { InvalidArgument } from '../../lib/index.js'
import { settings } from '../../lib/overlay/options.js'

const LOCAL = '192.0.2.1'

test('ESP goes in UDP where it is asked for, at port 4500 unless said otherwise', () => {
  for (const nat of [undefined, false])
    expect(settings({ local: LOCAL, nat })).toMatchObject({ nat: undefined, form: { natPort: 0 } })
  expect(settings({ local: LOCAL, nat: {} })).toMatchObject({ nat: { port: 4500 }, form: { natPort: 4500 } })
  expect(settings({ local: LOCAL, nat: { port: 1, socket: 0 } })).toMatchObject({
    nat: { port: 1, socket: 0 },
    form: { natPort: 1 },
  })
})

test.each([
  [true, 'nat must be false or an object, as in { port: 4500 }, not true'],
  [4500, 'nat must be false or an object, as in { port: 4500 }, not 4500'],
  [null, 'nat must be an object, not null'],
  [{ prot: 4500 }, "nat.prot must be left out: there is no such option (did you mean 'port'?)"],
  [{ port: 0 }, 'nat.port must be an integer from 1 to 65535, not 0'],
  [{ port: 65536 }, 'nat.port must be an integer from 1 to 65535, not 65536'],
  [{ port: '4500' }, 'nat.port must be an integer from 1 to 65535, not "4500"'],
  [{ port: 4790 }, "nat.port must be another port than VXLAN's (4790)"],
  [{ keepalive: 3601 }, 'nat.keepalive must be an integer from 0 to 3600, not 3601'],
  [{ keepalive: -1 }, 'nat.keepalive must be an integer from 0 to 3600, not -1'],
  [{ onMapping: 1 }, 'nat.onMapping must be a function, not 1'],
  [{ socket: -1 }, 'nat.socket must be an integer from 0 to 2147483647, not -1'],
])('%j is refused', (nat, message) => {
  const refused = () => settings({ local: LOCAL, port: 4790, nat })
  expect(refused).toThrow(InvalidArgument)
  expect(refused).toThrow(message)
})
