-- The order of a draft's steps is read from this index alone, so an edit of one step does not read the others.
CREATE INDEX steps_chain ON steps (organization_id, walkthrough_id, next_step_id, id);
DROP INDEX steps_organization;
