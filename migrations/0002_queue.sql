-- The queue: tasks, the jobs that asked for them, and every attempt.

create table if not exists embedding_jobs (
    id uuid primary key default gen_random_uuid(),
    created_at timestamptz not null default now()
);
alter table embedding_jobs
    add column if not exists created_at timestamptz not null default now(),
    alter column id set default gen_random_uuid(),
    alter column created_at set default now(),
    add column if not exists requested_by text,
    add column if not exists priority integer not null default 0;

create table if not exists embedding_queue (
    id uuid primary key default gen_random_uuid(),
    user_id text not null,
    job_id uuid,
    recording_id bigint not null,
    status text not null default 'pending',
    attempts integer not null default 0,
    max_attempts integer not null default 4,
    last_error text,
    next_retry_at timestamptz,
    locked_at timestamptz,
    worker_id uuid,
    completed_at timestamptz,
    created_at timestamptz not null default now()
);
alter table embedding_queue
    add column if not exists job_id uuid,
    add column if not exists attempts integer not null default 0,
    add column if not exists max_attempts integer not null default 4,
    add column if not exists last_error text,
    add column if not exists next_retry_at timestamptz,
    add column if not exists locked_at timestamptz,
    add column if not exists worker_id uuid,
    add column if not exists completed_at timestamptz,
    add column if not exists created_at timestamptz not null default now(),
    add column if not exists priority integer not null default 0,
    add column if not exists lease_token uuid,
    add column if not exists lease_expires_at timestamptz,
    -- Asked for again while it was being worked on: one more round after this one.
    add column if not exists dirty boolean not null default false,
    add column if not exists releases integer not null default 0,
    -- Workers that died over it, and those of them that worked on nothing else.
    add column if not exists crashes integer not null default 0,
    add column if not exists crashes_alone integer not null default 0,
    add column if not exists claimed_alone boolean not null default false,
    add column if not exists failure_class text,
    add column if not exists failure_fingerprint text,
    add column if not exists dead_letter_reason text,
    add column if not exists dead_letter_permanent boolean not null default false;

-- An adopted queue: a task locked by the old system holds no lease, so it is simply ready again.
update embedding_queue
set status = 'pending', locked_at = null, worker_id = null
where status = 'processing' and lease_token is null;
-- One that has no attempt left is counted anew: a claim could not take it.
update embedding_queue
set attempts = greatest(attempts, 0), max_attempts = greatest(max_attempts, attempts, 1),
    created_at = coalesce(created_at, now()), priority = coalesce(priority, 0);
update embedding_queue set attempts = 0
where attempts is null or (status in ('pending', 'failed') and attempts >= max_attempts);
update embedding_queue set next_retry_at = now() where status = 'failed' and next_retry_at is null;
update embedding_queue set completed_at = now() where status = 'completed' and completed_at is null;
update embedding_queue
set dead_letter_reason = coalesce(last_error, 'dead before this program took over')
where status = 'dead_letter' and dead_letter_reason is null;

-- An adopted queue: what an enqueue leaves to its default has one.
alter table embedding_queue
    alter column id set default gen_random_uuid(),
    alter column status set default 'pending',
    alter column status set not null,
    alter column attempts set default 0,
    alter column attempts set not null,
    alter column max_attempts set default 4,
    alter column max_attempts set not null,
    alter column priority set default 0,
    alter column priority set not null,
    alter column created_at set default now(),
    alter column created_at set not null;
alter table embedding_queue
    -- What a claim orders by: a task gains one priority step for each hour that it waits. Written
    -- as priority minus the hour of its creation it never changes, so that an index can hold it.
    add column if not exists claim_rank bigint not null generated always as
        (priority - floor(extract(epoch from created_at at time zone 'UTC') / 3600)::bigint) stored;

-- A task is in exactly one state, and each state has what it needs (mirrors domain::task).
alter table embedding_queue
    add constraint embedding_queue_state_check
        check (status in ('pending', 'processing', 'completed', 'failed', 'dead_letter')),
    add constraint embedding_queue_lease_check
        check ((status = 'processing') = (lease_token is not null)
           and (lease_token is null) = (lease_expires_at is null)),
    add constraint embedding_queue_retry_check check ((status = 'failed') <= (next_retry_at is not null)),
    add constraint embedding_queue_completed_check
        check ((status = 'completed') <= (completed_at is not null)),
    add constraint embedding_queue_dead_check
        check ((status = 'dead_letter') = (dead_letter_reason is not null)),
    add constraint embedding_queue_attempts_check
        check (attempts >= 0 and attempts <= max_attempts and releases >= 0
           -- Or a claim, which takes one, would fail for all that it takes.
           and (status in ('pending', 'failed')) <= (attempts < max_attempts)
           and crashes >= 0 and crashes_alone between 0 and crashes);

-- One open task a recording: later requests join it, and the plain `skip locked` claim is right.
create unique index embedding_queue_open_key
    on embedding_queue (user_id, recording_id) where status <> 'completed';
-- Not partial: a change of the token is a key update, which waits for a write under the old one; a
-- heartbeat, which moves only the lease's end, does not.
create unique index embedding_queue_lease_token_key on embedding_queue (lease_token);
create index embedding_queue_claim_idx
    on embedding_queue (claim_rank desc, created_at desc) where status in ('pending', 'failed');
create index embedding_queue_leases_idx on embedding_queue (lease_expires_at) where status = 'processing';

create table job_tasks (
    job_id uuid not null references embedding_jobs (id) on delete cascade,
    task_id uuid not null references embedding_queue (id) on delete cascade,
    primary key (job_id, task_id)
);
create index job_tasks_task_idx on job_tasks (task_id);

-- A job's counts are derived, so that they cannot be wrong and no hot row is updated.
create view embedding_job_progress with (security_invoker = true) as
select j.id as job_id, j.created_at, j.requested_by,
       count(t.id) as tasks,
       count(t.id) filter (where t.status = 'completed') as completed,
       count(t.id) filter (where t.status = 'dead_letter') as dead_letter
from embedding_jobs j
left join job_tasks jt on jt.job_id = j.id
left join embedding_queue t on t.id = jt.task_id
group by j.id;

create table embedding_attempts (
    id uuid primary key default gen_random_uuid(),
    task_id uuid not null references embedding_queue (id) on delete cascade,
    user_id text not null,
    recording_id bigint not null,
    worker_id uuid not null,
    number integer not null,
    alone boolean not null default false,
    started_at timestamptz not null default now(),
    ended_at timestamptz,
    -- Null while it runs; written once.
    outcome text check (outcome in ('completed', 'superseded', 'retry', 'dead_letter', 'released')),
    failure_class text,
    message text,
    chunks integer,
    chunks_reused integer,
    tokens bigint,
    trace_id text,
    check ((outcome is null) = (ended_at is null))
);
create index embedding_attempts_task_idx on embedding_attempts (task_id, started_at);
create index embedding_attempts_recording_idx on embedding_attempts (user_id, recording_id, started_at);

-- Scheduled work happens once across replicas: a tick belongs to whoever moves this first.
create table schedules (
    name text primary key,
    last_tick timestamptz not null default '-infinity'
);

create function embedding_queue_notify() returns trigger language plpgsql as $$
begin
    perform pg_notify('embedding_recovery', '');
    return null;
end $$;
create trigger embedding_queue_ready_insert after insert on embedding_queue
    for each row when (new.status = 'pending') execute function embedding_queue_notify();
create trigger embedding_queue_ready_update after update of status on embedding_queue
    for each row when (new.status = 'pending' and old.status <> 'pending')
    execute function embedding_queue_notify();
