-- Times are Unix milliseconds, amounts nano-yuan (or tokens, requests) in 64-bit integers, lists and settings JSON text.

-- Facts about this file: node, posted_seq, open_floor, event_seq.
CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

-- Rows S open, C checkpoint, U event, R released without event. event_seq numbers the U rows without a gap.
CREATE TABLE journal (
  seq INTEGER PRIMARY KEY,
  kind TEXT NOT NULL,
  id TEXT NOT NULL,
  v INTEGER NOT NULL,
  at INTEGER NOT NULL,
  revision INTEGER,
  day TEXT,
  event_seq INTEGER,
  body TEXT NOT NULL
);
CREATE UNIQUE INDEX journal_closed ON journal (id, revision) WHERE kind IN ('U', 'R');

CREATE TABLE events (
  day TEXT NOT NULL,
  id TEXT NOT NULL,
  revision INTEGER NOT NULL,
  superseded INTEGER NOT NULL DEFAULT 0,
  admitted_at INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  project TEXT NOT NULL,
  key TEXT NOT NULL,
  model TEXT NOT NULL,
  endpoint TEXT NOT NULL,
  provider TEXT NOT NULL,
  status TEXT NOT NULL,
  usage_source TEXT NOT NULL,
  input INTEGER NOT NULL,
  cached_input INTEGER NOT NULL,
  cache_write INTEGER NOT NULL,
  output INTEGER NOT NULL,
  reasoning INTEGER NOT NULL,
  amount_nano INTEGER NOT NULL,
  cost_nano INTEGER NOT NULL,
  node TEXT NOT NULL,
  seq INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (day, id, revision)
);
CREATE INDEX events_by_time ON events (admitted_at, id);
CREATE INDEX events_by_tenant ON events (tenant, admitted_at, id);

CREATE TABLE ledger_transactions (
  id TEXT PRIMARY KEY,
  at INTEGER NOT NULL,
  kind TEXT NOT NULL,
  note TEXT NOT NULL
);
CREATE TABLE ledger_entries (
  transaction_id TEXT NOT NULL REFERENCES ledger_transactions (id),
  code TEXT NOT NULL,
  owner TEXT NOT NULL,
  ref TEXT NOT NULL,
  unit TEXT NOT NULL,
  amount INTEGER NOT NULL
);
CREATE INDEX ledger_entries_by_transaction ON ledger_entries (transaction_id);
-- The running sum of ledger_entries per account, written in the same transaction; the audit compares both.
CREATE TABLE ledger_balances (
  code TEXT NOT NULL,
  owner TEXT NOT NULL,
  ref TEXT NOT NULL,
  unit TEXT NOT NULL,
  amount INTEGER NOT NULL,
  PRIMARY KEY (code, owner, ref, unit)
) WITHOUT ROWID;

CREATE TABLE tenants (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  audience TEXT NOT NULL,
  status TEXT NOT NULL,
  locale TEXT NOT NULL,
  time_zone TEXT NOT NULL,
  zones TEXT NOT NULL,
  on_client_abort TEXT NOT NULL,
  on_limits_away TEXT NOT NULL,
  credit_line_nano INTEGER NOT NULL,
  limits TEXT NOT NULL,
  created_at INTEGER NOT NULL
);
CREATE TABLE projects (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  limits TEXT NOT NULL,
  zones TEXT,
  created_at INTEGER NOT NULL
);
CREATE INDEX projects_by_tenant ON projects (tenant);
CREATE TABLE keys (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  project TEXT NOT NULL,
  name TEXT NOT NULL,
  hash TEXT NOT NULL UNIQUE,
  last4 TEXT NOT NULL,
  scopes TEXT NOT NULL,
  models TEXT,
  zones TEXT,
  limits TEXT NOT NULL,
  expires_at INTEGER,
  revoked_at INTEGER,
  created_at INTEGER NOT NULL
);
CREATE INDEX keys_by_tenant ON keys (tenant);
CREATE TABLE grants (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  kind TEXT NOT NULL,
  unit TEXT NOT NULL,
  amount INTEGER NOT NULL,
  priority INTEGER NOT NULL,
  weights TEXT,
  expires_at INTEGER,
  created_at INTEGER NOT NULL
);
CREATE INDEX grants_by_tenant ON grants (tenant);
CREATE TABLE price_versions (
  id TEXT PRIMARY KEY,
  side TEXT NOT NULL,
  subject TEXT NOT NULL,
  effective_from INTEGER NOT NULL,
  body TEXT NOT NULL,
  created_at INTEGER NOT NULL
);
CREATE TABLE changes (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  body TEXT NOT NULL
);
