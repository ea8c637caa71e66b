-- Deleted walkthroughs stay for a while. In the trash a walkthrough has a slug and a title_key that no other can have, and is
-- archived; `trashed_slug` and `trashed_state` are what it had before.
ALTER TABLE walkthroughs ADD COLUMN deleted_at BIGINT;
ALTER TABLE walkthroughs ADD COLUMN deleted_by TEXT;
ALTER TABLE walkthroughs ADD COLUMN trashed_slug TEXT;
ALTER TABLE walkthroughs ADD COLUMN trashed_state TEXT;
CREATE INDEX walkthroughs_deleted ON walkthroughs (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX walkthroughs_trash ON walkthroughs (organization_id, deleted_at) WHERE deleted_at IS NOT NULL;
