-- Transactions that are no usage are numbered without a gap, and each has the SHA-256 of what it was posted with: nothing else could
-- show that one was deleted or changed. Those from before get theirs at the next start. meta ledger_number: the last number given.
-- Usage needs none: its entries are compared with events.
ALTER TABLE ledger_transactions ADD COLUMN number INTEGER;
ALTER TABLE ledger_transactions ADD COLUMN digest TEXT;
CREATE UNIQUE INDEX ledger_transactions_by_number ON ledger_transactions (number) WHERE number IS NOT NULL;
-- Size of the compressed file; null for files from before.
ALTER TABLE archives ADD COLUMN bytes INTEGER;
