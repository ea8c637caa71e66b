-- Minimal tables for walkthroughs and progress: only data required for the responses is written.
CREATE TABLE walkthrough (
    id          text PRIMARY KEY,
    slug        text NOT NULL UNIQUE,
    title       text NOT NULL,
    description text NOT NULL,
    version     integer NOT NULL,
    step_count  integer NOT NULL
);

CREATE TABLE step (
    walkthrough_id         text NOT NULL REFERENCES walkthrough (id),
    position               integer NOT NULL,
    id                     text NOT NULL UNIQUE,
    title                  text NOT NULL,
    section_title          text,
    content                text NOT NULL,
    introduction_for_agent text,
    context_for_agent      text,
    operations_for_agent   text,
    PRIMARY KEY (walkthrough_id, position)
);

-- The current step is the one at position `completed + 1`. Free space on the page keeps most updates on it (HOT).
CREATE TABLE progress (
    tracking_id    text NOT NULL,
    walkthrough_id text NOT NULL REFERENCES walkthrough (id),
    completed      integer NOT NULL,
    started_at     timestamptz NOT NULL,
    completed_at   timestamptz,
    PRIMARY KEY (tracking_id, walkthrough_id)
) WITH (fillfactor = 70);

CREATE TABLE step_completion (
    tracking_id    text NOT NULL,
    walkthrough_id text NOT NULL,
    position       integer NOT NULL,
    completed_at   timestamptz NOT NULL,
    PRIMARY KEY (tracking_id, walkthrough_id, position)
);
