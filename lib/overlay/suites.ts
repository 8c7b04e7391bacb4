import { oneOf } from '../base/check.js'

/** What encrypts. The kernel's own name, and lengths without the salt: its four bytes more are the SPI. */
export interface Suite {
  readonly name: SuiteName
  /** The AEAD's name in the kernel's crypto API. */
  readonly algorithm: string
  /** Length of the integrity check value that ends each packet. */
  readonly icvBits: number
  /** Lengths of key that it takes, in bytes. */
  readonly keyBytes: readonly number[]
}

const names = ['aes-gcm-64', 'aes-gcm-96', 'aes-gcm-128', 'chacha20-poly1305'] as const
export type SuiteName = (typeof names)[number]

const gcm = 'rfc4106(gcm(aes))'
const aes = [16, 24, 32]

/** By name. AES-GCM as in RFC 4106, whose 64-bit form is Docker's; ChaCha20-Poly1305 as in RFC 7634. */
export const suites: Readonly<Record<SuiteName, Suite>> = {
  'aes-gcm-64': { name: 'aes-gcm-64', algorithm: gcm, icvBits: 64, keyBytes: aes },
  'aes-gcm-96': { name: 'aes-gcm-96', algorithm: gcm, icvBits: 96, keyBytes: aes },
  'aes-gcm-128': { name: 'aes-gcm-128', algorithm: gcm, icvBits: 128, keyBytes: aes },
  'chacha20-poly1305': {
    name: 'chacha20-poly1305',
    algorithm: 'rfc7539esp(chacha20,poly1305)',
    icvBits: 128,
    keyBytes: [32],
  },
}

/** The suite of that name. @throws InvalidArgument */
export function suite(value: unknown, argument = 'suite'): Suite {
  return suites[oneOf(value, argument, names)]
}
