-- What keeps claims and looks quick in a queue of millions: whoever looks for something finds it in an
-- index that holds little else.

-- Whether a suspect waits, and which is the first: asked after each claim. embedding_queue_waiting_idx
-- finds at once when the next retry is due, but goes through all retries to say that no suspect waits: most
-- of a second with half a million of them.
create index embedding_queue_suspects_idx
    on embedding_queue (coalesce(for_model, ''), claim_rank desc, created_at desc)
    where status in ('pending', 'failed') and crashes > 0;
-- Dead letters that may be recovered, by when: asked at each notification.
create index embedding_queue_recoverable_idx
    on embedding_queue (coalesce(for_model, ''), part, (coalesce(next_retry_at, '-infinity')))
    where status = 'dead_letter' and not dead_letter_permanent;
-- The oldest completed tasks, for whoever does not keep them for ever.
create index embedding_queue_completed_idx on embedding_queue (completed_at) where status = 'completed';

-- The standing settings wait until a fifth of the rows changed: millions of dead versions that every
-- claim walks over, and an estimate of the completed tasks that is as far off.
alter table embedding_queue set (
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.02,
    autovacuum_analyze_scale_factor = 0.01);
-- The last day of attempts is read from an index alone, which works for pages that were vacuumed.
alter table embedding_attempts set (
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_insert_scale_factor = 0.005,
    autovacuum_analyze_scale_factor = 0.01);
