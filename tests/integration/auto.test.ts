import OpenAI from 'openai'
import { describe, expect, it } from 'vitest'
import { type GatewayOptions, startGateway, type TestGateway } from '../support/gateway.ts'
import { freePort } from '../support/ports.ts'
import { errorOf, sseOf } from '../support/sse.ts'

const FILING = { number: 'Beijing-Test-202404280016', evidence: 'test' }
const MODELS = {
  talk: { capabilities: ['tools', 'json'] },
  look: { capabilities: ['tools', 'vision'] },
  doctor: { domain: 'healthcare', context_tokens: 20_000, max_output_tokens: 10_000 },
  lawyer: { domain: 'legal' },
}
const CANDIDATES = [{ model: 'talk' }, { model: 'look', weight: 0 }, { model: 'doctor' }, { model: 'lawyer' }]
const ROUTES = { auto: { candidates: CANDIDATES }, 'auto/legal': { domain: 'legal', candidates: CANDIDATES } }

const start = (options: GatewayOptions = {}): Promise<TestGateway> =>
  startGateway({ routes: ROUTES, ...options, models: { ...MODELS, ...options.models } })

const ILL = [{ role: 'user', content: '孩子发烧39度还咳嗽，医生开了阿莫西林和布洛芬，两种药能一起吃吗？需要做血常规检查吗？' }]
const ILL_IN_ENGLISH = [
  {
    role: 'user',
    content: 'My doctor prescribed amoxicillin for pneumonia. Which side effects should the patient watch for, and what dose?',
  },
] as const
const SUED = [{ role: 'user', content: '公司单方面解除劳动合同且不支付经济补偿金，我应当如何申请劳动仲裁？诉讼时效是多久？' }]
const PLAIN = [{ role: 'user', content: 'hello' }]

interface Asked {
  readonly status: number
  readonly model: string | null
  readonly route: string | null
  readonly id: string | null
}

async function ask(gateway: TestGateway, body: object, headers: Readonly<Record<string, string>> = {}): Promise<Asked> {
  const response = await gateway.chat({ model: 'auto', ...body }, headers)
  await response.arrayBuffer()
  const header = (name: string): string | null => response.headers.get(name)
  return { status: response.status, model: header('x-weir-model'), route: header('x-weir-route'), id: header('x-request-id') }
}

/** Every request at `/<prefix>` is refused with a failure that lets others be tried. */
const failing = (only_prefix: string, status = 500): object => ({ sandbox: { fail: { kind: 'refuse', status, only_prefix } } })

describe('auto', () => {
  it('finds what a prompt is about, in Chinese and English, with the official SDK', async () => {
    const gateway = await start()
    const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: gateway.key, maxRetries: 0 })
    const { data, response } = await client.chat.completions.create({ model: 'auto', messages: [...ILL_IN_ENGLISH] }).withResponse()
    expect(data.model).toBe('auto')
    expect(response.headers.get('x-weir-model')).toBe('doctor')
    expect(response.headers.get('x-weir-route')).toMatch(/^auto: healthcare (0\.\d\d|1\.00) by classifier -> doctor \(only\)$/)
    expect(await ask(gateway, { messages: ILL })).toMatchObject({ status: 200, model: 'doctor' })
    expect(await ask(gateway, { messages: SUED })).toMatchObject({ status: 200, model: 'lawyer' })
    const plain = await ask(gateway, { messages: PLAIN })
    expect(plain).toMatchObject({
      model: 'talk',
      route: expect.stringMatching(/^auto: general \d\.\d\d by classifier.* -> talk \(weight\)$/),
    })
    expect(await gateway.event(plain.id)).toMatchObject({ model_asked: 'auto', model: 'talk', domain: 'general', route: plain.route })
    await gateway.audit()
  })

  it('streams as a plain model does', async () => {
    const gateway = await start()
    const stream = await sseOf(await gateway.chat({ model: 'auto', messages: ILL, stream: true }))
    expect(stream).toMatchObject({ done_count: 1, error: null })
    expect(stream.events.every(({ model }) => model === 'auto')).toBe(true)
  })

  it("goes by the caller's hint, of the header before that of the body, and by the name that was called before both", async () => {
    const gateway = await start()
    const hinted = await ask(gateway, { messages: PLAIN, metadata: { domain: 'legal' } })
    expect(hinted).toMatchObject({ model: 'lawyer', route: 'auto: legal 1.00 by hint -> lawyer (only)' })
    const header = { 'x-weir-domain': 'healthcare' }
    expect(await ask(gateway, { messages: PLAIN, metadata: { domain: 'legal' } }, header)).toMatchObject({ model: 'doctor' })
    const named = await ask(gateway, { model: 'auto/legal', messages: ILL }, header)
    expect(named).toMatchObject({ model: 'lawyer', route: 'auto/legal: legal 1.00 by name -> lawyer (only)' })
    expect((await gateway.event(named.id))?.domain).toBe('legal')
  })

  it('refuses a hint that is no domain and names those there are; a plain model does not read it', async () => {
    const gateway = await start()
    const response = await gateway.chat({ model: 'auto' }, { 'x-weir-domain': 'cooking' })
    expect(response.status).toBe(400)
    expect(await errorOf(response)).toMatchObject({ code: 'invalid_request', param: 'x-weir-domain' })
    const body = await gateway.chat({ model: 'auto', metadata: { domain: 7 } })
    expect((await errorOf(body)).message).toContain('metadata.domain must be one of finance, healthcare, education')
    expect((await ask(gateway, { model: 'solo' }, { 'x-weir-domain': 'cooking' })).status).toBe(200)
    expect((await ask(gateway, { messages: PLAIN }, { 'x-weir-domain': 'law' })).route).toContain('legal 1.00 by hint')
  })

  it('says when nothing is vertical for a domain, or why what there is was not chosen', async () => {
    const gateway = await start()
    const none = await ask(gateway, { messages: PLAIN }, { 'x-weir-domain': 'finance' })
    expect(none.route).toBe('auto: finance 1.00 by hint; nothing vertical for finance -> talk (weight)')
    expect(await gateway.event(none.id)).toMatchObject({ domain: 'finance', model: 'talk' })
    const tools = [{ type: 'function', function: { name: 'f', parameters: {} } }]
    const unable = await ask(gateway, { messages: PLAIN, tools }, { 'x-weir-domain': 'legal' })
    expect(unable.route).toBe('auto: legal 1.00 by hint; lawyer not chosen: tools -> talk (weight)')
  })

  it('chooses a model that can do what the body needs, and names what nobody can', async () => {
    const gateway = await start()
    const image = [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA' } }] }]
    expect(await ask(gateway, { messages: image })).toMatchObject({ model: 'look' })
    const json = await ask(gateway, { messages: PLAIN, response_format: { type: 'json_object' } })
    expect(json.model).toBe('talk')
    const both = await gateway.chat({ model: 'auto', messages: image, response_format: { type: 'json_object' } })
    expect(both.status).toBe(400)
    expect((await errorOf(both)).message).toContain('no model that auto may choose for this caller')
    const audio = [{ role: 'user', content: [{ type: 'input_audio', input_audio: { data: '', format: 'wav' } }] }]
    expect((await errorOf(await gateway.chat({ model: 'auto', messages: audio }))).message).toContain('reads audio')
  })

  it('leaves a model alone whose context the prompt does not fit, also together with the answer', async () => {
    const short = { context_tokens: 100_000, max_output_tokens: 10_000 }
    const gateway = await start({ models: { talk: short, look: short } })
    const medical = { 'x-weir-domain': 'healthcare' }
    const words = (count: number): object => ({ messages: [{ role: 'user', content: 'fever '.repeat(count) }] })
    expect((await ask(gateway, words(100), medical)).model).toBe('doctor')
    expect((await ask(gateway, words(19_500), medical)).route).toContain('doctor not chosen: short context')
    expect((await ask(gateway, words(60_000), medical)).route).toContain('doctor not chosen: context_length')
    const response = await gateway.chat({ model: 'auto', ...words(200_000) }, medical)
    expect(response.status).toBe(400)
    expect(await errorOf(response)).toMatchObject({ code: 'context_length_exceeded' })
  })
})

describe('what a caller may not use, auto does not choose', () => {
  it('goes past models of zones and filings that are not allowed, and past what the key may not call', async () => {
    const plain = await start()
    const at = (id: string, more: object): object => ({
      endpoints: [{ id, provider: 'sandbox', base_url: `${plain.sandbox.url}/${id}/v1`, upstream_model: id, ...more }],
    })
    const models = {
      talk: { ...MODELS.talk, ...at('talk', { filing: FILING }) },
      doctor: { ...MODELS.doctor, ...at('doctor', {}) },
      lawyer: { ...MODELS.lawyer, ...at('lawyer', { zone: 'overseas', filing: FILING }) },
    }
    const gateway = await start({ models, tenant: { audience: 'public', zones: ['private', 'domestic'] } })
    const filed = await ask(gateway, { messages: ILL })
    expect(filed).toMatchObject({ model: 'talk', route: expect.stringContaining('doctor not chosen: filing -> talk') })
    const zoned = await ask(gateway, { messages: SUED })
    expect(zoned).toMatchObject({ model: 'talk', route: expect.stringContaining('lawyer not chosen: zone -> talk') })
    expect(plain.sandbox.served().served.every(({ path }) => path.startsWith('/talk/'))).toBe(true)
  })

  it.each([
    ['zones', { tenant: { zones: ['overseas'] } }, 403, 'zone_not_allowed'],
    ['an audience that needs a filing', { tenant: { audience: 'public' } }, 403, 'filing_required'],
    ['models of the key', { key: { models: ['solo'] } }, 403, 'model_not_allowed'],
  ] as const)('refuses when %s leave nothing', async (_, options, status, code) => {
    const gateway = await start(options)
    const response = await gateway.chat({ model: 'auto' })
    expect([response.status, (await errorOf(response)).code]).toEqual([status, code])
    expect((await gateway.audit()).events).toBe(0)
  })

  it('a key that may call auto may call what auto chooses; one that may call a model gets that one from auto', async () => {
    const gateway = await start({ key: { models: ['auto'] } })
    expect((await ask(gateway, { messages: ILL })).model).toBe('doctor')
    expect((await gateway.chat({ model: 'doctor' })).status).toBe(403)
    const other = await start({ key: { models: ['look'] } })
    expect((await ask(other, { messages: ILL })).route).toMatch(/nothing vertical for healthcare -> look \(only\)$/)
  })

  it('lists virtual models last, and only those of which the caller can call something', async () => {
    const gateway = await start({
      routes: { ...ROUTES, empty: { candidates: [{ model: 'lawyer' }] } },
      key: { models: ['talk', 'doctor', 'auto'] },
    })
    const { data } = (await (await gateway.get('/v1/models')).json()) as { data: ReadonlyArray<Record<string, unknown>> }
    expect(data.map(({ id }) => id)).toEqual(['talk', 'doctor', 'auto', 'auto/legal'])
    expect(data[2]).toMatchObject({ kind: 'chat', virtual: true, owned_by: 'weir', candidates: ['talk', 'look', 'doctor', 'lawyer'] })
    expect(data[3]).toMatchObject({ candidates: ['talk', 'doctor'], domain: 'legal' })
    expect(await (await gateway.get('/v1/models/auto/legal')).json()).toEqual(data[3])
    expect((await gateway.get('/v1/models/empty')).status).toBe(404)
  })

  it('answers chats alone', async () => {
    const gateway = await start()
    const response = await gateway.post('/v1/embeddings', { model: 'auto', input: 'hello' })
    expect([response.status, (await errorOf(response)).code]).toEqual([400, 'invalid_request'])
  })
})

describe('when the chosen model fails', () => {
  it.each([
    ['an error before anything was done', { kind: 'refuse', status: 500 }, 1],
    ['a rate limit', { kind: 'rate' }, 1],
  ])('a general model answers instead of the vertical one: %s', async (_, fault, events) => {
    const gateway = await start()
    const asked = await ask(gateway, { messages: ILL, sandbox: { fail: { ...fault, only_prefix: 'doctor' } } })
    expect(asked).toMatchObject({ status: 200, model: 'talk' })
    expect(asked.route).toMatch(/^auto: healthcare \d\.\d\d by classifier; doctor failed \(\w+\) -> talk \(fallback\)$/)
    const event = await gateway.event(asked.id)
    expect(event).toMatchObject({
      model: 'talk',
      model_asked: 'auto',
      domain: 'healthcare',
      status: 'completed',
      route: asked.route,
      endpoint: 'talk',
    })
    expect(event?.attempts.map(({ endpoint, outcome }) => [endpoint, outcome === 'answered'])).toEqual([
      ['doctor', false],
      ['talk', true],
    ])
    expect((await gateway.audit()).events).toBe(events)
  })

  it('a refused connection is no answer either', async () => {
    const closed = `http://127.0.0.1:${await freePort()}/v1`
    const endpoints = [{ id: 'doctor', provider: 'sandbox', base_url: closed, upstream_model: 'doctor' }]
    const gateway = await start({ models: { doctor: { ...MODELS.doctor, endpoints } } })
    expect(await ask(gateway, { messages: ILL })).toMatchObject({
      model: 'talk',
      route: expect.stringContaining('doctor failed (dial_failed)'),
    })
    expect((await gateway.audit()).events).toBe(1)
  })

  it('a stream that has not begun goes on at the next model', async () => {
    const gateway = await start()
    const response = await gateway.chat({ model: 'auto', messages: ILL, stream: true, ...failing('doctor') })
    expect(await sseOf(response)).toMatchObject({ done_count: 1, error: null })
    expect(response.headers.get('x-weir-model')).toBe('talk')
    expect((await gateway.audit()).events).toBe(1)
  })

  it('a model that may have worked has an event of its own, which cost nothing and is named by the one that answered', async () => {
    const gateway = await start()
    const asked = await ask(gateway, { messages: ILL, sandbox: { fail: { kind: 'cut_before_headers', only_prefix: 'doctor' } } })
    expect(asked).toMatchObject({ status: 200, model: 'talk' })
    const answered = await gateway.event(asked.id)
    const follows = answered?.flags.find((flag) => flag.startsWith('follows:'))?.slice('follows:'.length) ?? null
    const failed = await gateway.event(follows)
    expect(failed).toMatchObject({ model: 'doctor', status: 'failed', code: 'upstream_error', amount_nano: 0n, cost_nano: 0n, parts: [] })
    expect(failed?.attempts.map(({ outcome }) => outcome)).toEqual(['reset'])
    expect(answered?.attempts.map(({ outcome }) => outcome)).toEqual(['reset', 'answered'])
    const { events, amount_nano } = await gateway.audit()
    expect([events, amount_nano]).toEqual([2, answered?.amount_nano])
  })

  it('the request counts once against a limit of requests and of concurrency', async () => {
    const limits = [
      { kind: 'concurrency', model: null, limit: '1', window: null },
      { kind: 'requests_per_minute', model: null, limit: '1', window: null },
    ] as const
    const gateway = await start({ limits })
    expect(await ask(gateway, { messages: ILL, ...failing('doctor') })).toMatchObject({ status: 200, model: 'talk' })
    expect((await ask(gateway, { messages: PLAIN })).status).toBe(429)
  })

  it('a model beyond a limit of its own is passed over, and the caller learns the first failure when none is left', async () => {
    const limits = [{ kind: 'requests_per_minute', model: 'talk', limit: '1', window: null }] as const
    const gateway = await start({ limits })
    expect(await ask(gateway, { messages: PLAIN })).toMatchObject({ model: 'talk' })
    expect(await ask(gateway, { messages: ILL, ...failing('doctor') })).toMatchObject({ status: 200, model: 'look' })
    const narrow = await start({ limits, routes: { auto: { candidates: [{ model: 'talk' }, { model: 'doctor' }] } } })
    expect(await ask(narrow, { messages: PLAIN })).toMatchObject({ model: 'talk' })
    const response = await narrow.chat({ model: 'auto', messages: ILL, ...failing('doctor') })
    expect([response.status, (await errorOf(response)).code]).toEqual([502, 'upstream_error'])
    expect((await narrow.audit()).events).toBe(1)
  })

  it('refused content is refused, whoever else could be asked', async () => {
    const gateway = await start()
    const response = await gateway.chat({
      model: 'auto',
      messages: ILL,
      sandbox: { fail: { kind: 'refuse', status: 400, code: 'content_filter', only_prefix: 'doctor' } },
    })
    expect([response.status, (await errorOf(response)).code]).toEqual([400, 'content_filtered'])
    expect(gateway.sandbox.served().totals.requests).toBe(1)
    expect((await gateway.audit()).events).toBe(0)
  })

  it('no more is tried than the limit of tries and the budget of retries let', async () => {
    const gateway = await start({ settings: { limits: { max_attempts: 2 } } })
    const all = { sandbox: { fail: { kind: 'refuse', status: 500 } } }
    expect((await ask(gateway, { messages: ILL, ...all })).status).toBe(502)
    expect(gateway.sandbox.served().totals.requests).toBe(2)
    while (gateway.plane.retries.take(gateway.plane.clock.monotonic_ms()));
    expect((await ask(gateway, { messages: ILL, ...all })).status).toBe(502)
    expect(gateway.sandbox.served().totals.requests).toBe(3)
    const metrics = await gateway.plane.metrics.render()
    expect(metrics).toContain('weir_retries_total{outcome="granted"} 1')
    expect(metrics).toContain('weir_retries_total{outcome="denied"} 1')
  })

  it('a model whose breaker is open is not chosen, and 503 says when to come back when no other is left', async () => {
    const gateway = await start()
    const open = (endpoint: string): void => {
      gateway.plane.breakers.failure(endpoint, 'auth', gateway.plane.clock.now_ms(), null)
    }
    open('doctor')
    expect(await ask(gateway, { messages: ILL })).toMatchObject({
      model: 'talk',
      route: expect.stringContaining('doctor not chosen: unhealthy'),
    })
    open('talk')
    open('look')
    const response = await gateway.chat({ model: 'auto', messages: ILL })
    expect([response.status, (await errorOf(response)).code]).toEqual([503, 'no_upstream_available'])
    expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0)
  })
})

describe('a conversation', () => {
  const turn = (opening: string, turns: number): object => ({
    messages: [
      { role: 'system', content: 'You are a helpful assistant.' },
      { role: 'user', content: opening },
      ...Array.from({ length: turns }, () => [
        { role: 'assistant', content: 'hm' },
        { role: 'user', content: 'go on' },
      ]).flat(),
    ],
  })
  const openings = Array.from({ length: 24 }, (_, index) => `Tell me a story about number ${index * 37}`)

  it('stays with its model and its endpoint, turn after turn', async () => {
    const plain = await start()
    const endpoints = ['one', 'two', 'three'].map((id) => ({
      id,
      provider: 'sandbox',
      base_url: `${plain.sandbox.url}/${id}/v1`,
      upstream_model: 'talk',
    }))
    const candidates = [{ model: 'talk' }, { model: 'look' }]
    const gateway = await start({ models: { talk: { endpoints } }, routes: { auto: { candidates } } })
    const seen = new Set<string>()
    for (const opening of openings) {
      const answers = [0, 1, 3].map((turns) => ask(gateway, turn(opening, turns)))
      const events = await Promise.all((await Promise.all(answers)).map(({ id }) => gateway.event(id)))
      const places = new Set(events.map((event) => `${event?.model} ${event?.endpoint}`))
      expect(places.size).toBe(1)
      for (const place of places) seen.add(place)
    }
    expect([...seen].toSorted()).toEqual(['look look', 'talk one', 'talk three', 'talk two'])
  })

  it.each([
    [0, 0],
    [100, 24],
  ])('goes to the canary in its share (%i %% of 24)', async (percent, count) => {
    const gateway = await start({ routes: { auto: { candidates: CANDIDATES, canary: { model: 'look', percent } } } })
    const answers = await Promise.all(openings.map((opening) => ask(gateway, turn(opening, 0))))
    expect(answers.filter(({ model, route }) => model === 'look' && route?.endsWith('-> look (canary)')).length).toBe(count)
  })
})

describe('POST /v1/route', () => {
  interface Explained {
    readonly model: string | null
    readonly domain: string
    readonly confidence: number
    readonly by: string
    readonly route: string
    readonly candidates: ReadonlyArray<{ readonly model: string; readonly order: number | null; readonly obstacle: string | null }>
    readonly reasons: readonly string[]
    readonly error?: { readonly code: string }
  }
  const explain = async (gateway: TestGateway, body: object): Promise<Explained> =>
    (await (await gateway.post('/v1/route', { model: 'auto', ...body })).json()) as Explained

  it('says what a call then does, calls nobody, holds and records nothing', async () => {
    const gateway = await start()
    for (const messages of [ILL, SUED, PLAIN, ILL_IN_ENGLISH]) {
      const explained = await explain(gateway, { messages })
      expect(gateway.sandbox.served().totals.requests).toBe(0)
      expect((await gateway.audit()).events).toBe(0)
      expect(explained.candidates.find(({ order }) => order === 1)?.model).toBe(explained.model)
      const other = await start()
      expect(await ask(other, { messages })).toMatchObject({ model: explained.model, route: explained.route })
    }
  })

  it('explains every candidate and the domain', async () => {
    const gateway = await start()
    const tools = [{ type: 'function', function: { name: 'f', parameters: {} } }]
    const explained = await explain(gateway, { messages: SUED, tools })
    expect(explained).toMatchObject({ model: 'talk', domain: 'legal', by: 'classifier' })
    expect(explained.confidence).toBeGreaterThan(0.7)
    expect(explained.candidates.map(({ model, order, obstacle }) => [model, order, obstacle])).toEqual([
      ['talk', 1, null],
      ['look', 2, null],
      ['doctor', null, 'domain'],
      ['lawyer', null, 'tools'],
    ])
    expect(explained.reasons.join(' ')).toContain('lawyer cannot serve: it calls no tools')
  })

  it('answers for plain models and aliases too', async () => {
    const gateway = await start()
    expect(await explain(gateway, { model: 'fast', messages: PLAIN })).toMatchObject({
      model: 'solo',
      domain: 'general',
      by: 'model',
      route: 'alias fast of solo',
    })
  })

  it('tells what a call would be told where nothing can serve', async () => {
    const gateway = await start({ tenant: { audience: 'public' } })
    const explained = await explain(gateway, { messages: PLAIN })
    expect(explained).toMatchObject({ model: null, error: { code: 'filing_required' } })
  })

  it('refuses as a call does: without a key, for its body, for a model that is not there, for the method', async () => {
    const gateway = await start()
    const bare = await fetch(`${gateway.url}/v1/route`, { method: 'POST', body: '{}' })
    expect(bare.status).toBe(401)
    expect((await gateway.post('/v1/route', { model: 'auto' })).status).toBe(400)
    expect((await gateway.post('/v1/route', { model: 'none', messages: PLAIN })).status).toBe(404)
    const get = await gateway.get('/v1/route')
    expect([get.status, get.headers.get('allow')]).toEqual([405, 'POST, OPTIONS'])
  })
})
