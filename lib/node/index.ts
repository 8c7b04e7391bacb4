/** Node-to-node encryption in the manner of Cilium. */
export {
  KeyFileError,
  loadKeysFile,
  parseKeys,
  type Algorithm,
  type NodeKey,
  type NodeKeys,
  type ParseOptions,
} from './keyfile.js'
export { KeysFileWatch, watchKeysFile, type WatchOptions } from './keyfile-watch.js'
export type { NodeCallOptions } from './calls.js'
export { NodeEncryption, type NodeReconciliation, type NodeStatus } from './node.js'
export type { LocalNode, NodeEncryptionOptions, RemoteNode } from './settings.js'
export type { Step } from './plan.js'
export type { LabelledCounter } from './statistics.js'
export type { SysctlCheck } from './sysctls.js'
