import type { GatewayProcess } from './fleet.ts'
import { admin, newTenant } from './cluster.ts'
import type { Crowd } from './audit-clients.ts'

/** A tenant under load. What it is given in every round lasts for a part of the round only. */
export interface Payer {
  readonly tenant: string
  readonly key: string
  readonly clients: number
  readonly refill: (round: number) => readonly { readonly path: string; readonly body: object }[]
}

const POOR = [
  { tenant: 'purse', money: '0.002', grant: null },
  { tenant: 'pack', money: '0.001', grant: { unit: 'tokens', amount: 800 } },
  { tenant: 'calls', money: '0.0005', grant: { unit: 'requests', amount: 4 } },
] as const

/** One tenant that has plenty, and three that have little: of money, of tokens, of requests. */
export async function openPayers(control: GatewayProcess): Promise<readonly Payer[]> {
  const payers: Payer[] = [{ tenant: 'rich', key: await newTenant(control, 'rich', '1000'), clients: 6, refill: () => [] }]
  for (const { tenant, money, grant } of POOR) {
    payers.push({
      tenant,
      key: await newTenant(control, tenant, '0'),
      clients: 2,
      refill: (round) => [
        { path: `/tenants/${tenant}/credit`, body: { id: `round-${round}`, amount_cny: money } },
        ...(grant === null ? [] : [{ path: `/tenants/${tenant}/grants`, body: { id: `${tenant}-${round}`, kind: 'pack', ...grant } }]),
      ],
    })
  }
  return payers
}

/** Gives every payer what it gets in this round. */
export async function refill(control: GatewayProcess, payers: readonly Payer[], round: number): Promise<void> {
  for (const { path, body } of payers.flatMap((payer) => payer.refill(round))) await admin(control, path, body)
}

/** Load of every payer on every gateway until `over` aborts; resolves when the last answer has come to its end. */
export async function loadOf(payers: readonly Payer[], urls: readonly string[], crowd: Crowd, over: AbortSignal): Promise<void> {
  await Promise.all(
    payers.flatMap(({ key, clients }) => urls.map((url) => crowd.run({ url, key }, Math.ceil(clients / urls.length), over))),
  )
}
