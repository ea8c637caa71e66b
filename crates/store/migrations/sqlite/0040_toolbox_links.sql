-- The newest claim of a link replaces the previous one, so links need no number.
ALTER TABLE toolbox_links DROP COLUMN link;
