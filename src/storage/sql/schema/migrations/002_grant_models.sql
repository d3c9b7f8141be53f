-- Catalogue models that a grant pays for, a JSON list; null pays for all.
ALTER TABLE grants ADD COLUMN models TEXT;
