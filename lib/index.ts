/**
 * xfrmesh: IPsec between this node and thousands of peers, and the firewall that keeps cleartext out and in.
 *
 * The kernel objects beneath are `xfrmesh/xfrm` and `xfrmesh/nft`; beside it stand `xfrmesh/masquerade` and `xfrmesh/vxlan`.
 */
export {
  Aborted,
  type Failure,
  InvalidArgument,
  InvalidState,
  NetlinkError,
  PartialFailure,
  type Report,
  Unsupported,
  XfrmeshError,
} from './base/errors.js'
export { Key } from './base/key.js'
export {
  checkHost,
  type HostChange,
  type HostCheck,
  type HostOptions,
  type HostRefusal,
  type HostTuning,
  tuneHost,
  type TuneOptions,
} from './host/host.js'
export type { PeerInput } from './overlay/arguments.js'
export { type KeyInput, type KeyUpdate, MAX_KEYS } from './overlay/keyring.js'
export { overlayMtu, type OverlayMtuOptions } from './overlay/mtu.js'
export type { Mapping } from './overlay/mappings.js'
export type { NatOptions } from './overlay/nat-options.js'
export type { NatStatus } from './overlay/nat-status.js'
export type { OverlayOptions } from './overlay/options.js'
export type { Drops } from './overlay/guard.js'
export type { CallOptions, Progress } from './overlay/calls.js'
export { Overlay, type OverlayStatus, type Reconciliation } from './overlay/overlay.js'
export type { Peers, PeerStatus } from './overlay/peers-view.js'
export type { Step } from './overlay/describe.js'
export { deriveSpi } from './overlay/spi.js'
export type { SuiteName } from './overlay/suites.js'
