-- The class in which a tenant's requests wait where upstreams have no room (high, normal, low), and its parts of what that class is served.
ALTER TABLE tenants ADD COLUMN priority TEXT NOT NULL DEFAULT 'normal';
ALTER TABLE tenants ADD COLUMN queue_weight INTEGER NOT NULL DEFAULT 1;

-- Keys of providers' accounts that were entered through the API. `secret` is sealed, or a reference such as ${NAME}; empty once the key was removed.
CREATE TABLE provider_keys (
  id TEXT PRIMARY KEY,
  provider TEXT NOT NULL,
  name TEXT NOT NULL,
  secret TEXT NOT NULL,
  last4 TEXT,
  weight INTEGER NOT NULL,
  concurrency INTEGER,
  requests_per_minute INTEGER,
  tokens_per_minute INTEGER,
  status TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  changed_at INTEGER NOT NULL
);
