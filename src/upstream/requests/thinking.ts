import { isFields } from '../dialects/openai-usage.ts'
import type { ThinkingControl } from '../providers/provider.ts'
import type { Changes } from './decide.ts'

type Fields = Readonly<Record<string, unknown>>

/** The members by which callers control thinking, of whichever provider. */
export const THINKING_NAMES = ['thinking', 'enable_thinking', 'thinking_budget', 'reasoning_effort', 'chat_template_kwargs'] as const

/** What a caller wants of thinking. */
export interface ThinkingIntent {
  readonly mode: 'on' | 'off' | 'auto' | null
  /** `minimal`, `low`, `medium`, `high` and beyond, or null. */
  readonly effort: string | null
  /** Tokens, or null. */
  readonly budget: number | null
}

/** Effort in ascending order, of all providers together. */
const EFFORTS = ['none', 'minimal', 'low', 'medium', 'high', 'xhigh', 'max'] as const

/** The caller's intent; null where nothing was said of thinking. */
export function intentOf(given: Fields): ThinkingIntent | null {
  if (!THINKING_NAMES.some((name) => given[name] !== undefined && given[name] !== null)) return null
  const said = given['reasoning_effort']
  const effort = typeof said === 'string' && said !== 'none' ? said : null
  const thinking = isFields(given['thinking']) ? given['thinking'] : {}
  const budget = [given['thinking_budget'], thinking['budget_tokens']].find((count) => typeof count === 'number')
  const mode = modeOf(given, thinking) ?? (said === 'none' ? 'off' : null)
  if (mode === null && effort === null && budget === undefined) return null
  return { mode, effort: mode === 'off' ? null : effort, budget: typeof budget === 'number' ? budget : null }
}

function modeOf(given: Fields, thinking: Fields): ThinkingIntent['mode'] {
  const kwargs = isFields(given['chat_template_kwargs']) ? given['chat_template_kwargs'] : {}
  const { type } = thinking
  if (type === 'enabled') return 'on'
  if (type === 'disabled') return 'off'
  if (type === 'auto' || type === 'adaptive') return 'auto'
  const flags = [thinking['enabled'], given['enable_thinking'], kwargs['enable_thinking'], kwargs['thinking']]
  const flag = flags.find((value) => typeof value === 'boolean')
  return flag === undefined ? null : flag ? 'on' : 'off'
}

/** Spells the caller's intent as the target wants it, in place of however it was said. */
export function spellThinking(given: Fields, control: ThinkingControl, changes: Changes): void {
  const intent = intentOf(given)
  if (intent === null) return
  const wanted = new Map<string, unknown>()
  const kwargs = isFields(given['chat_template_kwargs']) ? withoutSwitches(given['chat_template_kwargs']) : {}
  if (intent.mode === 'off') switchOff(given, control, wanted, kwargs, changes)
  else switchOn(given, intent, control, wanted, kwargs, changes)
  if (Object.keys(kwargs).length > 0) wanted.set('chat_template_kwargs', kwargs)
  for (const name of THINKING_NAMES) {
    const value = wanted.get(name)
    if (JSON.stringify(given[name]) === JSON.stringify(value)) continue
    if (value === undefined) changes.remove(name)
    else changes.set(name, JSON.stringify(value))
  }
}

function switchOff(
  given: Fields,
  control: ThinkingControl,
  wanted: Map<string, unknown>,
  kwargs: Record<string, unknown>,
  changes: Changes,
): void {
  if (control.always === true) {
    const [weakest] = control.efforts
    if (weakest !== undefined) wanted.set('reasoning_effort', weakest)
    changes.report('thinking', weakest ?? 'always')
  } else if (control.switch !== null) turn(false, given, control, wanted, kwargs)
  else if (control.efforts.includes('none')) wanted.set('reasoning_effort', 'none')
}

function switchOn(
  given: Fields,
  { mode, effort, budget }: ThinkingIntent,
  control: ThinkingControl,
  wanted: Map<string, unknown>,
  kwargs: Record<string, unknown>,
  changes: Changes,
): void {
  const takes_efforts = control.efforts.some((known) => known !== 'none')
  if (control.switch === null && !takes_efforts) {
    // A model that always thinks is asked for nothing that it does not do; one that cannot think is.
    if (effort !== null) changes.report('reasoning_effort', 'dropped')
    else if (mode !== null && control.always !== true) changes.report('thinking', 'dropped')
  }
  if (control.switch !== null && (mode !== null || (effort !== null && !takes_efforts))) {
    turn(mode === 'auto' && control.auto === true ? 'auto' : true, given, control, wanted, kwargs)
  }
  if (effort !== null && takes_efforts) {
    const nearest = nearestEffort(effort, control.efforts)
    wanted.set('reasoning_effort', nearest)
    if (nearest !== effort) changes.report('reasoning_effort', nearest)
  } else if (effort !== null && control.switch !== null) changes.report('reasoning_effort', 'on')
  if (budget === null) return
  if (control.budget === null) return changes.report('thinking_budget', 'dropped')
  const clamped = Math.min(Math.max(Math.round(budget), control.budget.min), control.budget.max)
  wanted.set('thinking_budget', clamped)
  if (clamped !== budget) changes.report('thinking_budget', String(clamped))
}

function turn(
  on: boolean | 'auto',
  given: Fields,
  control: ThinkingControl,
  wanted: Map<string, unknown>,
  kwargs: Record<string, unknown>,
): void {
  const flag = on !== false
  switch (control.switch) {
    case 'thinking_type': {
      const { budget_tokens: _, enabled: __, ...rest } = isFields(given['thinking']) ? given['thinking'] : {}
      wanted.set('thinking', { ...rest, type: on === false ? 'disabled' : on === 'auto' ? 'auto' : (control.on ?? 'enabled') })
      break
    }
    case 'thinking_enabled':
      wanted.set('thinking', { enabled: flag })
      break
    case 'enable_thinking':
      wanted.set('enable_thinking', flag)
      break
    case 'template_enable_thinking':
      kwargs['enable_thinking'] = flag
      break
    case 'template_thinking':
      kwargs['thinking'] = flag
      break
    case null:
  }
}

function withoutSwitches({ enable_thinking: _, thinking: __, ...rest }: Fields): Record<string, unknown> {
  return rest
}

/** The nearest that is taken; of two as near, the stronger, as DeepSeek itself reads efforts that it does not know. */
function nearestEffort(asked: string, known: readonly string[]): string {
  const rank = (effort: string): number => EFFORTS.findIndex((one) => one === effort)
  const usable = known.filter((effort) => effort !== 'none')
  const strongest_first = usable.toReversed()
  const asked_rank = rank(asked) === -1 ? rank('medium') : rank(asked)
  const distance = (effort: string): number => Math.abs(rank(effort) - asked_rank)
  return strongest_first.toSorted((a, b) => distance(a) - distance(b))[0] ?? asked
}
