/** Most edits apart that a misspelling may be from what was meant. */
const MOST_EDITS = 2

/** The candidate nearest to `word`, or null when none is near enough to have been meant. */
export function nearest(word: string, candidates: Iterable<string>): string | null {
  let best: string | null = null
  let best_edits = Math.min(MOST_EDITS, Math.floor(word.length / 2)) + 1
  for (const candidate of candidates) {
    const edits = editDistance(word.toLowerCase(), candidate.toLowerCase())
    if (edits < best_edits) {
      best = candidate
      best_edits = edits
    }
  }
  return best
}

/** Longest list that is printed although one of its members was probably meant. */
const SHORT_LIST = 8

/** What was expected, as words: `did you mean "x"?` when something is near, and the whole list when that is not so or it is short. */
export function expectedOneOf(word: string, candidates: readonly string[]): string {
  const near = nearest(word, candidates)
  const list = `one of ${candidates.join(', ')}`
  if (near === null) return list
  return candidates.length > SHORT_LIST ? `did you mean "${near}"?` : `${list} (did you mean "${near}"?)`
}

/** Optimal string alignment distance: insertions, deletions, substitutions and swaps of neighbours. */
function editDistance(left: string, right: string): number {
  let before: number[] = []
  let row = Array.from({ length: right.length + 1 }, (_, column) => column)
  for (let i = 1; i <= left.length; i++) {
    const next = [i]
    for (let j = 1; j <= right.length; j++) {
      const same = left[i - 1] === right[j - 1]
      let edits = Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (same ? 0 : 1))
      const swapped = i > 1 && j > 1 && left[i - 1] === right[j - 2] && left[i - 2] === right[j - 1]
      if (swapped) edits = Math.min(edits, (before[j - 2] ?? 0) + 1)
      next.push(edits)
    }
    before = row
    row = next
  }
  return row[right.length] ?? 0
}
