-- The public page of a server (docs/public-page.md): whether it is served, and whether search engines may index it.
ALTER TABLE servers ADD COLUMN public_page BOOLEAN NOT NULL DEFAULT TRUE;
ALTER TABLE servers ADD COLUMN public_page_indexed BOOLEAN NOT NULL DEFAULT FALSE;
