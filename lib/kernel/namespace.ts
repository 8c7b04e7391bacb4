import { statSync } from 'node:fs'
import { XfrmeshError } from '../base/errors.js'

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

/** Of the file at a path, links followed; undefined where the path leads to none. */
function inodeAt(path: string): number | 'hidden' | undefined {
  try {
    return statSync(path).ino
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === 'EACCES' || code === 'EPERM' ? 'hidden' : undefined
  }
}
