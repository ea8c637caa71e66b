-- The history of the steps of drafts: a row for each revision, written in the transaction of the edit. `superseded_at` is
-- NULL for the revision that stands in the draft. A deletion is a revision, too: it holds what was deleted.
CREATE TABLE step_revisions (
    step_id                TEXT    NOT NULL,
    number                 INTEGER NOT NULL,
    organization_id        TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    walkthrough_id         TEXT    NOT NULL REFERENCES walkthroughs (id) ON DELETE CASCADE,
    act                    TEXT    NOT NULL,
    actor                  TEXT    NOT NULL,
    restored_from          INTEGER,
    after_step_id          TEXT,
    ordinal                INTEGER NOT NULL,
    bytes                  INTEGER NOT NULL,
    created_at             INTEGER NOT NULL,
    updated_at             INTEGER NOT NULL,
    superseded_at          INTEGER,
    key                    TEXT,
    title                  TEXT    NOT NULL,
    section_title          TEXT,
    content                TEXT    NOT NULL,
    introduction_for_agent TEXT,
    context_for_agent      TEXT,
    operations_for_agent   TEXT,
    metadata               TEXT    NOT NULL,
    PRIMARY KEY (step_id, number)
) STRICT;
CREATE INDEX step_revisions_organization ON step_revisions (organization_id);
CREATE INDEX step_revisions_walkthrough ON step_revisions (walkthrough_id, act, created_at);
CREATE INDEX step_revisions_superseded ON step_revisions (superseded_at);

-- Which entry of the audit log stands for the edits that a person is making to a step (or to a walkthrough's own fields).
CREATE TABLE editing_sessions (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    walkthrough_id  TEXT    NOT NULL REFERENCES walkthroughs (id) ON DELETE CASCADE,
    audit_event_id  TEXT    NOT NULL,
    edits           INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX editing_sessions_organization ON editing_sessions (organization_id);
CREATE INDEX editing_sessions_walkthrough ON editing_sessions (walkthrough_id);
CREATE INDEX editing_sessions_expires ON editing_sessions (expires_at);
