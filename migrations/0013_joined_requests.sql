-- Several may ask for the same recording. It stays with whoever asked first; those who ask while it is
-- asked for join him, and each request is done when its recordings are, whoever did them.

alter table embedding_queue
    -- Requests beside `recovery_requested`: emptied with it, so none where it is null.
    add column recovery_joined uuid[] not null default '{}';

create function recovery_request_left() returns trigger language plpgsql as $$
begin
    new.recovery_joined := '{}';
    return new;
end $$;
create trigger embedding_queue_request_left before update of recovery_requested on embedding_queue
    for each row when (old.recovery_requested is not null
                       and new.recovery_requested is distinct from old.recovery_requested)
    execute function recovery_request_left();

-- As before, for all who asked.
create or replace function recovery_request_ended() returns trigger language plpgsql as $$
declare
    asked uuid[] := old.recovery_joined || old.recovery_requested;
begin
    -- In one order, since recordings that end at once may share several requests.
    perform from admin_actions where id = any(asked) order by id for update;
    update admin_actions a
    set ended = a.ended + 1,
        completed = a.completed + case when tg_op = 'UPDATE' and new.status = 'completed' then 1 else 0 end
    where a.id = any(asked) and a.outcome is null;
    update admin_actions a
    set ended_at = clock_timestamp(),
        outcome = case
            when tg_op = 'DELETE' then 'discarded'
            when a.recordings > 1 then format('%s of %s completed', a.completed, a.recordings)
            when new.status = 'completed' then 'completed'
            when new.status = 'dead_letter' and new.recovery_requested is null and old.status = 'processing'
                then format('dead_letter: %s', new.dead_letter_reason)
            -- A program of before takes it over.
            when new.recovery_requested is not null then 'asked for again'
            else format('withdrawn: the recording is %s', new.status)
        end
    where a.id = any(asked) and a.outcome is null and a.ended >= a.recordings;
    return null;
end $$;
