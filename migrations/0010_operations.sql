-- What a recovery took a task out of: one that was interrupted by another's fault goes back there. Null
-- where no recovery took it, or none since this migration.
alter table embedding_queue
    add column recovered_from text check (recovered_from in ('pending', 'failed', 'dead_letter'));
