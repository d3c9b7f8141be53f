import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { loadConfiguration } from '../../src/config/load.ts'
import type { LoadResult } from '../../src/config/load.ts'
import type { Configuration } from '../../src/config/model.ts'
import { PROVIDERS } from '../../src/upstream/providers/registry.ts'
import { writeFilings } from './gateway.ts'

type Members = Readonly<Record<string, unknown>>

/** A chat model of the sandbox, as the catalogue has it, with changes. */
export function chatModel(endpoints: readonly Members[], changes: Members = {}): Members {
  const shared = { kind: 'chat', owned_by: 'test', created: '2026-01-01', context_tokens: 100_000, tokenizer: 'sandbox' }
  return {
    ...shared,
    ...changes,
    endpoints: endpoints.map((endpoint) => ({ provider: 'sandbox', base_url: 'http://127.0.0.1:9/v1', ...endpoint })),
  }
}

/** Reads a catalogue of these models, each with a price unless it is a profile without one, from files in `dir`. */
export function loadModels(dir: string, models: Readonly<Record<string, Members>>, unpriced: readonly string[] = []): LoadResult {
  const version = {
    version: 'v1',
    effective_from: '2026-01-01',
    source: 'test',
    as_of: '2026-01-01',
    rules: [{ name: 'all', input: '1', output: '2' }],
  }
  const sold = Object.keys(models).filter((id) => !unpriced.includes(id))
  // JSON is YAML.
  writeFileSync(join(dir, 'weir.yaml'), '{}')
  const numbers = [...JSON.stringify(models).matchAll(/"number":"([^"]+)"/g)].map(([, number = '']) => number)
  writeFilings(dir, [...new Set(numbers)])
  writeFileSync(join(dir, 'catalogue.yaml'), JSON.stringify({ models }))
  writeFileSync(join(dir, 'price-book.yaml'), JSON.stringify({ calendar: {}, sell: Object.fromEntries(sold.map((id) => [id, [version]])) }))
  return loadConfiguration({ config_dir: dir, env: { WEIR_PORT: '0' }, providers: [...PROVIDERS.values()] })
}

/** The same. @throws Error naming every mistake */
export function configurationOf(dir: string, models: Readonly<Record<string, Members>>, unpriced?: readonly string[]): Configuration {
  const result = loadModels(dir, models, unpriced)
  if (!result.ok) throw new Error(JSON.stringify(result.issues, null, 2))
  return result.configuration
}
