-- Cluster mode: what is known of an event's charge. epoch: the one in which limits have charged it, 0 if they never will.
-- appended: its event is in the usage stream. void: another close of the request stands. Rows go when their event is in the ledger.
CREATE TABLE charges (
  id TEXT NOT NULL,
  revision INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  appended INTEGER NOT NULL,
  void INTEGER NOT NULL,
  PRIMARY KEY (id, revision)
) STRICT, WITHOUT ROWID;
