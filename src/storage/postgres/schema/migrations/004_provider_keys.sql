-- The class in which a tenant's requests wait where upstreams have no room (high, normal, low), and its parts of what that class is served.
ALTER TABLE tenants ADD COLUMN priority text NOT NULL DEFAULT 'normal';
ALTER TABLE tenants ADD COLUMN queue_weight bigint NOT NULL DEFAULT 1;

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
