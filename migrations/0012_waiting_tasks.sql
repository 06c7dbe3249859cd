-- After each claim the claimer looks at which tasks wait: for a retry, or to be tried alone after a crash.
-- Those are few. Without an index of their own the look went through every ready task: 11 ms at each claim
-- with 100,000 of them, and ten times that with a million.
create index embedding_queue_waiting_idx on embedding_queue (coalesce(for_model, ''), next_retry_at)
    where status in ('pending', 'failed') and (crashes > 0 or next_retry_at is not null);
