/** Draws by weight that come out the same for the same conversation, on every process and without any memory. Pure. */

const PRIME = 0x01000193
const BASIS = 0x811c9dc5

/** A number in (0, 1) that a text always gives (FNV-1a, spread by the finalizer of MurmurHash3). */
export function unitOf(text: string): number {
  let hash = BASIS
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    hash = Math.imul(hash ^ (code & 0xff), PRIME)
    hash = Math.imul(hash ^ (code >>> 8), PRIME)
  }
  let mixed = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return (((mixed ^ (mixed >>> 16)) >>> 0) + 0.5) / 0x1_0000_0000
}

/** What of a conversation stays the same from turn to turn: providers keep the prompts of such a prefix in their caches. */
export function conversationKey(tenant: string, system: string | null, opening: string | null): string {
  return `${tenant}\0${system ?? ''}\0${opening ?? ''}`
}

/** Chances of one draw: a number in [0, 1) for each id. */
export type Chance = (id: string) => number

/** Chances that are the same whenever the key is. */
export function chanceOf(key: string): Chance {
  const start = unitOf(key).toString(36)
  return (id) => unitOf(`${start}\0${id}`)
}

/**
 * Orders by a weighted draw without replacement. An item of weight 0 comes last. Where one item goes away the order of the others stays
 * (rendezvous hashing), so that only its conversations move.
 */
export function drawOrder<Item extends { readonly id: string; readonly weight: number }>(
  items: readonly Item[],
  chance: Chance,
): readonly Item[] {
  if (items.length <= 1) return items
  // Efraimidis and Spirakis 2006: sorting by u^(1/w), here by its logarithm, draws by weight without replacement.
  const drawn = items.map((item) => ({ item, rank: item.weight === 0 ? -Infinity : Math.log(chance(item.id)) / item.weight }))
  return drawn.toSorted((a, b) => b.rank - a.rank).map(({ item }) => item)
}
