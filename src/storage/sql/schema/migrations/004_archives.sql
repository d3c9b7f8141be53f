-- Closed days whose events are kept as files. state: 'written' while the day's events are being deleted, 'closed' after.
-- digest: SHA-256 of the uncompressed file; chain: SHA-256 of "previous\nday digest", previous being the chain of the archive before.
CREATE TABLE archives (
  number INTEGER PRIMARY KEY,
  day TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL,
  file TEXT NOT NULL,
  events INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  amount_nano INTEGER NOT NULL,
  cost_nano INTEGER NOT NULL,
  digest TEXT NOT NULL,
  previous TEXT NOT NULL,
  chain TEXT NOT NULL,
  at INTEGER NOT NULL
);
-- What a day's events paid with, per tenant and grant, and cost per provider (unit 'cost', ref empty).
CREATE TABLE archive_sums (
  day TEXT NOT NULL,
  owner TEXT NOT NULL,
  ref TEXT NOT NULL,
  unit TEXT NOT NULL,
  amount INTEGER NOT NULL,
  PRIMARY KEY (day, owner, ref, unit)
) WITHOUT ROWID;
-- Runs of event numbers that a day's file holds.
CREATE TABLE archive_numbers (
  day TEXT NOT NULL,
  node TEXT NOT NULL,
  first_seq INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  PRIMARY KEY (day, node, first_seq)
) WITHOUT ROWID;
-- Events that came for a day whose file was written already: refused by the ledger, named by every audit.
CREATE TABLE late_events (
  day TEXT NOT NULL,
  id TEXT NOT NULL,
  revision INTEGER NOT NULL,
  node TEXT NOT NULL,
  seq INTEGER NOT NULL,
  at INTEGER NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (day, id, revision)
) WITHOUT ROWID;
