-- Emails about tickets have an HTML part, and a reply goes to a person. NULL for emails that were enqueued before.
ALTER TABLE emails ADD COLUMN html TEXT;
ALTER TABLE emails ADD COLUMN reply_to TEXT;
