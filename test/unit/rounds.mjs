/** Opens a socket, reads over it and closes it, as often as the argument says. */
import process from 'node:process'
import { XfrmChannel } from '../../dist/kernel/xfrm-channel.js'

const query = { policies: true, reqid: 0, details: true, algorithms: ['rfc4106(gcm(aes))'] }
for (let round = 0; round < Number(process.argv[2]); round++) {
  const channel = await XfrmChannel.open({})
  await channel.read({ ...query, keys: [new Uint8Array(16).fill(3)] })
  await channel.close()
}
