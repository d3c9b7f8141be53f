-- Times are Unix milliseconds, amounts nano-yuan (or tokens, requests) in 64-bit integers, lists and settings JSON text. Texts are
-- compared byte by byte, as SQLite does: whatever the database's locale, both give the same order.

-- Numbers that this schema gives out without a gap (change_number, ledger_number), or growing (epoch_number), and facts about it:
-- usage_floor, before which there are no minutes.
CREATE TABLE meta (
  name text COLLATE "C" PRIMARY KEY,
  value text NOT NULL
) WITH (fillfactor = 10);
INSERT INTO meta (name, value) VALUES ('change_number', '0'), ('ledger_number', '0'), ('epoch_number', '0'), ('usage_floor', '0');

-- The row stays locked until the transaction ends, so that numbers are taken in the order of commits, and a rollback gives one back.
CREATE FUNCTION next_number(counted text) RETURNS bigint LANGUAGE sql VOLATILE AS
  $$ UPDATE meta SET value = (value::bigint + 1)::text WHERE name = counted RETURNING value::bigint $$;

-- The bucket of a tenant: the first byte of the SHA-256 of its id, fixed for ever.
CREATE FUNCTION bucket_of(tenant text) RETURNS smallint LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
  $$ SELECT get_byte(sha256(convert_to(tenant, 'UTF8')), 0)::smallint $$;

-- The JSON of an event, for reading its members. JSON itself allows a code unit that is no character, and U+0000, as escapes; PostgreSQL
-- can read neither, so they become the replacement character. What is stored stays as it is.
CREATE FUNCTION event_json(body text) RETURNS json LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
  $$ SELECT CASE position('\u' IN body) WHEN 0 THEN body ELSE regexp_replace(body, '\\u(0000|d[89a-f][0-9a-f]{2})', '\\ufffd', 'g') END::json $$;

-- One partition per day; the primary key decides which of two paths posted an event.
CREATE TABLE events (
  day text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  revision smallint NOT NULL,
  superseded smallint NOT NULL DEFAULT 0,
  admitted_at bigint NOT NULL,
  tenant text COLLATE "C" NOT NULL,
  project text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  model text COLLATE "C" NOT NULL,
  endpoint text COLLATE "C" NOT NULL,
  provider text COLLATE "C" NOT NULL,
  status text COLLATE "C" NOT NULL,
  usage_source text COLLATE "C" NOT NULL,
  input bigint NOT NULL,
  cached_input bigint NOT NULL,
  cache_write bigint NOT NULL,
  output bigint NOT NULL,
  reasoning bigint NOT NULL,
  amount_nano bigint NOT NULL,
  cost_nano bigint NOT NULL,
  overrun_nano bigint NOT NULL,
  node text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  end_user text COLLATE "C",
  -- The epoch in which limits have charged it, as far as the outbox has taken account of it; null: in none.
  charged bigint,
  body text COLLATE "C" NOT NULL,
  PRIMARY KEY (day, id, revision)
) PARTITION BY LIST (day);
CREATE INDEX events_by_time ON events (admitted_at, id);
CREATE INDEX events_by_tenant ON events (tenant, admitted_at, id);
-- Requests beyond their hold are few: a list of them reads nothing else.
CREATE INDEX events_overrun ON events (tenant, admitted_at, id) WHERE overrun_nano > 0;

-- Second revisions, and in which epoch limits charged them: a first one that comes after its second is corrected by that.
CREATE TABLE second_revisions (
  day text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  charged bigint,
  early boolean NOT NULL,
  PRIMARY KEY (day, id)
);
CREATE INDEX second_revisions_early ON second_revisions (day, id) WHERE early;
-- Numbers of events whose place another event has, or that are void.
CREATE TABLE superseded_numbers (
  node text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  day text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  revision smallint NOT NULL,
  void boolean NOT NULL,
  -- The epoch that charged it in spite of that, and with what.
  charged bigint,
  parts text,
  PRIMARY KEY (node, seq)
);
CREATE INDEX superseded_numbers_charged ON superseded_numbers (day, id, revision) WHERE charged IS NOT NULL;
-- Events that came for a day whose file was written already: refused by the ledger, named by every audit.
CREATE TABLE late_events (
  day text COLLATE "C" NOT NULL,
  id text COLLATE "C" NOT NULL,
  revision smallint NOT NULL,
  node text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  at bigint NOT NULL,
  body text NOT NULL,
  PRIMARY KEY (day, id, revision)
);

-- Transactions that are no usage are numbered without a gap, and each has the SHA-256 of what it was posted with.
CREATE TABLE ledger_transactions (
  id text COLLATE "C" PRIMARY KEY,
  at bigint NOT NULL,
  kind text COLLATE "C" NOT NULL,
  note text NOT NULL,
  number bigint,
  digest text
);
CREATE INDEX ledger_transactions_by_time ON ledger_transactions (at, id);
CREATE INDEX ledger_transactions_by_kind ON ledger_transactions (kind, at, id);
CREATE UNIQUE INDEX ledger_transactions_by_number ON ledger_transactions (number) WHERE number IS NOT NULL;
CREATE TABLE ledger_entries (
  transaction_id text COLLATE "C" NOT NULL,
  line integer NOT NULL,
  code text COLLATE "C" NOT NULL,
  owner text COLLATE "C" NOT NULL,
  ref text COLLATE "C" NOT NULL,
  unit text COLLATE "C" NOT NULL,
  amount bigint NOT NULL,
  PRIMARY KEY (transaction_id, line)
);
CREATE INDEX ledger_entries_by_owner ON ledger_entries (owner, transaction_id);
-- The running sum of ledger_entries per account, written in the same transaction; the audit compares both. A tenant's accounts are in
-- its bucket; a supplier's have a row per bucket that posted to it, so that buckets never wait for each other. Readers add them up.
CREATE TABLE ledger_balances (
  bucket smallint NOT NULL,
  code text COLLATE "C" NOT NULL,
  owner text COLLATE "C" NOT NULL,
  ref text COLLATE "C" NOT NULL,
  unit text COLLATE "C" NOT NULL,
  amount bigint NOT NULL,
  PRIMARY KEY (bucket, code, owner, ref, unit)
) WITH (fillfactor = 50);

-- What limits must be told, numbered without a gap per tenant. Terms are those of the grant's record; these are for one without.
CREATE TABLE outbox (
  tenant text COLLATE "C" NOT NULL,
  seq bigint NOT NULL,
  grant_id text COLLATE "C" NOT NULL,
  unit text COLLATE "C" NOT NULL,
  delta bigint NOT NULL,
  terms text,
  delivered_at bigint,
  PRIMARY KEY (tenant, seq)
);
CREATE INDEX outbox_waiting ON outbox (tenant, seq) WHERE delivered_at IS NULL;
CREATE INDEX outbox_delivered ON outbox (delivered_at) WHERE delivered_at IS NOT NULL;
CREATE TABLE outbox_numbers (
  tenant text COLLATE "C" PRIMARY KEY,
  bucket smallint NOT NULL,
  last_seq bigint NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX outbox_numbers_by_bucket ON outbox_numbers (bucket);

CREATE TABLE bucket_epochs (
  bucket smallint PRIMARY KEY,
  epoch bigint NOT NULL,
  state text NOT NULL
) WITH (fillfactor = 50);
INSERT INTO bucket_epochs (bucket, epoch, state) SELECT bucket, 0, 'closed' FROM generate_series(0, 255) AS bucket;

CREATE TABLE nodes (
  node text COLLATE "C" PRIMARY KEY,
  roles text NOT NULL,
  version text NOT NULL,
  last_seq bigint NOT NULL,
  unposted bigint NOT NULL,
  stopped boolean NOT NULL,
  beat_at bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE tenants (
  id text COLLATE "C" PRIMARY KEY,
  name text NOT NULL,
  audience text NOT NULL,
  status text NOT NULL,
  locale text NOT NULL,
  time_zone text NOT NULL,
  zones text NOT NULL,
  on_client_abort text NOT NULL,
  on_limits_away text NOT NULL,
  credit_line_nano bigint NOT NULL,
  limits text NOT NULL,
  priority text NOT NULL DEFAULT 'normal',
  queue_weight bigint NOT NULL DEFAULT 1,
  created_at bigint NOT NULL
);
CREATE TABLE projects (
  id text COLLATE "C" PRIMARY KEY,
  tenant text COLLATE "C" NOT NULL,
  name text NOT NULL,
  limits text NOT NULL,
  zones text,
  created_at bigint NOT NULL
);
CREATE INDEX projects_by_tenant ON projects (tenant);
CREATE TABLE keys (
  id text COLLATE "C" PRIMARY KEY,
  tenant text COLLATE "C" NOT NULL,
  project text COLLATE "C" NOT NULL,
  name text NOT NULL,
  hash text COLLATE "C" NOT NULL UNIQUE,
  last4 text NOT NULL,
  scopes text NOT NULL,
  models text,
  zones text,
  limits text NOT NULL,
  expires_at bigint,
  revoked_at bigint,
  created_at bigint NOT NULL
);
CREATE INDEX keys_by_tenant ON keys (tenant);
CREATE TABLE grants (
  id text COLLATE "C" PRIMARY KEY,
  tenant text COLLATE "C" NOT NULL,
  kind text COLLATE "C" NOT NULL,
  unit text COLLATE "C" NOT NULL,
  amount bigint NOT NULL,
  priority bigint NOT NULL,
  -- Catalogue models that it pays for, a JSON list; null pays for all.
  models text,
  weights text,
  expires_at bigint,
  created_at bigint NOT NULL,
  bucket smallint NOT NULL GENERATED ALWAYS AS (bucket_of(tenant)) STORED
);
CREATE INDEX grants_by_tenant ON grants (tenant);
CREATE INDEX grants_by_bucket ON grants (bucket);
CREATE INDEX grants_by_expiry ON grants (expires_at, id) WHERE expires_at IS NOT NULL;
-- Keys of providers' accounts. The secret is sealed, or a reference; empty once the key was removed.
CREATE TABLE provider_keys (
  id text COLLATE "C" PRIMARY KEY,
  provider text NOT NULL,
  name text NOT NULL,
  secret text NOT NULL,
  last4 text,
  weight bigint NOT NULL,
  concurrency bigint,
  requests_per_minute bigint,
  tokens_per_minute bigint,
  status text NOT NULL,
  created_at bigint NOT NULL,
  changed_at bigint NOT NULL
);
CREATE TABLE price_versions (
  id text COLLATE "C" PRIMARY KEY,
  side text NOT NULL,
  subject text NOT NULL,
  effective_from bigint NOT NULL,
  body text NOT NULL,
  created_at bigint NOT NULL
);
CREATE TABLE changes (
  seq bigint PRIMARY KEY DEFAULT next_number('change_number'),
  kind text NOT NULL,
  body text NOT NULL
);

-- Sums of usage, so that a report reads few rows however many requests it is about.
--
-- `at` is the start of the minute, the hour (UTC) or the day (UTC+8), Unix ms. Rows of dimension '' hold all usage (value '');
-- those of 'end_user' what had an end user (value: its hash), those of 'tag:<name>' what had that tag (value: the tag's).
CREATE TABLE usage_minutes (
  tenant text COLLATE "C" NOT NULL,
  at bigint NOT NULL,
  dimension text COLLATE "C" NOT NULL,
  value text COLLATE "C" NOT NULL,
  project text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  model text COLLATE "C" NOT NULL,
  endpoint text COLLATE "C" NOT NULL,
  requests bigint NOT NULL,
  completed bigint NOT NULL,
  input bigint NOT NULL,
  cached_input bigint NOT NULL,
  cache_write bigint NOT NULL,
  output bigint NOT NULL,
  reasoning bigint NOT NULL,
  searches bigint NOT NULL,
  images bigint NOT NULL,
  amount_nano bigint NOT NULL,
  cost_nano bigint NOT NULL,
  overrun_nano bigint NOT NULL,
  PRIMARY KEY (tenant, at, dimension, value, project, key, model, endpoint)
) WITH (fillfactor = 70);
CREATE TABLE usage_hours (
  tenant text COLLATE "C" NOT NULL,
  at bigint NOT NULL,
  dimension text COLLATE "C" NOT NULL,
  value text COLLATE "C" NOT NULL,
  project text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  model text COLLATE "C" NOT NULL,
  endpoint text COLLATE "C" NOT NULL,
  requests bigint NOT NULL,
  completed bigint NOT NULL,
  input bigint NOT NULL,
  cached_input bigint NOT NULL,
  cache_write bigint NOT NULL,
  output bigint NOT NULL,
  reasoning bigint NOT NULL,
  searches bigint NOT NULL,
  images bigint NOT NULL,
  amount_nano bigint NOT NULL,
  cost_nano bigint NOT NULL,
  overrun_nano bigint NOT NULL,
  PRIMARY KEY (tenant, at, dimension, value, project, key, model, endpoint)
);
CREATE TABLE usage_days (
  tenant text COLLATE "C" NOT NULL,
  at bigint NOT NULL,
  dimension text COLLATE "C" NOT NULL,
  value text COLLATE "C" NOT NULL,
  project text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  model text COLLATE "C" NOT NULL,
  endpoint text COLLATE "C" NOT NULL,
  requests bigint NOT NULL,
  completed bigint NOT NULL,
  input bigint NOT NULL,
  cached_input bigint NOT NULL,
  cache_write bigint NOT NULL,
  output bigint NOT NULL,
  reasoning bigint NOT NULL,
  searches bigint NOT NULL,
  images bigint NOT NULL,
  amount_nano bigint NOT NULL,
  cost_nano bigint NOT NULL,
  overrun_nano bigint NOT NULL,
  PRIMARY KEY (tenant, at, dimension, value, project, key, model, endpoint)
);
-- What is not derived yet: hours (from minutes) and days (from hours) of a tenant that were posted to since.
CREATE TABLE usage_stale (
  grain text COLLATE "C" NOT NULL,
  tenant text COLLATE "C" NOT NULL,
  at bigint NOT NULL,
  bucket smallint NOT NULL,
  PRIMARY KEY (grain, tenant, at)
);
CREATE INDEX usage_stale_by_time ON usage_stale (grain, at, tenant);

-- Closed days whose events are kept as files. state: 'written' while the day's partition is still there, 'closed' after.
-- digest: SHA-256 of the uncompressed file; chain: SHA-256 of "previous\nday digest", previous being the chain of the archive before.
CREATE TABLE archives (
  number bigint PRIMARY KEY,
  day text COLLATE "C" NOT NULL UNIQUE,
  state text NOT NULL,
  file text NOT NULL,
  events bigint NOT NULL,
  requests bigint NOT NULL,
  amount_nano bigint NOT NULL,
  cost_nano bigint NOT NULL,
  digest text NOT NULL,
  previous text NOT NULL,
  chain text NOT NULL,
  at bigint NOT NULL,
  bytes bigint
);
-- What a day's events paid with, per tenant and grant, and cost per provider (unit 'cost', ref empty).
CREATE TABLE archive_sums (
  day text COLLATE "C" NOT NULL,
  owner text COLLATE "C" NOT NULL,
  ref text COLLATE "C" NOT NULL,
  unit text COLLATE "C" NOT NULL,
  amount bigint NOT NULL,
  PRIMARY KEY (day, owner, ref, unit)
);
-- Runs of event numbers that a day's file holds.
CREATE TABLE archive_numbers (
  day text COLLATE "C" NOT NULL,
  node text COLLATE "C" NOT NULL,
  first_seq bigint NOT NULL,
  last_seq bigint NOT NULL,
  PRIMARY KEY (day, node, first_seq)
);

-- Secrets that every process must have alike, such as that of the keyed hash of end users: made by the first process that needs them.
CREATE TABLE kept_secrets (
  name text COLLATE "C" PRIMARY KEY,
  value text NOT NULL
);

-- Bodies are long: a faster compression than PostgreSQL's own, where the server has it.
DO $$
BEGIN
  ALTER TABLE events ALTER COLUMN body SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
  NULL;
END
$$;
