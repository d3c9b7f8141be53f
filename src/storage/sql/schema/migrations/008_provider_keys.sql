-- The class in which a tenant's requests wait where upstreams have no room (high, normal, low), and its parts of what that class is served.
ALTER TABLE tenants ADD COLUMN priority TEXT NOT NULL DEFAULT 'normal';
ALTER TABLE tenants ADD COLUMN queue_weight INTEGER NOT NULL DEFAULT 1;
