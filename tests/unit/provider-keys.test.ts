import { expect, it } from 'vitest'
import type { Configuration } from '../../src/config/model.ts'
import { namedKeys, withProviderKeys } from '../../src/provider-keys.ts'
import type { ProviderKeyRecord } from '../../src/storage/records.ts'
import { chatModel, configurationOf } from '../support/catalogue.ts'
import { tempDir } from '../support/temp.ts'

const KEY: ProviderKeyRecord = {
  ...{ id: 'vllm/main', provider: 'vllm', name: 'main', secret: '${VLLM}', last4: null, weight: 1, status: 'active' },
  ...{ concurrency: null, requests_per_minute: null, tokens_per_minute: null, created_at: 1, changed_at: 1 },
}
const at = (id: string, host: string): Readonly<Record<string, unknown>> => ({ id, provider: 'vllm', base_url: `http://${host}:8000/v1` })

/** Ids of endpoints that would use the key. */
function keyed(configuration: Configuration): readonly string[] {
  const { catalogue } = withProviderKeys(configuration, namedKeys([KEY]))
  return [...catalogue.models.values()].flatMap(({ endpoints }) =>
    endpoints.filter(({ key_pool }) => key_pool !== null).map(({ id }) => id),
  )
}

it('a key of a kind of server is for the one address where that is run, and for none where there are several', () => {
  const one = { ours: chatModel([at('ours', '10.0.0.1')]), also: chatModel([at('also', '10.0.0.1')]) }
  expect(keyed(configurationOf(tempDir(), one))).toEqual(['ours', 'also'])
  const several = { ...one, theirs: chatModel([at('theirs', '10.9.9.9')]) }
  expect(keyed(configurationOf(tempDir(), several))).toEqual([])
})
