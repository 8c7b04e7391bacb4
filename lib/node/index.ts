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
