/** Node-to-node encryption in the manner of Cilium. */
export {
  KeyFileError,
  LAST_KEY_ID,
  loadKeysFile,
  parseKeys,
  type Algorithm,
  type NodeKey,
  type NodeKeys,
  type ParseOptions,
} from './keyfile.js'
export { KeysFileWatch, watchKeysFile, type WatchOptions } from './keyfile-watch.js'
export { NodeEncryption, type NodeCallOptions, type NodeReconciliation, type NodeStatus } from './node.js'
export type { LocalNode, NodeEncryptionOptions, RemoteNode } from './settings.js'
export type { Step } from './mesh.js'
export type { LabelledCounter } from './statistics.js'
export type { SysctlCheck } from './sysctls.js'
