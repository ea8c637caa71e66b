-- The revision of the draft that the newest version was made of: another one means that there are unpublished changes. For
-- what was published before this column was here the times tell; where they do not, publishing puts it right.
ALTER TABLE walkthroughs ADD COLUMN published_revision INTEGER;
UPDATE walkthroughs SET published_revision = revision
    WHERE current_version_id IS NOT NULL
      AND updated_at <= (SELECT versions.created_at + 20 FROM versions WHERE versions.id = walkthroughs.current_version_id);
CREATE INDEX walkthroughs_updated ON walkthroughs (organization_id, updated_at, id);
CREATE INDEX walkthroughs_created ON walkthroughs (organization_id, created_at, id);

-- Steps that were taken out of a draft, so that an author can take that back: under the same id, with the same ordinal, and
-- so with everybody's completions.
CREATE TABLE removed_steps (
    step_id         TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    walkthrough_id  TEXT    NOT NULL REFERENCES walkthroughs (id) ON DELETE CASCADE,
    ordinal         INTEGER NOT NULL
) STRICT;
CREATE INDEX removed_steps_organization ON removed_steps (organization_id);
CREATE INDEX removed_steps_walkthrough ON removed_steps (walkthrough_id);
