/** Something that is in at most one {@link Bag}. */
export interface Bagged {
  /** Its place in the bag, or -1. The bag's own. */
  bag_index: number
}

/**
 * A set for things that come and go all the time. A `Set` makes a new table every few changes, and V8's young collections keep every
 * table alive that follows a dead one in the old space, with what was in it: most of a busy process's garbage grew old that way.
 * Here removal overwrites the place. Order is not kept.
 */
export class Bag<Item extends Bagged> {
  readonly #items: Item[] = []

  get size(): number {
    return this.#items.length
  }

  has(item: Item): boolean {
    return this.#items[item.bag_index] === item
  }

  add(item: Item): void {
    if (item.bag_index !== -1) return
    item.bag_index = this.#items.length
    this.#items.push(item)
  }

  delete(item: Item): void {
    const { bag_index } = item
    if (bag_index === -1) return
    item.bag_index = -1
    const last = this.#items.pop()
    if (last === undefined || last === item) return
    last.bag_index = bag_index
    this.#items[bag_index] = last
  }

  /** What is in it now; a copy, so that items may leave meanwhile. */
  all(): readonly Item[] {
    return [...this.#items]
  }
}
