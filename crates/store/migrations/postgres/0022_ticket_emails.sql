-- Limits of tickets, digests for teams, and the emails that wait to be sent (docs/support.md, docs/security.md).

-- The network that a ticket was opened from, as a keyed hash; NULL for tickets from before, and of users with a token.
ALTER TABLE tickets ADD COLUMN client TEXT;
CREATE INDEX tickets_client ON tickets (client, created_at);

-- New tickets that the team was not told about yet.
CREATE TABLE ticket_notices (
    ticket_id       TEXT NOT NULL PRIMARY KEY REFERENCES tickets (id) ON DELETE CASCADE,
    organization_id TEXT NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    server_id       TEXT NOT NULL REFERENCES servers (id) ON DELETE CASCADE
);
CREATE INDEX ticket_notices_organization ON ticket_notices (organization_id);
CREATE INDEX ticket_notices_server ON ticket_notices (server_id);

-- When the team was last told about new tickets of a server, and when it is to be told again; NULL if there is nothing new.
CREATE TABLE ticket_digests (
    server_id       TEXT    NOT NULL PRIMARY KEY REFERENCES servers (id) ON DELETE CASCADE,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    last_at         BIGINT  NOT NULL,
    due_at          BIGINT 
);
CREATE INDEX ticket_digests_organization ON ticket_digests (organization_id);
CREATE INDEX ticket_digests_due ON ticket_digests (due_at);

-- Emails about tickets, until they are sent. One about a single ticket goes with it, and an answer with its comment.
-- These references are optional, so they are checked at the end of the transaction: a backup is restored in any order.
CREATE TABLE emails (
    id              TEXT    NOT NULL PRIMARY KEY,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    ticket_id       TEXT    REFERENCES tickets (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    comment_id      TEXT    REFERENCES ticket_comments (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    recipient       TEXT    NOT NULL,
    subject         TEXT    NOT NULL,
    body            TEXT    NOT NULL,
    attempts        BIGINT NOT NULL DEFAULT 0,
    next_attempt_at BIGINT NOT NULL,
    created_at      BIGINT NOT NULL
);
CREATE INDEX emails_organization ON emails (organization_id);
CREATE INDEX emails_ticket ON emails (ticket_id);
CREATE INDEX emails_comment ON emails (comment_id);
CREATE INDEX emails_due ON emails (next_attempt_at);
