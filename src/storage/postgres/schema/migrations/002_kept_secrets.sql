-- Secrets that every process must have alike, such as that of the keyed hash of end users: made by the first process that needs them.
CREATE TABLE kept_secrets (
  name text COLLATE "C" PRIMARY KEY,
  value text NOT NULL
);
