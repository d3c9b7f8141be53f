-- Which grants have expired, for the worker that lets their unused rest lapse.
CREATE INDEX grants_by_expiry ON grants (expires_at, id) WHERE expires_at IS NOT NULL;
