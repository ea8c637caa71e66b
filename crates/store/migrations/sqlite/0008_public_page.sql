-- The public page of a server (docs/public-page.md): whether it is served, and whether search engines may index it.
ALTER TABLE servers ADD COLUMN public_page INTEGER NOT NULL DEFAULT 1;
ALTER TABLE servers ADD COLUMN public_page_indexed INTEGER NOT NULL DEFAULT 0;
