-- Which process runs a background job, until when. No content: not in backups.
CREATE TABLE job_leases (
    name       TEXT    NOT NULL PRIMARY KEY,
    owner      TEXT    NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
