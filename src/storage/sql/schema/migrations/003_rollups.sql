-- Sums of usage, so that a report reads few rows however many requests it is about.
--
-- `at` is the start of the minute, the hour (UTC) or the day (UTC+8), Unix ms. Rows of dimension '' hold all usage (value '');
-- those of 'end_user' what had an end user (value: its hash), those of 'tag:<name>' what had that tag (value: the tag's).
-- STRICT: a sum that leaves 64 bits is an error and never becomes a float.
CREATE TABLE usage_minutes (
  tenant TEXT NOT NULL,
  at INTEGER NOT NULL,
  dimension TEXT NOT NULL,
  value TEXT NOT NULL,
  project TEXT NOT NULL,
  key TEXT NOT NULL,
  model TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  requests INTEGER NOT NULL,
  completed INTEGER NOT NULL,
  input INTEGER NOT NULL,
  cached_input INTEGER NOT NULL,
  cache_write INTEGER NOT NULL,
  output INTEGER NOT NULL,
  reasoning INTEGER NOT NULL,
  searches INTEGER NOT NULL,
  images INTEGER NOT NULL,
  amount_nano INTEGER NOT NULL,
  cost_nano INTEGER NOT NULL,
  overrun_nano INTEGER NOT NULL,
  PRIMARY KEY (tenant, at, dimension, value, project, key, model, endpoint)
) STRICT, WITHOUT ROWID;
CREATE TABLE usage_hours (
  tenant TEXT NOT NULL,
  at INTEGER NOT NULL,
  dimension TEXT NOT NULL,
  value TEXT NOT NULL,
  project TEXT NOT NULL,
  key TEXT NOT NULL,
  model TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  requests INTEGER NOT NULL,
  completed INTEGER NOT NULL,
  input INTEGER NOT NULL,
  cached_input INTEGER NOT NULL,
  cache_write INTEGER NOT NULL,
  output INTEGER NOT NULL,
  reasoning INTEGER NOT NULL,
  searches INTEGER NOT NULL,
  images INTEGER NOT NULL,
  amount_nano INTEGER NOT NULL,
  cost_nano INTEGER NOT NULL,
  overrun_nano INTEGER NOT NULL,
  PRIMARY KEY (tenant, at, dimension, value, project, key, model, endpoint)
) STRICT, WITHOUT ROWID;
CREATE TABLE usage_days (
  tenant TEXT NOT NULL,
  at INTEGER NOT NULL,
  dimension TEXT NOT NULL,
  value TEXT NOT NULL,
  project TEXT NOT NULL,
  key TEXT NOT NULL,
  model TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  requests INTEGER NOT NULL,
  completed INTEGER NOT NULL,
  input INTEGER NOT NULL,
  cached_input INTEGER NOT NULL,
  cache_write INTEGER NOT NULL,
  output INTEGER NOT NULL,
  reasoning INTEGER NOT NULL,
  searches INTEGER NOT NULL,
  images INTEGER NOT NULL,
  amount_nano INTEGER NOT NULL,
  cost_nano INTEGER NOT NULL,
  overrun_nano INTEGER NOT NULL,
  PRIMARY KEY (tenant, at, dimension, value, project, key, model, endpoint)
) STRICT, WITHOUT ROWID;
-- What is not derived yet: hours (from minutes) and days (from hours) of a tenant that were posted to since.
CREATE TABLE usage_stale (
  grain TEXT NOT NULL,
  tenant TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (grain, tenant, at)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_stale_by_time ON usage_stale (grain, at, tenant);

ALTER TABLE events ADD COLUMN end_user TEXT;
ALTER TABLE events ADD COLUMN overrun_nano INTEGER NOT NULL DEFAULT 0;
UPDATE events SET end_user = json_extract(body, '$.end_user'),
  overrun_nano = CAST(json_extract(body, '$.overrun_nano') AS INTEGER);
-- Requests beyond their hold are few: a list of them reads nothing else.
CREATE INDEX events_overrun ON events (tenant, admitted_at, id) WHERE overrun_nano > 0;
CREATE INDEX ledger_transactions_by_time ON ledger_transactions (at, id);
CREATE INDEX ledger_transactions_by_kind ON ledger_transactions (kind, at, id);
CREATE INDEX ledger_entries_by_owner ON ledger_entries (owner, transaction_id);

-- Every event that is there already. Nothing of it is stale.
INSERT INTO usage_minutes
  SELECT e.tenant, e.admitted_at - e.admitted_at % 60000, d.dimension, d.value, e.project, e.key, e.model, e.endpoint,
    COUNT(*), SUM(e.status = 'completed'), SUM(e.input), SUM(e.cached_input), SUM(e.cache_write), SUM(e.output), SUM(e.reasoning),
    SUM(json_extract(e.body, '$.calls.search')), SUM(json_extract(e.body, '$.calls.image')),
    SUM(e.amount_nano), SUM(e.cost_nano), SUM(e.overrun_nano)
  FROM events AS e JOIN (
    SELECT day, id, revision, '' AS dimension, '' AS value FROM events
    UNION ALL SELECT day, id, revision, 'end_user', end_user FROM events WHERE end_user IS NOT NULL
    UNION ALL SELECT e.day, e.id, e.revision, 'tag:' || t.key, t.value FROM events AS e, json_each(e.body, '$.tags') AS t
  ) AS d ON d.day = e.day AND d.id = e.id AND d.revision = e.revision
  WHERE e.superseded = 0
  GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;
INSERT INTO usage_hours
  SELECT tenant, at - at % 3600000, dimension, value, project, key, model, endpoint,
    SUM(requests), SUM(completed), SUM(input), SUM(cached_input), SUM(cache_write), SUM(output), SUM(reasoning),
    SUM(searches), SUM(images), SUM(amount_nano), SUM(cost_nano), SUM(overrun_nano)
  FROM usage_minutes GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;
INSERT INTO usage_days
  SELECT tenant, at - (at + 28800000) % 86400000, dimension, value, project, key, model, endpoint,
    SUM(requests), SUM(completed), SUM(input), SUM(cached_input), SUM(cache_write), SUM(output), SUM(reasoning),
    SUM(searches), SUM(images), SUM(amount_nano), SUM(cost_nano), SUM(overrun_nano)
  FROM usage_hours GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;
