import { createHash } from 'node:crypto'
import type { OutgoingHttpHeaders } from 'node:http'
import type { Locale } from '../base/errors.ts'
import type { Endpoint, Model, Operator } from '../config/model.ts'
import { endpointsFor } from '../routing/access.ts'
import { lifeOf } from '../routing/lives.ts'
import { shownFiling } from '../routing/filings.ts'
import type { TenantRecord } from '../storage/records.ts'
import type { Snapshot } from './snapshot.ts'

/** One model and the filing that it is served under. */
export interface NoticeRow {
  readonly model: string
  /** The filed service, as the registry names it. */
  readonly service: string
  readonly entity: string
  readonly filing: string
  readonly registration: string | null
}

/** What `/filings` tells the public: which filed models are in use here (the regulator's notice of 2024-04-02). */
export interface Notice {
  readonly operator: Operator | null
  /** Whose application it is, on a page of its own. */
  readonly tenant: { readonly name: string; readonly registration: string | null } | null
  readonly registry_date: string | null
  readonly rows: readonly NoticeRow[]
  /** Rows beyond the limit of a page. */
  readonly left_out: number
}

/** A page as it is sent. */
export interface Page {
  readonly body: string
  readonly headers: OutgoingHttpHeaders
  readonly etag: string
}

/** Most rows of one page. */
const MAX_ROWS = 2000

/**
 * The models that traffic of the public may reach, each with its filings; with a tenant, those that it can call. The sandbox is on no page.
 *
 * @param tenant whose page it is, or null for the operator's
 */
export function noticeOf({ callable, configuration }: Snapshot, tenant: TenantRecord | null, now_ms: number): Notice {
  const reaches = ({ zone }: Endpoint): boolean => tenant === null || tenant.zones.includes(zone)
  const rows = new Map<string, NoticeRow>()
  for (const model of callable) {
    const { id } = model
    if (lifeOf(model, now_ms) === 'retired') continue
    for (const endpoint of shownTo(tenant, model)) {
      const filing = shownFiling(endpoint)
      if (filing === null || !reaches(endpoint)) continue
      const { number, registration, row } = filing
      rows.set(`${id} ${number} ${registration}`, {
        model: id,
        service: row?.name ?? '',
        entity: row?.entity ?? '',
        filing: number,
        registration,
      })
    }
  }
  return {
    operator: configuration.settings.operator,
    tenant: tenant === null ? null : { name: tenant.name, registration: tenant.registration_number },
    registry_date: configuration.filings.as_of,
    rows: [...rows.values()].slice(0, MAX_ROWS),
    left_out: Math.max(0, rows.size - MAX_ROWS),
  }
}

/** What is reserved for some tenants is on their pages alone. */
function shownTo(tenant: TenantRecord | null, model: Model): readonly Endpoint[] {
  if (tenant !== null) return endpointsFor(tenant.id, model)
  return model.tenants === null ? model.endpoints.filter(({ tenants }) => tenants === null) : []
}

/** A page may be kept by whoever stands between for this long. */
const CACHE_CONTROL = 'public, max-age=300'

/** The notice as JSON. */
export function noticeJson({ operator, tenant, registry_date, rows, left_out }: Notice): Page {
  const body = { object: 'filings', operator, ...(tenant === null ? {} : { tenant }), registry_date, models: rows, left_out }
  return pageOf(JSON.stringify(body), { 'content-type': 'application/json; charset=utf-8' })
}

/** The notice as a page without scripts and without anything from elsewhere. */
export function noticeHtml(notice: Notice, locale: Locale): Page {
  return pageOf(htmlOf(notice, locale), {
    'content-type': 'text/html; charset=utf-8',
    'content-language': locale,
    'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    'referrer-policy': 'no-referrer',
  })
}

function pageOf(body: string, headers: OutgoingHttpHeaders): Page {
  const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`
  const common = {
    'cache-control': CACHE_CONTROL,
    vary: 'accept, accept-language, origin',
    'x-content-type-options': 'nosniff',
    etag,
  }
  return { body, etag, headers: { ...common, ...headers } }
}

const WORDS = {
  zh: {
    language: 'zh-CN',
    title: '生成式人工智能服务备案信息公示',
    operator: '服务运营方',
    tenant: '应用',
    number: '登记号或备案号',
    contact: '投诉与联系方式',
    unnamed: '未填写',
    intro: '本服务使用的已备案生成式人工智能服务（大模型）如下：',
    columns: ['模型', '已备案服务', '备案单位', '备案号', '应用登记号'],
    none: '目前没有面向公众提供服务的模型。',
    date: (date: string) => `备案名录日期：${date}`,
    left_out: (count: number) => `另有 ${count} 行未列出。`,
  },
  en: {
    language: 'en',
    title: 'Filed generative AI services in use',
    operator: 'Operator',
    tenant: 'Application',
    number: 'Registration or filing number',
    contact: 'Complaints and contact',
    unnamed: 'not given',
    intro:
      'This service uses these generative AI services (large models), which are filed (备案) with the Cyberspace Administration of China:',
    columns: ['Model', 'Filed service', 'Filed by', 'Filing number', 'Registration of the application'],
    none: 'No model serves the public at present.',
    date: (date: string) => `Date of the registry: ${date}`,
    left_out: (count: number) => `${count} more rows are not listed.`,
  },
} as const satisfies Readonly<Record<Locale, unknown>>

const STYLE =
  'body{font-family:system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;line-height:1.6}' +
  'table{border-collapse:collapse;width:100%}th,td{border:1px solid #999;padding:.3rem .6rem;text-align:left;overflow-wrap:anywhere}dt{font-weight:bold}'

function htmlOf({ operator, tenant, registry_date, rows, left_out }: Notice, locale: Locale): string {
  const words = WORDS[locale]
  const facts: readonly (readonly [string, string | null])[] = [
    ...(tenant === null ? [] : [[words.tenant, tenant.name] as const, [words.number, tenant.registration] as const]),
    [words.operator, operator?.name ?? null],
    [words.number, operator?.registration ?? null],
    [words.contact, operator?.contact ?? null],
  ]
  const cells = ({ model, service, entity, filing, registration }: NoticeRow): string =>
    `<tr>${[model, service, entity, filing, registration ?? ''].map((cell) => `<td>${escaped(cell)}</td>`).join('')}</tr>`
  const table =
    `<p>${escaped(words.intro)}</p>\n<table><thead><tr>${words.columns.map((column) => `<th>${escaped(column)}</th>`).join('')}</tr></thead>\n` +
    `<tbody>\n${rows.map(cells).join('\n')}\n</tbody></table>`
  return [
    `<!doctype html>\n<html lang="${words.language}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">`,
    `<title>${escaped(words.title)}</title><style>${STYLE}</style></head><body>`,
    `<h1>${escaped(words.title)}</h1>`,
    `<dl>${facts.map(([name, value]) => `<dt>${escaped(name)}</dt><dd>${escaped(value ?? words.unnamed)}</dd>`).join('\n')}</dl>`,
    rows.length === 0 ? `<p>${escaped(words.none)}</p>` : table,
    ...(left_out === 0 ? [] : [`<p>${escaped(words.left_out(left_out))}</p>`]),
    ...(registry_date === null ? [] : [`<p>${escaped(words.date(registry_date))}</p>`]),
    '</body></html>\n',
  ].join('\n')
}

const ESCAPES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

function escaped(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => ESCAPES[character] ?? '')
}
