/**
 * A writer to the masquerade table, in a process of its own. Arguments, as JSON: { netns, layout, kind, … }.
 *
 * - `rounds`: adds, replaces and removes attachments of its own network at addresses that others use too, then prints
 *   { held, removed, crossed }: what its attachments should have, removals that were not what they should have been, and how
 *   often somebody else wrote during one of its calls.
 * - `flood`: adds and removes the same attachments, all at once, until it is killed. Says 'begun', and what it
 *   has done.
 * - `noise`: makes and deletes a table of its own until its input ends. Says 'begun'.
 */
import process from 'node:process'
import { setTimeout as sleep } from 'node:timers/promises'
import { Masquerade } from '../../../dist/masquerade/masquerade.js'
import { Nft, NftTransaction } from '../../../dist/kernel/nft.js'

const { netns, layout, kind, ...given } = JSON.parse(process.argv[2])

const kinds = {
  async rounds({ network, rounds, addresses, seed }) {
    const masquerade = await Masquerade.open({ netns, layout })
    const nft = await Nft.open({ netns })
    const random = generator(seed)
    const held = new Map()
    let crossed = 0
    const wrong = []
    for (let i = 0; i < rounds; i++) {
      const containerId = String(random(4))
      const name = { network, interfaceName: 'eth0', containerId }
      const had = held.get(containerId)?.length ?? 0
      const before = await nft.generation()
      let done
      if (random(3) === 0) {
        held.delete(containerId)
        done = await masquerade.remove([name])
      } else {
        const all = addresses.filter(() => random(3) === 0)
        held.set(containerId, all)
        done = await masquerade.add([{ ...name, addresses: all }])
      }
      const now = held.get(containerId)?.length ?? 0
      if ((await nft.generation()) - before > (had + now > 0 ? 1 : 0)) crossed++
      // One that another had is moved in the map: it counts as added and as removed.
      if (done.removed - had !== done.added - now || done.removed < had) wrong.push({ i, had, now, done })
    }
    await masquerade.close()
    await nft.close()
    const left = [...held].filter(([, all]) => all.length > 0)
    process.stdout.write(JSON.stringify({ held: left, crossed, wrong }))
  },

  async flood({ attachments }) {
    const masquerade = await Masquerade.open({ netns, layout })
    process.stdout.write('begun\n')
    for (;;) {
      await masquerade.add(attachments)
      process.stdout.write('added\n')
      await masquerade.remove(attachments)
      process.stdout.write('removed\n')
    }
  },

  async noise() {
    const nft = await Nft.open({ netns })
    const table = { family: 'inet', table: 'noise' }
    let over = false
    process.stdin.resume().on('end', () => (over = true))
    process.stdout.write('begun\n')
    while (!over) {
      await nft.commit(new NftTransaction().addTable(table))
      await nft.commit(new NftTransaction().deleteTable(table))
      await sleep(5)
    }
    await nft.close()
  },
}

/** Numbers below a bound, the same for the same seed (xorshift32). */
function generator(seed) {
  let state = seed
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

await kinds[kind](given)
