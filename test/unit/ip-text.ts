import { reveal } from '../../lib/base/key.js'
import { shownProtocols, stateFlags, policyFlags } from '../../lib/kernel/xfrm-names.js'
import type { Limits, Mark, Policy, Port, Selector, State, Template, Usage } from '../../lib/kernel/xfrm.js'

/** States and policies as `ip -d -s xfrm` (iproute2 6.1) prints them, times in UTC: so that an object can be held against it. */

/** Names of devices by their index. */
export type Devices = Readonly<Record<number, string>>

export function stateText(state: State, devices: Devices = {}): string {
  const { spi, reqid, current, statistics } = state
  const flags = state.esn ? [...state.flags, 'esn'] : state.flags
  const bits = flags.reduce<number>(
    (sum, flag) => sum | (flag === 'esn' ? 128 : (stateFlags.codes.get(String(flag)) ?? Number(flag))),
    0,
  )
  const extra = state.extraFlags.length === 0 ? '' : `extra_flag ${state.extraFlags.join(' ')} `
  const wide = state.esn || state.replayWindow > 32
  return lines(
    `src ${state.source} dst ${state.destination}`,
    `\tproto ${state.protocol} spi 0x${hex8(spi)}(${spi}) reqid ${reqid}(0x${hex8(reqid)}) mode ${state.mode}`,
    `\treplay-window ${wide ? 0 : state.replayWindow} seq 0x${String(state.sequence).padStart(8, '0')} flag ${`${words(flags)}${extra}` || ' '}(0x${binary(bits)})`,
    state.mark && `\tmark ${slashed(state.mark)} `,
    state.outputMark && `\toutput-mark ${slashed(state.outputMark)}`,
    state.auth && `\tauth-trunc ${algorithm(state.auth)} ${state.auth.truncateBits}`,
    state.encryption && `\tenc ${algorithm(state.encryption)}`,
    state.aead && `\taead ${algorithm(state.aead)} ${state.aead.icvBits}`,
    state.encap &&
      `\tencap type ${state.encap.type} sport ${state.encap.sourcePort} dport ${state.encap.destinationPort} addr ${state.encap.originalAddress}`,
    wide ? wideReplay(state) : narrowReplay(state),
    state.ifId !== undefined && `\tif_id ${hex(state.ifId)}`,
    !state.flags.includes('af-unspec') && `\tsel ${selectorText(state.selector, devices)}`,
    lifetimes(state.limits, current),
    '\tstats:',
    `\t  replay-window ${statistics.replayWindow} replay ${statistics.replay} failed ${statistics.integrityFailed}`,
  )
}

export function policyText(policy: Policy, devices: Devices = {}): string {
  const bits = policy.flags.reduce<number>(
    (sum, flag) => sum | (policyFlags.codes.get(String(flag)) ?? Number(flag)),
    0,
  )
  return lines(
    selectorText(policy.selector, devices),
    `\t${policy.socket ? 'socket' : 'dir'} ${policy.direction} action ${policy.action} index ${policy.index} priority ${policy.priority} ptype ${policy.type} share ${policy.share} flag ${words(policy.flags) || ' '}(0x${binary(bits)})`,
    lifetimes(policy.limits, policy.current),
    policy.mark && `\tmark ${slashed(policy.mark)} `,
    ...policy.templates.map(templateText),
    policy.ifId !== undefined && `\tif_id ${hex(policy.ifId)}`,
  )
}

function templateText(template: Template): string {
  const { spi, reqid } = template
  return lines(
    `\ttmpl src ${template.source} dst ${template.destination}`,
    `\t\tproto ${template.protocol} spi 0x${hex8(spi)}(${spi}) reqid ${reqid}(0x${hex8(reqid)}) mode ${template.mode}`,
    `\t\tlevel ${template.optional ? 'use' : 'required'} share ${template.share} `,
    `\t\tenc-mask ${hex8(template.encryptionMask)} auth-mask ${hex8(template.authMask)} comp-mask ${hex8(template.compressionMask)}`,
  )
}

function selectorText(selector: Selector, devices: Devices): string {
  const { protocol, sourcePort, destinationPort, interfaceIndex } = selector
  const typed = protocol === 'icmp' || protocol === 'ipv6-icmp'
  const port = (name: string, value: Port | undefined) => value && `${name} ${value.value}`
  return [
    `src ${selector.source} dst ${selector.destination}`,
    protocol !== undefined && `proto ${shownProtocols.names.get(Number(protocol)) ?? protocol}`,
    ...(protocol === 'gre' && sourcePort && destinationPort
      ? [`key ${sourcePort.value * 0x10000 + destinationPort.value}`]
      : [port(typed ? 'type' : 'sport', sourcePort), port(typed ? 'code' : 'dport', destinationPort)]),
    interfaceIndex !== undefined && `dev ${devices[interfaceIndex] ?? `#${interfaceIndex}`}`,
    `uid ${selector.user ?? 0}`,
  ]
    .filter(Boolean)
    .join(' ')
}

function lifetimes(limits: Limits, current: Usage): string {
  const count = (value: bigint | undefined) => value ?? '(INF)'
  return lines(
    '\tlifetime config:',
    `\t  limit: soft ${count(limits.byteSoft)}(bytes), hard ${count(limits.byteHard)}(bytes)`,
    `\t  limit: soft ${count(limits.packetSoft)}(packets), hard ${count(limits.packetHard)}(packets)`,
    `\t  expire add: soft ${limits.timeSoft ?? 0}(sec), hard ${limits.timeHard ?? 0}(sec)`,
    `\t  expire use: soft ${limits.timeUseSoft ?? 0}(sec), hard ${limits.timeUseHard ?? 0}(sec)`,
    '\tlifetime current:',
    `\t  ${current.bytes}(bytes), ${current.packets}(packets)`,
    `\t  add ${time(current.added)} use ${time(current.used)}`,
  )
}

function narrowReplay({ replay }: State): string {
  return `\tanti-replay context: seq ${hex(replay.sequence)}, oseq ${hex(replay.outputSequence)}, bitmap 0x${hex8(replay.bitmap[0] ?? 0)}`
}

function wideReplay({ replay, replayWindow }: State): string {
  const half = (value: bigint) => `${hex(value >> 32n)}, `
  const low = (value: bigint) => hex(value & 0xffff_ffffn)
  const bitmap = Array.from(replay.bitmap, hex8)
  const rows = Array.from(
    { length: Math.ceil(bitmap.length / 8) },
    (_, i) => `\t ${bitmap.slice(i * 8, i * 8 + 8).join(' ')} `,
  )
  return lines(
    '\tanti-replay esn context:',
    `\t seq-hi ${half(replay.sequence)}seq ${low(replay.sequence)}, oseq-hi ${half(replay.outputSequence)}oseq ${low(replay.outputSequence)}`,
    `\t replay_window ${replayWindow}, bitmap-length ${bitmap.length}`,
    ...rows,
  )
}

function algorithm({ name, key }: NonNullable<State['encryption']>): string {
  const bytes = key === undefined ? new Uint8Array(0) : reveal(key)
  return `${name} 0x${Buffer.from(bytes).toString('hex')} (${bytes.length * 8} bits)`
}

function lines(...parts: readonly (string | false | undefined)[]): string {
  return parts.filter((part) => part !== undefined && part !== false).join('\n')
}

/** ip gives each bit of the flags a digit. */
function binary(bits: number): string {
  return bits.toString(2).padStart(8, '0')
}

function words(list: readonly (string | number)[]): string {
  return list.map((word) => `${word} `).join('')
}

function time(date: Date | undefined): string {
  return date === undefined ? '-' : date.toISOString().slice(0, 19).replace('T', ' ')
}

function slashed({ value, mask }: Mark): string {
  return `${hex(value)}/${hex(mask)}`
}

function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`
}

function hex8(value: number): string {
  return value.toString(16).padStart(8, '0')
}
