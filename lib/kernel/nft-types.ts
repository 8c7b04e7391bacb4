/**
 * The types of a set's keys and of a map's values, as `nft` names and numbers them (its datatype.h). The kernel keeps the
 * numbers for `nft` and knows lengths alone.
 */

/** Byte orders as `nft` tells them apart: a packet's own, or the kernel's. */
export const ByteOrder = { none: 0, host: 1, big: 2 } as const

export type DataType =
  'integer' | 'ipv4_addr' | 'ipv6_addr' | 'ether_addr' | 'inet_proto' | 'inet_service' | 'mark' | 'ifname'

export interface DataTypeForm {
  readonly number: number
  /** undefined: a set of integers says how long they are. */
  readonly bytes: number | undefined
  readonly order: number
}

export const DataTypes: Readonly<Record<DataType, DataTypeForm>> = {
  integer: { number: 4, bytes: undefined, order: ByteOrder.big },
  ipv4_addr: { number: 7, bytes: 4, order: ByteOrder.big },
  ipv6_addr: { number: 8, bytes: 16, order: ByteOrder.big },
  ether_addr: { number: 9, bytes: 6, order: ByteOrder.big },
  inet_proto: { number: 12, bytes: 1, order: ByteOrder.none },
  inet_service: { number: 13, bytes: 2, order: ByteOrder.big },
  mark: { number: 19, bytes: 4, order: ByteOrder.host },
  ifname: { number: 41, bytes: 16, order: ByteOrder.host },
}

export const DataTypeNames = Object.keys(DataTypes) as DataType[]

/** The name of a type that we know. */
export function typeNumbered(number: number): DataType | undefined {
  return DataTypeNames.find((name) => DataTypes[name].number === number)
}

/** What the kernel calls the type of a verdict map's values (NFT_DATA_VERDICT). */
export const DATA_VERDICT = 0xffffff00
