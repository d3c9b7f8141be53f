-- What a tenant shows at /filings (its own number, the name of its page), and whether answers say that they were generated.
ALTER TABLE tenants ADD COLUMN registration_number TEXT;
ALTER TABLE tenants ADD COLUMN public_slug TEXT;
ALTER TABLE tenants ADD COLUMN label TEXT NOT NULL DEFAULT 'none';
ALTER TABLE tenants ADD COLUMN label_text TEXT;
ALTER TABLE tenants ADD COLUMN label_place TEXT NOT NULL DEFAULT 'start';
CREATE UNIQUE INDEX tenants_by_public_slug ON tenants (public_slug) WHERE public_slug IS NOT NULL;
