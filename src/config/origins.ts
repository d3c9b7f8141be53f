import type { Catalogue } from './model.ts'

/**
 * Where the endpoints of a provider are, those without keys of their own: one origin for the service of a company, as many as there are
 * machines for a kind of server that is run by oneself.
 */
export function originsOf({ models }: Catalogue, provider: string): ReadonlySet<string> {
  const endpoints = [...models.values()].flatMap((model) => [...model.endpoints, ...model.inactive.map(({ target }) => target)])
  const shared = endpoints.filter((endpoint) => endpoint.provider === provider && !endpoint.own_keys)
  return new Set(shared.map(({ base_url }) => new URL(base_url).origin))
}
