-- Where the story of a piece of work is told: W3C's traceparent, `00-<trace id>-<span id>-<flags>`.
create domain traceparent as text check (value ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$');

-- Of the attempt itself: the next one links to it.
alter table embedding_attempts add column traceparent traceparent;
-- Of who last asked for the recording: every attempt links to it.
alter table embedding_queue add column traceparent traceparent;
-- Of who asked for the action.
alter table admin_actions add column traceparent traceparent;
