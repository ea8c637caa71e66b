-- Approvals that an admin has given for what a new server lists at its first check. The check deletes the row. requested_by
-- is the admin; check_at and attempts are for the job that checks servers in containers.
CREATE TABLE initial_approvals (
    instance_id     TEXT    NOT NULL PRIMARY KEY REFERENCES instances (id) ON DELETE CASCADE,
    organization_id TEXT    NOT NULL REFERENCES organizations (id) ON DELETE CASCADE,
    class           TEXT    NOT NULL,
    requested_by    TEXT    NOT NULL,
    attempts        BIGINT  NOT NULL,
    check_at        BIGINT  NOT NULL,
    created_at      BIGINT  NOT NULL,
    expires_at      BIGINT  NOT NULL
);
CREATE INDEX initial_approvals_organization ON initial_approvals (organization_id);
CREATE INDEX initial_approvals_check ON initial_approvals (check_at);
CREATE INDEX initial_approvals_expires ON initial_approvals (expires_at);
