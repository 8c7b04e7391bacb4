import { join } from 'node:path'
import type { Namespace } from '#dist/demo/namespace.js'
import type { Contestant } from '../harness/contest.js'
import { keepFile } from '../harness/files.js'
import { LineProgram, session, timed } from '../harness/sessions.js'
import { attachment, baseText, deletionText, findRules, networkPrefix, ownerPrefix, ruleText } from './mappings.js'
import type { Work } from './scenarios.js'

/** Two who make rules as the CNI plugins do: with `nft`, and with Go's google/nftables. */

/** The plugins' way, with all rules of a load in one file: there they would list and feed once for each. */
export function nftPlugins(work: Work): Contestant {
  return {
    name: 'CNI plugins (nft)',
    role: 'peer',
    // A list of 100,000 rules takes seconds, and five of these steps begin with one.
    mostRounds: (size) => (size > 10_000 ? 2 : 21),
    open: (namespace, size) => {
      const load = keepFile(baseText, ...work.loaded(size).map(ruleText))
      const stays = new Set(work.valid(size).map(ownerPrefix))
      const add = (index: number) => () => timed(() => pluginAdd(namespace, index))
      const remove = (index: number) => () => timed(() => pluginRemove(namespace, index))
      const collect = async () => {
        const stale = await findRules(namespace, networkPrefix)
        const gone = stale.filter(({ comment = '' }) => !stays.has(comment.slice(0, 33)))
        await feed(namespace, gone.map(({ handle }) => deletionText(handle)).join(''))
      }
      const { added, removed, addedLate, removedLate } = work.single(size)
      return Promise.resolve(
        session({
          load: () => timed(() => namespace.run('nft', ['-f', load])),
          'add one': add(added),
          'remove one': remove(removed),
          'add one, others wrote': add(addedLate),
          'remove one, others wrote': remove(removedLate),
          collect: () => timed(collect),
        }),
      )
    },
  }
}

/** Lists by comment what the container has already, and feeds the change: what an addition is to the plugins. */
export async function pluginAdd(namespace: Namespace, index: number): Promise<void> {
  const of = attachment(index)
  const stale = await findRules(namespace, ownerPrefix(of))
  const deletions = stale.map(({ handle }) => deletionText(handle))
  await feed(namespace, baseText + deletions.join('') + ruleText(of))
}

async function pluginRemove(namespace: Namespace, index: number): Promise<void> {
  const stale = await findRules(namespace, ownerPrefix(attachment(index)))
  if (stale.length === 0) throw new Error(`container ${index} has no rule`)
  await feed(namespace, stale.map(({ handle }) => deletionText(handle)).join(''))
}

/** Another container's rule, by a writer that looks at nothing: so that it takes little time. */
export async function otherWrites(namespace: Namespace, index: number): Promise<void> {
  await feed(namespace, baseText + ruleText(attachment(index)))
}

async function feed(namespace: Namespace, text: string): Promise<void> {
  await namespace.run('nft', ['-f', '-'], { input: text })
}

const program = join(import.meta.dirname, '../../../build/peers/nftables')

/** bench/peers/nftables.go: the same way, without `nft`. */
export function goPlugins(work: Work): Contestant {
  return {
    name: 'Go (google/nftables)',
    role: 'peer',
    open: (namespace, size) => {
      const go = LineProgram.start(namespace, program, [])
      const rule = (index: number) => {
        const of = attachment(index)
        const comment = /comment "(.*)"/.exec(ruleText(of))![1]!
        return { address: of.addresses[0]!, owner: ownerPrefix(of), comment }
      }
      const tell = (op: string, rules: readonly ReturnType<typeof rule>[]) => {
        const line = JSON.stringify({ op, rules })
        return () => go.tell(line)
      }
      const { added, removed, addedLate, removedLate } = work.single(size)
      const stays = work.valid(size).map((of) => ({ address: '', owner: ownerPrefix(of), comment: '' }))
      return Promise.resolve(
        session(
          {
            load: tell(
              'load',
              work.loaded(size).map((_, index) => rule(index)),
            ),
            'add one': tell('add', [rule(added)]),
            'remove one': tell('remove', [rule(removed)]),
            'add one, others wrote': tell('add', [rule(addedLate)]),
            'remove one, others wrote': tell('remove', [rule(removedLate)]),
            collect: tell('collect', stays),
          },
          () => go.end(),
        ),
      )
    },
  }
}
