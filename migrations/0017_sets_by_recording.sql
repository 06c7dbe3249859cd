-- The sets of one recording, whatever their state: looked for at the beginning and at the end of every
-- attempt, for a chunk whose vector is reused, and when a call is deleted. The unique indexes hold one
-- state each, so all this went through the sets of every recording.
create index chunk_sets_recording_idx on chunk_sets (user_id, recording_id, model);
