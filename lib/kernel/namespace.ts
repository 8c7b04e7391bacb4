import { constants, openSync, statSync } from 'node:fs'
import { NetlinkError, XfrmeshError } from '../base/errors.js'
import { errnoText } from './netlink-errors.js'

/**
 * A namespace that lost its name lives on while somebody holds it; whoever asked for it by name must not be told
 * otherwise. Where this process may not look at the path any more, there is nothing to compare.
 *
 * @param inode of the namespace held
 * @throws XfrmeshError ERR_XFRMESH_NAMESPACE_GONE
 */
export function checkNamespace(what: string, path: string, inode: number): void {
  const found = inodeAt(path)
  if (found === inode || found === 'hidden') return
  throw new XfrmeshError(
    'ERR_XFRMESH_NAMESPACE_GONE',
    `${what}: the network namespace ${path} is gone${found === undefined ? '' : ' (another bears its name now)'}: open it anew`,
  )
}

/** A descriptor of the namespace at a path. @throws XfrmeshError ERR_XFRMESH_NAMESPACE_GONE; NetlinkError */
export function openNamespace(path: string): number {
  try {
    // Not to hang on a FIFO that somebody put there meanwhile.
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  } catch (error) {
    const { errno = 0, code } = error as NodeJS.ErrnoException
    if (code !== 'ENOENT') throw new NetlinkError(`opening ${path}`, -errno, errnoText(-errno)[1], { cause: error })
    const gone = `the network namespace ${path} is gone`
    throw new XfrmeshError('ERR_XFRMESH_NAMESPACE_GONE', gone, { cause: error })
  }
}

/** Of the file at a path, links followed; undefined where the path leads to none. */
function inodeAt(path: string): number | 'hidden' | undefined {
  try {
    return statSync(path).ino
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === 'EACCES' || code === 'EPERM' ? 'hidden' : undefined
  }
}
