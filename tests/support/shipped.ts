import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { assemble, type Account, type Assembled } from './assemble.ts'
import { startSandbox, type Sandbox } from '../../src/sandbox/server.ts'
import type { PartialDirectives } from '../../src/sandbox/directives.ts'
import { atEnd } from './cleanup.ts'
import { REPO_ROOT } from './root.ts'
import { tempDir } from './temp.ts'

/** The shipped configuration with every provider's address at a sandbox that plays it: real endpoints, real keys, nobody's servers. */
export interface ShippedGateway extends Assembled {
  readonly sandbox: Sandbox
  readonly account_of_test: Account
  /** `POST` with the account's key. */
  post(path: string, body: unknown): Promise<Response>
}

export async function startShipped(defaults: PartialDirectives = {}): Promise<ShippedGateway> {
  const sandbox = await startSandbox({ port: 0, defaults })
  atEnd(() => sandbox.close())
  const root = tempDir()
  const config_dir = join(root, 'config')
  mkdirSync(config_dir)
  cpSync(join(REPO_ROOT, 'config'), config_dir, { recursive: true })
  const catalogue = join(config_dir, 'catalogue.yaml')
  writeFileSync(catalogue, atSandbox(readFileSync(catalogue, 'utf8'), sandbox.url))
  const assembled = await assemble({ config_dir, data_dir: join(root, 'data') })
  atEnd(() => assembled.close())
  const account_of_test = await assembled.account({ wallet_cny: '1000000' })
  return {
    ...assembled,
    sandbox,
    account_of_test,
    post: (path, body) =>
      fetch(assembled.url + path, {
        method: 'POST',
        headers: { authorization: `Bearer ${account_of_test.secret}`, 'content-type': 'application/json' },
        body: JSON.stringify(body),
      }),
  }
}

/** Tokens are counted by the sandbox's own rule, so that figures can be compared with its count. */
function atSandbox(catalogue: string, url: string): string {
  return catalogue
    .replaceAll(/^ {2}(\w+): \{api_key: .*\}(?=\s|$).*$/gm, `  $1: {base_url: '${url}/as/$1/v1', api_key: 'test-id.test-secret'}`)
    .replaceAll(/^ {8}base_url: .*\n/gm, '')
    .replaceAll(/^ {4}tokenizer: .*\n/gm, '')
    .replaceAll(/^( {4}kind: .*)$/gm, '$1\n    tokenizer: sandbox')
}
