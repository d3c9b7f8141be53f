/** Columns whose cells are figures are aligned to the right. */
const FIGURES = /^-?[\d,.%]+$/

/** Lines of aligned columns, two spaces between. Wide characters (CJK) count as two. */
export function table(headers: readonly string[], rows: readonly (readonly string[])[]): string {
  const columns = headers.map((header, index) => {
    const cells = rows.map((row) => row[index] ?? '')
    return {
      width: Math.max(...[header, ...cells].map(widthOf)),
      right: cells.length > 0 && cells.every((cell) => cell === '' || FIGURES.test(cell)),
    }
  })
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, index) => {
        const padding = ' '.repeat(Math.max(0, (columns[index]?.width ?? 0) - widthOf(cell)))
        return columns[index]?.right === true ? padding + cell : cell + padding
      })
      .join('  ')
      .trimEnd()
  return [headers, ...rows].map((row) => `${line(row)}\n`).join('')
}

const WIDE = /[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/u

function widthOf(text: string): number {
  return [...text].reduce((width, character) => width + (WIDE.test(character) ? 2 : 1), 0)
}

/** Digits in groups of three. */
export function grouped(figure: number | string): string {
  const [whole = '', decimals] = String(figure).split('.')
  const marked = whole.replaceAll(/\B(?=(\d{3})+$)/g, ',')
  return decimals === undefined ? marked : `${marked}.${decimals}`
}
