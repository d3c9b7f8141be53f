-- What a tenant shows at /filings (its own number, the name of its page), and whether answers say that they were generated.
-- Defaults, because the release before this one writes rows without them while an upgrade goes on.
ALTER TABLE tenants ADD COLUMN registration_number text;
ALTER TABLE tenants ADD COLUMN public_slug text COLLATE "C" UNIQUE;
ALTER TABLE tenants ADD COLUMN label text NOT NULL DEFAULT 'none';
ALTER TABLE tenants ADD COLUMN label_text text;
ALTER TABLE tenants ADD COLUMN label_place text NOT NULL DEFAULT 'start';
