/** Rows of events that are not what their bodies say: found by day and key, and put right one by one. Their keys are the parameters. */
import { COPIES, differingNames, fromBody, TEXT_NAMES } from '../sql/audit-columns.ts'
import { POSTGRES } from './dialect.ts'

const NESTED = COPIES.filter(([, path]) => path.length > 1)
const OWN = COPIES.filter(([, path]) => path.length === 1)
const FIELDS = [...OWN.map(([name]) => `${name} ${TEXT_NAMES.has(name) ? 'text' : 'bigint'}`), 'tokens json', 'calls json']
const columns = [...OWN, ...NESTED].map(([name]) => `e.${name}`)
const values = [...OWN.map(([name]) => `j.${name}`), ...NESTED.map(([, [member, name]]) => `(j.${member} ->> '${name}')::bigint`)]

/** The members of each event's body as a row `j`, so that a body is read once. */
export const BODY_ROW = `CROSS JOIN LATERAL json_to_record(event_json(e.body)) AS j (${FIELDS.join(', ')})`
/** A condition on an event `e` and its {@link BODY_ROW}. */
export const UNLIKE_BODY = `(${columns.join(', ')}) IS DISTINCT FROM (${values.join(', ')})`

const NEXT = 'e.day = ? AND (e.id, e.revision) > (?, ?)'
const IN_ORDER = 'ORDER BY e.id, e.revision LIMIT ?'

/** Which columns differ is asked of those rows alone that have some. */
export const COLUMNS_OFF =
  `SELECT day, id, revision, own_day, ${differingNames(POSTGRES)} AS names FROM (` +
  'SELECT e.day AS of_day, e.id AS of_id, e.revision AS of_revision, j.day AS own_day ' +
  `FROM events AS e ${BODY_ROW} WHERE ${NEXT} AND ${UNLIKE_BODY} AND j.day NOT IN (SELECT day FROM archives) ${IN_ORDER}) AS off ` +
  'JOIN events ON day = of_day AND id = of_id AND revision = of_revision ORDER BY id, revision'

const KEY = 'day = ? AND id = ? AND revision = ?'
export const PUT_BACK = `UPDATE events SET ${fromBody(POSTGRES)} WHERE ${KEY}`
/** Deletes the row that has the place which another's body names. */
export const TAKE_PLACE =
  `DELETE FROM events AS o USING (SELECT j.day, j.id, j.revision FROM events AS e ${BODY_ROW} WHERE e.day = ? AND e.id = ? AND e.revision = ?) ` +
  'AS b WHERE o.day = b.day AND o.id = b.id AND o.revision = b.revision AND NOT (o.day = ? AND o.id = ? AND o.revision = ?)'

const STANDING =
  'CASE WHEN e.revision = 1 AND EXISTS (SELECT 1 FROM events AS n WHERE n.day = e.day AND n.id = e.id AND n.revision = 2) THEN 1 ELSE 0 END'
export const STANDING_OFF = `SELECT e.day, e.id, e.revision, e.superseded FROM events AS e WHERE ${NEXT} AND e.superseded <> ${STANDING} ${IN_ORDER}`
export const SET_STANDING = `UPDATE events AS e SET superseded = ${STANDING} WHERE e.day = ? AND e.id = ? AND e.revision = ?`
