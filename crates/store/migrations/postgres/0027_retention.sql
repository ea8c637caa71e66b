-- Rows of the log of a server before these times may have been deleted by retention: analytics has them in segments.
ALTER TABLE analytics_rollups ADD COLUMN events_from BIGINT NOT NULL DEFAULT 0;
ALTER TABLE analytics_rollups ADD COLUMN calls_from BIGINT NOT NULL DEFAULT 0;
