import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { InvalidArgument } from '../../lib/base/errors.js'
import { Given } from '../../lib/masquerade/given.js'
import { emptyLedger } from '../../lib/masquerade/ledger.js'
import { checkedInterface, checkedText, networkHash, ownerOf } from '../../lib/masquerade/owner.js'
import { plan, type Plan } from '../../lib/masquerade/plan.js'
import { bytesOf, checkedMapping, Subnets } from '../../lib/masquerade/subnet.js'
import { heldUserdata, withAddon, type Addon } from './masquerade-addon.js'

/** What C++ takes and what JavaScript does must be the same, and so must what they say of the rest. */

type Raw = readonly [network: unknown, interfaceName: unknown, containerId: unknown, addresses: unknown]

/** By the checks alone, one attachment after the other: its mappings and owners, or what is wrong with the first bad one. */
function expected(all: readonly Raw[]): string[] {
  return all.flatMap(([network, interfaceName, containerId, addresses], i) => {
    const owner = ownerOf(
      networkHash(checkedText(network, `x[${i}].network`)),
      checkedInterface(interfaceName, `x[${i}].interfaceName`),
      checkedText(containerId, `x[${i}].containerId`),
    )
    if (!Array.isArray(addresses)) throw new InvalidArgument(`x[${i}].addresses`, 'an array', addresses)
    const subnets = new Subnets()
    const before = new Set<string>()
    return addresses.map((address: unknown, j) => {
      const argument = `x[${i}].addresses[${j}]`
      const mapping = checkedMapping(address, argument, subnets)
      const told = `${mapping.text}/${mapping.subnet.prefix}`
      if (before.has(mapping.text)) throw new InvalidArgument(argument, 'another address than those before it', told)
      before.add(mapping.text)
      return `${owner} ${Buffer.from(bytesOf(mapping)).toString('hex')} ${mapping.subnet.text}`
    })
  })
}

function told(made: Plan | undefined): string[] {
  if (made === undefined) return []
  const comments = heldUserdata(made, emptyLedger()).map((userdata) => userdata.toString('latin1', 2, 35))
  return made.addRules
    .flatMap(({ subnet, keys }) =>
      Array.from(
        { length: keys.length / subnet.first.length },
        (_, i) =>
          `${Buffer.from(keys.subarray(i * subnet.first.length, (i + 1) * subnet.first.length)).toString('hex')} ${subnet.text}`,
      ),
    )
    .map((mapping, i) => `${comments[i]} ${mapping}`)
}

async function taken(addon: Addon, all: readonly unknown[]): Promise<{ mappings: string[]; mended: boolean }> {
  const given = new Given(addon, 'x')
  let mended = false
  const mend = given.mend.bind(given)
  given.mend = (refused) => {
    mended = true
    return mend(refused)
  }
  given.each(all, (one) => given.add(...(one as Raw)))
  return { mappings: told(await plan(addon, emptyLedger(), given, { what: 'add' }, 'rules')), mended }
}

const outcome = async (work: () => unknown) => {
  try {
    return { value: await work() }
  } catch (error) {
    expect(error).toBeInstanceOf(InvalidArgument)
    return { error: (error as Error).message }
  }
}

const character = fc.oneof(
  { weight: 20, arbitrary: fc.constantFrom(...'abz09 .:/-"~'.match(/./g)!) },
  { weight: 1, arbitrary: fc.constantFrom('\0', '\t', '\x7f', 'ü', '日', '\ud800', '\u0085', '\u2028') },
)
/** Good names mostly, some at the edge of too long, some with what may be wrong in them. */
const name = fc.oneof(
  { weight: 12, arbitrary: fc.stringMatching(/^[a-z0-9]{1,12}$/) },
  { weight: 1, arbitrary: fc.string({ unit: character, maxLength: 20 }) },
  { weight: 1, arbitrary: fc.constantFrom('ü', '日本', 'n'.repeat(15), 'ü'.repeat(127), '日'.repeat(85)) },
  {
    weight: 1,
    arbitrary: fc.constantFrom('', '.', '..', 'a'.repeat(15), 'a'.repeat(16), 'n'.repeat(255), 'ü'.repeat(128)),
  },
)
const address = fc.oneof(
  { weight: 8, arbitrary: fc.tuple(fc.ipV4(), fc.nat(32)).map(([ip, bits]) => `${ip}/${bits}`) },
  { weight: 8, arbitrary: fc.tuple(fc.ipV6(), fc.nat(128)).map(([ip, bits]) => `${ip}/${bits}`) },
  { weight: 2, arbitrary: fc.tuple(fc.ipV4(), fc.nat(130)).map(([ip, bits]) => `::ffff:${ip}/${bits}`) },
  {
    weight: 2,
    arbitrary: fc.constantFrom('10.0.0.1/24', '10.0.0.1/16', '::ffff:a00:1/8', '10.0.0.1/024', '1::/1', '::1.2.3.4/9'),
  },
  {
    weight: 1,
    arbitrary: fc.string({ unit: fc.constantFrom(...'0123456789abcdefABCDEFx.:/%\0 '.match(/[^]/g)!), maxLength: 24 }),
  },
)
/** With a character left out, put in or doubled. */
const mutated = fc
  .tuple(address, fc.nat(50), fc.constantFrom('', '0', ':', '.', '/', 'f', '\0'))
  .map(([text, at, by]) => `${text.slice(0, at)}${by}${text.slice(at + (by === '' ? 1 : 0))}`)
const odd = fc.constantFrom<unknown>(undefined, null, 7, {}, [], ['a'])
const mostly = <T>(good: fc.Arbitrary<T>, weight = 40) =>
  fc.oneof<fc.MaybeWeightedArbitrary<unknown>[]>({ weight, arbitrary: good }, { weight: 1, arbitrary: odd })
const addresses = fc.array(mostly(fc.oneof({ weight: 12, arbitrary: address }, { weight: 1, arbitrary: mutated })), {
  maxLength: 4,
})
const raw = fc.tuple(mostly(name), mostly(name), mostly(name), mostly(addresses))

describe('attachments as they are given', () => {
  test('are taken, or refused with the first that is wrong named, as one check after the other does', () =>
    withAddon(async (addon) => {
      const seen = { good: 0, refused: 0, mended: 0 }
      await fc.assert(
        fc.asyncProperty(fc.array(raw, { maxLength: 5 }), async (all) => {
          const right = await outcome(() => expected(all))
          // An attachment that comes again replaces, which is not what this is about.
          fc.pre(
            right.value === undefined || new Set(all.map((one) => JSON.stringify(one.slice(0, 3)))).size === all.length,
          )
          const found = await outcome(() => taken(addon, all))
          const mended = (found.value as { mended: boolean } | undefined)?.mended === true
          expect(found).toEqual(right.value === undefined ? right : { value: { mappings: right.value, mended } })
          if (right.value === undefined) seen.refused++
          else seen.good++
          if (mended) seen.mended++
          // What is plain is taken at once.
          const plain = all.every((one) =>
            one.slice(0, 3).every((text) => typeof text !== 'string' || /^[ -~]*$/.test(text)),
          )
          if (right.value !== undefined && plain) expect(mended).toBe(false)
        }),
        { numRuns: 3000 },
      )
      expect(Math.min(seen.good, seen.refused, seen.mended)).toBeGreaterThan(20)
    }))

  const container = (i: number): Raw => ['net', 'eth0', `c${i}`, [`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}/8`]]

  test('by the thousand keep their order, whichever slices are not plain', () =>
    withAddon(async (addon) => {
      const all = Array.from({ length: 5000 }, (_, i) => container(i))
      all[1500] = ['nätwork', 'eth0', 'c', ['10.200.0.1/8']]
      all[4999] = ['net', 'eth0', 'ü', ['10.200.0.2/8', '2001:db8::1/64']]
      const { mappings, mended } = await taken(addon, all)
      expect(mended).toBe(true)
      expect(mappings).toEqual(expected(all))
    }))

  test('are refused by the first that is wrong, in whichever slice and by whomever', () =>
    withAddon(async (addon) => {
      const all = Array.from({ length: 5000 }, (_, i) => container(i))
      const wrong = (at: number, one: unknown) => taken(addon, all.with(at, one as Raw).with(4000, ['', 'a', 'b', []]))
      const bad = [
        ['net', 'e/0', 'c', []],
        ['net', 'eth0', 'c', ['10.0.0.1/33']],
        ['net', 'eth0', 'c', [7]],
        ['net', 'eth0', 7, []],
        ['net', 'eth0', 'c'],
      ]
      for (const one of bad) {
        await expect(wrong(2500, one)).rejects.toThrow(/^x\[2500\]/)
        await expect(wrong(4500, one)).rejects.toThrow(/^x\[4000\]\.network/)
      }
    }))

  test('are read within the call: what becomes of them after it does not matter', () =>
    withAddon(async (addon) => {
      const all = Array.from({ length: 1500 }, (_, i) => [...container(i)])
      const right = expected(all as unknown as Raw[])
      const given = new Given(addon, 'x')
      given.each(all, (one) => given.add(...(one as Raw)))
      for (const one of all) one.splice(0, 4, '', '', '', (one[3] as string[]).fill('none'))
      expect(told(await plan(addon, emptyLedger(), given, { what: 'add' }, 'rules'))).toEqual(right)
    }))

  test('each property and each address is read once', () =>
    withAddon(async (addon) => {
      let reads = 0
      const addresses = new Proxy(['10.0.0.1/8', '10.0.0.2/8'], {
        get: (target, key, receiver) => {
          if (key === '0' || key === '1') reads++
          return Reflect.get(target, key, receiver) as unknown
        },
      })
      const { mappings } = await taken(addon, [['nät', 'eth0', 'c', addresses]])
      expect([mappings.length, reads]).toEqual([2, 2])
      await expect(taken(addon, [['net', 'e/0', 'c', addresses]])).rejects.toThrow(/interfaceName/)
      expect(reads).toBe(4)
    }))

  test('what is said to have more addresses than fit into memory is refused by the first', () =>
    withAddon(async (addon) => {
      const addresses = ['10.0.0.1/8']
      addresses.length = 2 ** 32 - 1
      await expect(taken(addon, [['net', 'eth0', 'c', addresses]])).rejects.toThrow(/^x\[0\]\.addresses\[1\]/)
    }))

  test('that were not taken are never drafted without', () =>
    withAddon(async (addon) => {
      const given = new Given({ run: () => Promise.reject(new Error('no memory')) }, 'x')
      given.each([container(1)], (one) => given.add(...(one as Raw)))
      const made = addon.run('x', (socket, job) =>
        socket.draft(job, 0, 1, new Uint8Array(), emptyLedger().mappings, given.slices, given.size),
      )
      expect([...(await made).refused]).toEqual([0])
    }))
})
