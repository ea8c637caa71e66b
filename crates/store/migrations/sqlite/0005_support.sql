-- Support tickets, and outgoing webhooks (docs/support.md, docs/webhooks.md).

-- The last number that an organisation gave to a ticket: no number is given twice.
CREATE TABLE ticket_numbers (
    organization_id TEXT    NOT NULL PRIMARY KEY REFERENCES organizations (id) ON DELETE CASCADE,
    last            INTEGER NOT NULL
) STRICT;

-- Where the user was is written down as it was then; only the walkthrough itself is referred to. search is what is
-- searched, in lower case.
CREATE TABLE tickets (
    id                TEXT    NOT NULL PRIMARY KEY,
    organization_id   TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    number            INTEGER NOT NULL,
    server_id         TEXT    REFERENCES servers (id) ON DELETE SET NULL,
    end_user_id       TEXT    REFERENCES end_users (id) ON DELETE CASCADE,
    walkthrough_id    TEXT    REFERENCES walkthroughs (id) ON DELETE SET NULL,
    walkthrough_title TEXT,
    version           INTEGER,
    step_id           TEXT,
    step_title        TEXT,
    step_position     INTEGER,
    title             TEXT    NOT NULL,
    problem           TEXT    NOT NULL,
    context           TEXT,
    email             TEXT,
    email_verified    INTEGER NOT NULL,
    status            TEXT    NOT NULL CHECK (status IN ('needs_email', 'pending', 'in_progress', 'resolved', 'closed')),
    priority          TEXT    NOT NULL CHECK (priority IN ('low', 'normal', 'high', 'urgent')),
    assignee_id       TEXT    REFERENCES users (id) ON DELETE SET NULL,
    search            TEXT    NOT NULL,
    revision          INTEGER NOT NULL,
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    resolved_at       INTEGER,
    UNIQUE (organization_id, number)
) STRICT;
CREATE INDEX tickets_organization ON tickets (organization_id, id);
CREATE INDEX tickets_status ON tickets (organization_id, status, id);
CREATE INDEX tickets_server ON tickets (server_id, created_at);
CREATE INDEX tickets_end_user ON tickets (end_user_id, created_at);
CREATE INDEX tickets_walkthrough ON tickets (walkthrough_id);
CREATE INDEX tickets_assignee ON tickets (assignee_id);

CREATE TABLE ticket_comments (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    ticket_id       TEXT    NOT NULL REFERENCES tickets (id) ON DELETE CASCADE,
    author          TEXT    NOT NULL,
    body            TEXT    NOT NULL,
    internal        INTEGER NOT NULL,
    mailed_to       TEXT,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX ticket_comments_ticket ON ticket_comments (ticket_id, id);
CREATE INDEX ticket_comments_organization ON ticket_comments (organization_id);

-- What stood in a comment before it was changed.
CREATE TABLE ticket_comment_edits (
    comment_id TEXT    NOT NULL REFERENCES ticket_comments (id) ON DELETE CASCADE,
    number     INTEGER NOT NULL,
    body       TEXT    NOT NULL,
    edited_by  TEXT    NOT NULL,
    edited_at  INTEGER NOT NULL,
    PRIMARY KEY (comment_id, number)
) STRICT;

-- Receivers of webhooks. The secrets are sealed; events is a list in JSON.
CREATE TABLE webhooks (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    url             TEXT    NOT NULL,
    description     TEXT    NOT NULL,
    secret          TEXT    NOT NULL,
    previous_secret TEXT,
    previous_until  INTEGER,
    events          TEXT    NOT NULL,
    enabled         INTEGER NOT NULL,
    failing_since   INTEGER,
    disabled_at     INTEGER,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX webhooks_organization ON webhooks (organization_id, id);

-- Messages to them: next_attempt_at is there as long as there is another attempt. They go with the person of whom they
-- tell.
CREATE TABLE webhook_deliveries (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    webhook_id      TEXT    NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    end_user_id     TEXT    REFERENCES end_users (id) ON DELETE CASCADE,
    event           TEXT    NOT NULL,
    payload         TEXT    NOT NULL,
    status          TEXT    NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'delivered', 'failed')),
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER,
    last_attempt_at INTEGER,
    response_status INTEGER,
    response_body   TEXT,
    error           TEXT,
    duration_ms     INTEGER,
    created_at      INTEGER NOT NULL,
    delivered_at    INTEGER
) STRICT;
CREATE INDEX webhook_deliveries_webhook ON webhook_deliveries (webhook_id, id);
CREATE INDEX webhook_deliveries_organization ON webhook_deliveries (organization_id);
CREATE INDEX webhook_deliveries_end_user ON webhook_deliveries (end_user_id);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_at);
CREATE INDEX webhook_deliveries_age ON webhook_deliveries (created_at);
