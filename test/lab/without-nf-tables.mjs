/** Says as JSON what Overlay makes of this kernel, which has no nf_tables: see without-nf-tables.test.ts. */
import { execFileSync } from 'node:child_process'
import process from 'node:process'
import { Overlay } from '../../dist/index.js'

const HERE = '192.0.2.1'
const THERE = '192.0.2.2'
const ENCRYPTED = 4096
const PLAIN = 5000
const COUNT = 3

const run = (...words) => execFileSync(words[0], words.slice(1), { encoding: 'utf8' })
const at = (name, ...words) => run('nsenter', `--net=/run/netns/${name}`, ...words)
for (const name of ['here', 'there']) run('ip', 'netns', 'add', name)
run('ip', '-n', 'here', 'link', 'add', 'wire', 'type', 'veth', 'peer', 'wire', 'netns', 'there')
for (const [name, address] of [
  ['here', HERE],
  ['there', THERE],
]) {
  run('ip', '-n', name, 'address', 'add', `${address}/24`, 'dev', 'wire')
  run('ip', '-n', name, 'link', 'set', 'wire', 'up')
}

/** Sends VXLAN of a network to the other host, and says how many packets came to its UDP, where nobody listens. */
function arrived(from, to, address, vni) {
  const before = unheard(to)
  const header = [8, 0, 0, 0, vni >> 16, (vni >> 8) & 255, vni & 255, 0]
  const packet = header.map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')
  // What is dropped on the way out is refused.
  const sending = `for i in {1..${COUNT}}; do printf '${packet}' >/dev/udp/${address}/4789; done 2>/dev/null; true`
  at(from, 'bash', '-c', sending)
  return unheard(to) - before
}

function unheard(name) {
  const [names, values] = at(name, 'grep', '^Udp:', '/proc/net/snmp')
    .trim()
    .split('\n')
    .map((line) => line.split(' '))
  return Number(values[names.indexOf('NoPorts')])
}

const both = (vni) => ({ in: arrived('there', 'here', HERE, vni), out: arrived('here', 'there', THERE, vni) })

const options = { local: HERE, netns: '/run/netns/here' }
const refusal = await Overlay.open(options).then(
  () => undefined,
  ({ code, missing, message }) => ({ code, missing, message }),
)
const overlay = await Overlay.open({ ...options, firewall: 'iptables' })
const { applied } = await overlay.addNetworks([ENCRYPTED])
// Else what leaves is the policy's, and ends there for want of an SA.
at('here', 'ip', 'xfrm', 'policy', 'flush')
const [encrypted, plain] = [both(ENCRYPTED), both(PLAIN)]
const { firewall, drops } = await overlay.status()
const chains = at('here', 'iptables-legacy-save').match(/^:xfrmesh_\S+/gm)?.length ?? 0
await overlay.removeNetworks([ENCRYPTED])
await overlay.close({ flush: true })
const afterwards = both(ENCRYPTED)
const left = at('here', 'iptables-legacy-save').match(/xfrmesh/g)?.length ?? 0
const said = { refusal, applied, encrypted, plain, firewall, drops, chains, afterwards, left }
process.stdout.write(`${JSON.stringify(said)}\n`)
