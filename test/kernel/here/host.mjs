/** Checks and tunes the host with the options given as JSON, as whoever runs this, and prints what that came to. */
import process from 'node:process'
import { checkHost, tuneHost } from '../../../dist/index.js'

const options = JSON.parse(process.argv[2])
process.stdout.write(JSON.stringify({ tuned: await tuneHost(options), checks: await checkHost(options) }))
