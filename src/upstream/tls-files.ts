import { readFileSync } from 'node:fs'
import { UpstreamFailure } from './failure.ts'
import type { TransportOptions } from './source.ts'

/** What a TLS connection to one endpoint is made with, as node:tls takes it. */
export interface TlsFiles {
  readonly ca?: Buffer
  readonly cert?: Buffer
  readonly key?: Buffer
}

/** Reads the PEM files that are named. @throws UpstreamFailure tls_failed when one cannot be read */
export function readTlsFiles(transport: TransportOptions): TlsFiles {
  try {
    return {
      ...(transport.ca_file === null ? {} : { ca: readFileSync(transport.ca_file) }),
      ...(transport.cert_file === null ? {} : { cert: readFileSync(transport.cert_file) }),
      ...(transport.key_file === null ? {} : { key: readFileSync(transport.key_file) }),
    }
  } catch (cause) {
    throw new UpstreamFailure('tls_failed', { cause })
  }
}
