import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../../src/base/clock.ts'
import { type EmbeddedOptions, openEmbedded, type EmbeddedStorage } from '../../src/storage/open.ts'
import type { ClosingEvent, OpenRow } from '../../src/storage/ports.ts'
import { ADMITTED_AT } from './clock.ts'

export const DAY = '2026-11-23'

/** A new directory under the system's temporary one, and how to remove it. */
export function temporaryDirectory(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'weir-test-'))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

export function openTest(data_dir: string, options: Partial<EmbeddedOptions> = {}): Promise<EmbeddedStorage> {
  return openEmbedded({ data_dir, clock: systemClock(), commit_timeout_ms: 5000, keep_days: 7, ...options })
}

/** An open row as the gateway writes it. */
export function openRow(id: string, overrides: Partial<OpenRow> = {}): OpenRow {
  return {
    v: 1,
    hold: {
      v: 1,
      id,
      tenant: 'acme',
      project: 'web',
      key: 'key-1',
      model: 'qwen3-max',
      admitted_at: ADMITTED_AT,
      expires_at: ADMITTED_AT + 30_000,
      tokens: 1200,
      amount_nano: 9_007_199_254_740_993n,
      parts: [{ grant: 'wallet-acme', unit: 'nano_cny', amount: 9_007_199_254_740_993n }],
    },
    day: DAY,
    end_user: null,
    tags: { team: 'search' },
    protocol: 'chat_completions',
    audience: 'internal',
    registry_date: null,
    model_asked: 'qwen3-max',
    route: 'direct',
    domain: 'general',
    stream: true,
    thinking: false,
    prompt_tokens: 100,
    targets: [],
    ...overrides,
  }
}

/** An event as the gateway closes it: 1000 nano-yuan from the wallet, 400 of cost. */
export function closingEvent(id: string, overrides: Partial<ClosingEvent> = {}): ClosingEvent {
  return {
    v: 1,
    id,
    revision: 1,
    admitted_at: ADMITTED_AT,
    day: DAY,
    ended_at: ADMITTED_AT + 900,
    tenant: 'acme',
    project: 'web',
    key: 'key-1',
    end_user: null,
    tags: { team: 'search', amount: '"seq":0' },
    protocol: 'chat_completions',
    audience: 'internal',
    zone: 'domestic',
    model_asked: 'qwen3-max',
    route: 'direct',
    domain: 'general',
    model: 'qwen3-max',
    endpoint: 'dashscope/qwen3-max',
    provider: 'dashscope',
    filing: null,
    registry_date: null,
    dialect: 'openai',
    stream: true,
    status: 'completed',
    code: null,
    finish_reason: 'stop',
    usage_source: 'reported',
    tokens: { input: 100, cached_input: 20, cache_write: 0, output: 50, reasoning: 10 },
    calls: { search: 0, image: 0 },
    ttfe_ms: 120,
    duration_ms: 900,
    attempts: [{ endpoint: 'dashscope/qwen3-max', outcome: 'answered', http_status: 200, duration_ms: 900, cost_nano: 400n }],
    price_version: 'qwen3-max@1',
    price_rule: 'base',
    amount_nano: 1000n,
    cost_nano: 400n,
    parts: [{ grant: 'wallet-acme', unit: 'nano_cny', amount: 1000n }],
    hold: openRow(id).hold,
    overrun_nano: 0n,
    flags: [],
    ...overrides,
  }
}
