-- Dead letters come back: when each is tried again, who asked for what, which runs there were, and which
-- part is paused. Everything that decides stands in the database, so that a command, a page and a
-- schedule of any replica get the same answer.

-- Every action of an administrator: also one that was refused, with the refusal as its outcome.
create table admin_actions (
    id uuid primary key default gen_random_uuid(),
    requested_at timestamptz not null default clock_timestamp(),
    requested_by text not null,
    action text not null check (action in ('recover', 'recover_many', 'run', 'pause', 'resume', 'discard')),
    user_id text,
    recording_id bigint,
    -- What was asked for beside, and, of a discarded dead letter, its row.
    detail jsonb not null default '{}',
    -- Recordings that it was done for, and how many of them became complete.
    recordings integer not null default 0,
    completed integer not null default 0,
    ended integer not null default 0,
    -- Null while it is under way.
    outcome text,
    ended_at timestamptz,
    check ((outcome is null) = (ended_at is null)),
    check (completed between 0 and ended and ended <= recordings)
);
create index admin_actions_requested_idx on admin_actions (requested_at);
create index admin_actions_discarded_idx on admin_actions (user_id, recording_id) where action = 'discard';

-- Runs of a part: who began it and why, and what came of it. One that waits for a process to take it up
-- has no start yet.
create table runs (
    id uuid primary key default gen_random_uuid(),
    part text not null check (part in ('main', 'recovery')),
    cause text not null check (cause in ('schedule', 'due', 'request', 'run')),
    action_id uuid references admin_actions (id) on delete set null,
    requested_at timestamptz not null default clock_timestamp(),
    worker_id uuid,
    started_at timestamptz,
    ended_at timestamptz,
    taken integer not null default 0,
    completed integer not null default 0,
    failed integer not null default 0,
    -- Why it ended before everything was done. Null where nothing stood in its way.
    stopped_because text,
    check ((ended_at is null) or (started_at is not null)),
    check (completed + failed <= taken)
);
create index runs_waiting_idx on runs (part, requested_at) where started_at is null;
create index runs_open_idx on runs (started_at) where ended_at is null;
create index runs_started_idx on runs (started_at);

create table pauses (
    part text primary key check (part in ('main', 'recovery')),
    since timestamptz not null default clock_timestamp(),
    by text not null
);

alter table embedding_queue
    -- Failed recoveries in a row; each doubles the wait for the next.
    add column recoveries integer not null default 0,
    -- Who claimed it last: decides how its attempt is settled, and by whom its lease may be given back.
    add column part text not null default 'main',
    -- An administrator asked for it: it is recovered at once, and by nobody else.
    add column recovery_requested uuid references admin_actions (id) on delete set null,
    -- Embedded anew although it was complete: the request that names the new chunk set.
    add column afresh uuid,
    add constraint embedding_queue_recovery_check
        check (recoveries >= 0 and part in ('main', 'recovery')
           -- A permanent dead letter waits for a person.
           and not (status = 'dead_letter' and dead_letter_permanent and next_retry_at is not null));
-- `next_retry_at` of a dead letter is when it may be recovered: those of before are due.
update embedding_queue set next_retry_at = clock_timestamp()
where status = 'dead_letter' and not dead_letter_permanent and next_retry_at is null;
-- An adopted one has no fingerprint: without, it could be recovered with no other of its cause.
update embedding_queue
set failure_fingerprint = 'adopted: ' || regexp_replace(dead_letter_reason, '[0-9]+', '#', 'g')
where status = 'dead_letter' and failure_fingerprint is null;
create index embedding_queue_dead_idx on embedding_queue (coalesce(for_model, ''), created_at)
    where status = 'dead_letter';
create index embedding_queue_requested_idx on embedding_queue (recovery_requested)
    where recovery_requested is not null;

alter table embedding_attempts
    add column part text not null default 'main' check (part in ('main', 'recovery'));

create function is_paused(of_part text) returns boolean language sql stable as $$
    select exists (select from pauses where part = of_part)
$$;

-- Once an hour is enough for whoever does not insist.
create function tried_recently(of_task uuid) returns boolean language sql stable as $$
    select exists (select from embedding_attempts
                   where task_id = of_task and started_at > clock_timestamp() - interval '1 hour')
$$;

-- A request ends with the last of its recordings, whichever statement ended that.
create function recovery_request_ended() returns trigger language plpgsql as $$
begin
    update admin_actions a
    set ended = a.ended + 1,
        completed = a.completed + case when tg_op = 'UPDATE' and new.status = 'completed' then 1 else 0 end
    where a.id = old.recovery_requested and a.outcome is null;
    update admin_actions a
    set ended_at = clock_timestamp(),
        outcome = case
            when tg_op = 'DELETE' then 'discarded'
            when a.recordings > 1 then format('%s of %s completed', a.completed, a.recordings)
            when new.status = 'completed' then 'completed'
            when new.status = 'dead_letter' and new.recovery_requested is null and old.status = 'processing'
                then format('dead_letter: %s', new.dead_letter_reason)
            when new.recovery_requested is not null then 'asked for again'
            else format('withdrawn: the recording is %s', new.status)
        end
    where a.id = old.recovery_requested and a.outcome is null and a.ended >= a.recordings;
    return null;
end $$;
create trigger embedding_queue_request_ended after update of recovery_requested on embedding_queue
    for each row when (old.recovery_requested is not null
                       and new.recovery_requested is distinct from old.recovery_requested)
    execute function recovery_request_ended();
create trigger embedding_queue_request_deleted after delete on embedding_queue
    for each row when (old.recovery_requested is not null) execute function recovery_request_ended();

-- As before; what is revived forgets its recoveries too.
create or replace function open_tasks(users text[], recordings bigint[], for_current boolean, only_model text,
    with_priority integer, revive boolean, for_job uuid)
returns table (task_id uuid, of_model text) language sql as $$
    insert into embedding_queue as q (user_id, recording_id, for_model, priority, job_id)
    select distinct r.user_id, r.recording_id, m.for_model, with_priority,
           case when m.for_model is null then for_job end
    from unnest(users, recordings) as r (user_id, recording_id),
         (select null::text as for_model where for_current
          union all
          select name from embedding_models
          where state = 'next' and (only_model is null or name = only_model)) as m
    where exists (select from fathom_calls c where c.user_id = r.user_id and c.recording_id = r.recording_id)
    order by 1, 2, 3
    on conflict (user_id, recording_id, for_model) where status <> 'completed' do update set
        priority = greatest(q.priority, excluded.priority),
        job_id = case when revive or q.status <> 'dead_letter' then coalesce(excluded.job_id, q.job_id) else q.job_id end,
        dirty = q.dirty or q.status = 'processing',
        status = case when revive and q.status = 'dead_letter' then 'pending' else q.status end,
        attempts = case when revive and q.status = 'dead_letter' then 0 else q.attempts end,
        releases = case when revive and q.status = 'dead_letter' then 0 else q.releases end,
        crashes = case when revive and q.status = 'dead_letter' then 0 else q.crashes end,
        crashes_alone = case when revive and q.status = 'dead_letter' then 0 else q.crashes_alone end,
        next_retry_at = case when revive and q.status = 'dead_letter' then null else q.next_retry_at end,
        recoveries = case when revive and q.status = 'dead_letter' then 0 else q.recoveries end,
        part = case when revive and q.status = 'dead_letter' then 'main' else q.part end,
        recovery_requested = case when revive and q.status = 'dead_letter' then null else q.recovery_requested end,
        dead_letter_reason = case when not revive then q.dead_letter_reason end,
        dead_letter_permanent = q.dead_letter_permanent and not revive
    returning q.id, q.for_model
$$;
