import { expect, it } from 'vitest'
import { startGateway } from '../support/gateway.ts'

const STAINLESS = [
  'x-stainless-arch',
  'x-stainless-lang',
  'x-stainless-os',
  'x-stainless-package-version',
  'x-stainless-retry-count',
  'x-stainless-runtime',
  'x-stainless-runtime-version',
  'x-stainless-timeout',
]
const PAGE = 'https://app.example.cn'

it('a browser may call with the headers that the official SDK sends', async () => {
  const gateway = await startGateway()
  const response = await fetch(`${gateway.url}/v1/chat/completions`, {
    method: 'OPTIONS',
    headers: {
      origin: PAGE,
      'access-control-request-method': 'POST',
      'access-control-request-headers': ['authorization', 'content-type', ...STAINLESS].join(','),
    },
  })
  const allowed = (response.headers.get('access-control-allow-headers') ?? '').split(', ')
  expect(response.status).toBe(204)
  expect(response.headers.get('access-control-allow-origin')).toBe('*')
  expect(allowed).toEqual(expect.arrayContaining(['authorization', 'content-type', ...STAINLESS]))
  expect(response.headers.get('access-control-allow-methods')).toContain('POST')
})

it('answers, refusals and streams can be read by the page, with the headers that matter', async () => {
  const gateway = await startGateway()
  const responses = [
    await gateway.chat({}, { origin: PAGE }),
    await gateway.chat({ stream: true }, { origin: PAGE }),
    await gateway.chat({ model: 'none' }, { origin: PAGE }),
  ]
  for (const response of responses) {
    expect(response.headers.get('access-control-allow-origin')).toBe('*')
    expect(response.headers.get('access-control-expose-headers')).toContain('x-request-id')
    expect(response.headers.get('access-control-allow-credentials')).toBeNull()
    await response.text()
  }
})

it('an origin that is not listed gets no permission, a listed one gets its own', async () => {
  const gateway = await startGateway({ settings: { cors: { origins: [PAGE] } } })
  const [listed, other, none] = [
    await gateway.chat({}, { origin: PAGE }),
    await gateway.chat({}, { origin: 'https://evil.example' }),
    await gateway.chat({}),
  ]
  expect(listed.headers.get('access-control-allow-origin')).toBe(PAGE)
  expect(listed.headers.get('vary')).toBe('origin')
  expect(other.headers.get('access-control-allow-origin')).toBeNull()
  expect(none.headers.get('access-control-allow-origin')).toBeNull()
})
