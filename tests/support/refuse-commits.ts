import { DatabaseSync } from 'node:sqlite'
import { join } from 'node:path'

/**
 * Makes every commit of a running journal fail at once, as on a full disk, until the returned function is called. A trigger does it,
 * so nothing of the process under test is replaced; other tables can still be written.
 */
export function refuseCommits(data_dir: string): () => void {
  const change = (sql: string): void => {
    const database = new DatabaseSync(join(data_dir, 'weir.db'), { timeout: 5000 })
    try {
      database.exec(sql)
    } finally {
      database.close()
    }
  }
  const fails = "BEGIN SELECT RAISE(ABORT, 'no room (made by a test)'); END"
  // The second stops the journal's own probe.
  change(`CREATE TRIGGER no_rows BEFORE INSERT ON journal ${fails}; CREATE TRIGGER no_probe BEFORE UPDATE ON meta ${fails}`)
  return () => change('DROP TRIGGER no_rows; DROP TRIGGER no_probe')
}
