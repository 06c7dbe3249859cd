-- What the monitor reads, cheap however long the queue has grown: completed tasks are never scanned.

-- Everything but the completed tasks, with what is counted of them: an index-only scan. A dead letter
-- leaves it as a completed task does, so that it stays as small as what is left to do.
create index embedding_queue_unfinished_idx
    on embedding_queue (status, next_retry_at) include (created_at, dead_letter_permanent)
    where status <> 'completed';
-- What happened lately, newest last.
create index embedding_attempts_ended_idx
    on embedding_attempts (ended_at) include (outcome, part, number, chunks, chunks_reused, tokens)
    where ended_at is not null;

-- Five minutes of history, all replicas together. Written once, a minute after it is over, by the
-- replica that took the tick; it outlives tasks and attempts.
create table history (
    begins_at timestamptz primary key,
    completed bigint not null,
    failed bigint not null,
    dead_lettered bigint not null,
    recovered bigint not null,
    chunks bigint not null,
    tokens bigint not null,
    -- Time that completed attempts took; null where none completed.
    p50_secs double precision,
    p95_secs double precision,
    p99_secs double precision
);

-- What attempts add to history, in buckets of five minutes that begin at `since` or later and end
-- before `until` does. Buckets in which no attempt ended are left out.
create function attempt_history(since timestamptz, until timestamptz)
returns table (begins_at timestamptz, completed bigint, failed bigint, dead_lettered bigint, recovered bigint,
    chunks bigint, tokens bigint, p50_secs float8, p95_secs float8, p99_secs float8)
language sql stable as $$
    select bucket, count(*) filter (where outcome = 'completed'),
           count(*) filter (where outcome in ('retry', 'dead_letter')),
           count(*) filter (where outcome = 'dead_letter' and part = 'main'),
           count(*) filter (where outcome = 'completed' and part = 'recovery'),
           coalesce(sum(a.chunks - coalesce(a.chunks_reused, 0)) filter (where outcome = 'completed'), 0),
           coalesce(sum(a.tokens), 0)::bigint,
           percentile_cont(0.50) within group (order by secs) filter (where outcome = 'completed'),
           percentile_cont(0.95) within group (order by secs) filter (where outcome = 'completed'),
           percentile_cont(0.99) within group (order by secs) filter (where outcome = 'completed')
    from (select *, date_bin('5 minutes', ended_at, 'epoch') as bucket,
                 extract(epoch from ended_at - started_at)::float8 as secs
          from embedding_attempts where ended_at >= since and ended_at < until) a
    group by bucket
$$;

-- When a schedule fires, as the last service that started said: tells the next tick.
alter table schedules add column cron text;
