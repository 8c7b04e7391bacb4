/** Asks for the guard of iptables in its own namespace, and prints what that came to. */
import process from 'node:process'
import { Iptables } from '../../../dist/kernel/iptables.js'
import { IptablesFirewall } from '../../../dist/overlay/firewall-iptables.js'

const guard = { mark: 1, port: 4789, exclusive: false, linksElsewhere: false }
const { code, missing, message } = await Iptables.open()
  .then((iptables) => new IptablesFirewall(iptables, guard).apply({ add: [1] }))
  .then(
    () => ({}),
    (error) => error,
  )
process.stdout.write(JSON.stringify({ code, missing, message }))
