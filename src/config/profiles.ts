import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { z } from 'zod'
import type { IssueList, Path, SourceFile } from './document.ts'
import { lifeMembers } from './lives.ts'
import type { Model, Profile } from './model.ts'
import { MAX_PROMPT_BYTES, type PROFILE_MODEL } from './schema.ts'
import { expectedOneOf } from './suggest.ts'

export type ProfileEntry = z.output<typeof PROFILE_MODEL>

/** Where prompts of profiles are kept, below the configuration directory. */
const FOLDER = 'profiles'
/** Files of the folder that count; more are no configuration. */
const MAX_FILES = 1000

/** What profiles may be of, and where mistakes go. */
interface Sources {
  readonly models: ReadonlyMap<string, Model>
  readonly ids: ReadonlySet<string>
  readonly profiles: ReadonlyMap<string, ProfileEntry>
  readonly config_dir: string
  readonly source: SourceFile
  readonly issues: IssueList
}

/** The contents of the prompt files, in order of their names: a part of what a configuration's digest is made of. */
export function promptFiles(config_dir: string): readonly { readonly name: string; readonly contents: Buffer }[] {
  return promptNames(config_dir).flatMap((name) => {
    const contents = readPrompt(join(config_dir, FOLDER, name))
    return contents === null ? [] : [{ name: `${FOLDER}/${name}`, contents }]
  })
}

/** The files that prompts may be in, as paths below the configuration directory. */
export function promptPaths(config_dir: string): readonly string[] {
  return promptNames(config_dir).map((name) => join(config_dir, FOLDER, name))
}

function promptNames(config_dir: string): readonly string[] {
  try {
    return readdirSync(join(config_dir, FOLDER))
      .filter((name) => name.endsWith('.md'))
      .toSorted()
      .slice(0, MAX_FILES)
  } catch (error) {
    if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR')) return []
    throw error
  }
}

/** The bytes of a prompt file, or null where there are none to be had, or too many. */
function readPrompt(path: string): Buffer | null {
  try {
    return statSync(path).size > MAX_PROMPT_BYTES ? null : readFileSync(path)
  } catch (error) {
    if (error instanceof Error && 'code' in error) return null
    throw error
  }
}

/** The model that a profile is; null after a mistake. */
export function buildProfile(id: string, entry: ProfileEntry, sources: Sources): Model | null {
  const at = ['models', id, 'profile']
  const base = baseOf(entry, [...at, 'of'], sources)
  const system = promptOf(entry, [...at, 'system'], sources)
  if (base === null || system === null) return null
  const { of, temperature, top_p, tools } = entry.profile
  const profile: Profile = { of, system, tools, temperature: temperature ?? null, top_p: top_p ?? null }
  return {
    ...base,
    ...{ id, profile, domain: entry.domain, owned_by: entry.owned_by ?? base.owned_by },
    ...earlier(lifeMembers(entry), base),
    tenants: both(entry.tenants ?? null, base.tenants),
    max_output_tokens: lesser(entry.max_output_tokens ?? null, base.max_output_tokens),
    capabilities: entry.capabilities ?? base.capabilities,
    created: entry.created === undefined ? base.created : Date.parse(entry.created) / 1000,
  }
}

function baseOf({ profile: { of } }: ProfileEntry, at: Path, { models, ids, profiles, source, issues }: Sources): Model | null {
  const base = models.get(of)
  if (profiles.has(of)) issues.add(source, at, `"${of}" is a profile itself`, 'the id of a model that is none')
  else if (!ids.has(of))
    issues.add(
      source,
      at,
      `unknown model "${of}"`,
      expectedOneOf(
        of,
        [...ids].filter((id) => !profiles.has(id)),
      ),
    )
  else if (base !== undefined && base.kind !== 'chat') issues.add(source, at, `"${of}" is no chat model`, 'the id of a chat model')
  else return base ?? null
  return null
}

function promptOf({ profile: { system } }: ProfileEntry, at: Path, { config_dir, source, issues }: Sources): string | null {
  if (typeof system === 'string') return system
  const path = join(config_dir, system.file)
  const complain = (message: string, expected: string): null => {
    issues.add(source, [...at, 'file'], message, expected)
    return null
  }
  const contents = readPrompt(path)
  if (contents === null) return complain(`${path} cannot be read`, `a text file with the prompt, at most ${MAX_PROMPT_BYTES} bytes`)
  const prompt = contents.toString('utf8').trim()
  return prompt === '' || prompt.includes('\ufffd') ? complain(`${path} is empty or no UTF-8`, 'a text file with the prompt') : prompt
}

type Dated = Pick<Model, 'life' | 'deprecated_at' | 'retires_at' | 'replaced_by'>
const AGES: readonly Model['life'][] = ['ga', 'preview', 'deprecated', 'retired']

/** A profile lives no longer than its model. What replaces the model replaces no profile of it. */
function earlier(own: Dated, base: Dated): Dated {
  return {
    life: AGES.indexOf(own.life) >= AGES.indexOf(base.life) ? own.life : base.life,
    deprecated_at: lesser(own.deprecated_at, base.deprecated_at),
    retires_at: lesser(own.retires_at, base.retires_at),
    replaced_by: own.replaced_by,
  }
}

/** The lesser of two numbers, null being none. */
function lesser(own: number | null, base: number | null): number | null {
  return own === null || base === null ? (own ?? base) : Math.min(own, base)
}

/** Those that two lists of tenants have in common; null is everybody. */
function both(own: readonly string[] | null, base: readonly string[] | null): readonly string[] | null {
  return own === null || base === null ? (own ?? base) : own.filter((tenant) => base.includes(tenant))
}
