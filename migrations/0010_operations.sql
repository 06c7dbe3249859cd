-- What a recovery took a task out of: one that was interrupted by another's fault goes back there. Null
-- where no recovery took it, or none since this migration.
alter table embedding_queue
    add column recovered_from text check (recovered_from in ('pending', 'failed', 'dead_letter'));

-- What this process may not do in the database, as it last heard: told by those who look, since the
-- recordings that wait for it have nothing to say yet.
alter table workers add column database_trouble text;
