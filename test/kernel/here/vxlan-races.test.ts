import { basename } from 'node:path'
import { afterEach, expect, test, vi } from 'vitest'
import { XfrmeshError } from '../../../lib/base/errors.js'
import { Route } from '../../../lib/kernel/route.js'
import { createVxlan } from '../../../lib/vxlan/index.js'
import { batch, clear, interfere, ip, links, useGround } from '../anywhere/vxlan.js'
import { withNetns } from '../netns.js'

/** What others do between a look and what follows from it. */

const { here, home } = useGround()
const moved = { netns: here, moveTo: home }
const asked = { name: 'vx', vni: 1, mtu: 1400 }
const nothing = () => Promise.resolve()

afterEach(() => {
  vi.restoreAllMocks()
})

test('the link goes as soon as it is there: reported', async () => {
  interfere(nothing, () => ip(home, 'link delete vx'))
  await expect(createVxlan({ ...asked, ...moved })).rejects.toMatchObject({ code: 'ERR_XFRMESH_LINK_GONE' })
  expect(await links(home)).not.toMatch(/ vx/)
})

test('the look at what was made fails: the link stays, which is said, and the same call leaves it alone', async () => {
  const late = new XfrmeshError('ERR_XFRMESH_TIMEOUT', 'looking for a link: out of time')
  vi.spyOn(Route.prototype, 'link').mockRejectedValueOnce(late)
  const said = 'the link was made and stays: call again, which leaves it alone or says what differs'
  await expect(createVxlan({ ...asked, ...moved })).rejects.toThrow(`looking for a link: out of time; ${said}`)
  expect(await createVxlan({ ...asked, ...moved })).toMatchObject({ created: false })
})

test("the device's MTU shrinks: the link that came out smaller is reported, and deleted", async () => {
  interfere(() => ip(here, 'link set eth0 mtu 1000'))
  const failing = createVxlan({ ...asked, ...moved, device: 'eth0' })
  await expect(failing).rejects.toMatchObject({ differences: [{ attribute: 'mtu', have: 950, want: 1400 }] })
  expect(await links(home)).not.toMatch(/ vx/)
  await ip(here, 'link set eth0 mtu 1500')
})

test('the namespace loses its name: reported', async () => {
  const failing = withNetns((gone) => {
    interfere(() => batch([], `netns delete ${basename(gone)}`))
    return createVxlan({ ...asked, vni: 99, netns: here, moveTo: gone }).finally(() =>
      batch([], `netns add ${basename(gone)}`),
    )
  })
  await expect(failing).rejects.toMatchObject({
    code: 'ERR_XFRMESH_NAMESPACE_GONE',
    message: expect.stringMatching(/the link was made and stays while the namespace does$/) as string,
  })
})

test('somebody makes the same: it is left alone; another one: it is reported', async () => {
  const add = (vni: number) =>
    ip(here, `link add vx up mtu 1400 netns ${basename(home)} type vxlan id ${vni} dstport 4789 noudpcsum`)
  interfere(() => add(1))
  expect(await createVxlan({ ...asked, ...moved })).toMatchObject({ created: false })
  await clear(home)
  interfere(() => add(2))
  const differences = [{ attribute: 'vni', have: 2, want: 1 }]
  await expect(createVxlan({ ...asked, ...moved })).rejects.toMatchObject({ differences })
})

test('the link that was replaced is gone, and the new one cannot be: both are said', async () => {
  await ip(here, 'link add gone0 type bridge')
  await createVxlan({ ...asked, netns: here })
  vi.spyOn(Route.prototype, 'delete').mockImplementationOnce(async () => {
    await ip(here, 'link delete vx', 'link delete gone0')
    return true
  })
  const failing = createVxlan({ ...asked, bridge: 'gone0', netns: here, replace: true })
  await expect(failing).rejects.toThrow(/invalid argument; the link that it was to replace is deleted$/)
  expect(await links(here)).not.toMatch(/ vx/)
})
