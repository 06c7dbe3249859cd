-- Changes of the sources find the queue by themselves.

-- Everything a chunk is made from, in one digest: tells whether a set still fits its transcript,
-- with or without triggers. Null where the recording does not exist.
create function recording_digest(of_user text, of_recording bigint) returns text
language sql stable as $$
    select md5(coalesce(c.title, '') || E'\x1f' || extract(epoch from c.created_at)::text || E'\x1f' || coalesce((
        select string_agg(
            concat_ws(E'\x1f', t.timestamp, coalesce(t.edited_speaker_name, t.speaker_name, ''),
                      coalesce(t.edited_text, t.text, '')),
            E'\x1e' order by t.id)
        from fathom_transcripts t
        where t.user_id = c.user_id and t.recording_id = c.recording_id and t.is_deleted is not true), ''))
    from fathom_calls c
    where c.user_id = of_user and c.recording_id = of_recording
$$;

-- Opens or joins the tasks of the given recordings, and returns them. `revive` gives dead ones a new
-- life: what failed may be right now. Rows are ordered, so that two of these cannot deadlock.
-- `for_job`, where given, becomes the job that the tasks name as their last.
create function enqueue_recordings(
    users text[], recordings bigint[], with_priority integer, revive boolean, for_job uuid)
returns setof uuid language sql as $$
    insert into embedding_queue as q (user_id, recording_id, priority, job_id)
    select distinct r.user_id, r.recording_id, with_priority, for_job
    from unnest(users, recordings) as r (user_id, recording_id)
    where exists (select from fathom_calls c where c.user_id = r.user_id and c.recording_id = r.recording_id)
    order by 1, 2
    on conflict (user_id, recording_id) where status <> 'completed' do update set
        priority = greatest(q.priority, excluded.priority),
        job_id = case when revive or q.status <> 'dead_letter' then coalesce(for_job, q.job_id) else q.job_id end,
        dirty = q.dirty or q.status = 'processing',
        status = case when revive and q.status = 'dead_letter' then 'pending' else q.status end,
        attempts = case when revive and q.status = 'dead_letter' then 0 else q.attempts end,
        releases = case when revive and q.status = 'dead_letter' then 0 else q.releases end,
        crashes = case when revive and q.status = 'dead_letter' then 0 else q.crashes end,
        crashes_alone = case when revive and q.status = 'dead_letter' then 0 else q.crashes_alone end,
        dead_letter_reason = case when not revive then q.dead_letter_reason end,
        dead_letter_permanent = q.dead_letter_permanent and not revive
    returning id
$$;

-- What of a row of either source table ends in a chunk.
create function embedded_columns(source jsonb) returns jsonb language sql immutable as $$
    select jsonb_object_agg(key, value) from jsonb_each(source)
    where key in ('title', 'created_at', 'id', 'speaker_name', 'edited_speaker_name', 'text', 'edited_text',
                  'timestamp', 'is_deleted')
$$;

-- One function for both tables. An importer that holds back sets embedding_recovery.enqueue = off.
-- It has its owner's rights: who writes transcripts needs none on the queue.
create function recordings_changed() returns trigger language plpgsql
security definer set search_path from current as $$
declare
    users text[];
    recordings bigint[];
begin
    if current_setting('embedding_recovery.enqueue', true) = 'off' then
        return null;
    end if;
    if tg_op = 'DELETE' then
        select array_agg(user_id), array_agg(recording_id) into users, recordings
        from (select distinct user_id, recording_id from old_rows) r;
    elsif tg_op = 'INSERT' then
        select array_agg(user_id), array_agg(recording_id) into users, recordings
        from (select distinct user_id, recording_id from new_rows) r;
    else
        -- An update that leaves what is embedded as it was is no change.
        select array_agg(user_id), array_agg(recording_id) into users, recordings
        from (select user_id, recording_id
              from (select user_id, recording_id, embedded_columns(to_jsonb(o)) from old_rows o
                    except select user_id, recording_id, embedded_columns(to_jsonb(n)) from new_rows n) gone
              union
              select user_id, recording_id
              from (select user_id, recording_id, embedded_columns(to_jsonb(n)) from new_rows n
                    except select user_id, recording_id, embedded_columns(to_jsonb(o)) from old_rows o) come) r;
    end if;
    if users is not null then
        perform enqueue_recordings(users, recordings, 0, true, null);
    end if;
    return null;
end $$;

-- Without the right to create triggers on the sources, the tick finds changes by their digest.
-- There is no trigger for a new call: without a transcript it is nothing to embed yet.
do $$ begin
    create trigger fathom_transcripts_inserted after insert on fathom_transcripts
        referencing new table as new_rows for each statement execute function recordings_changed();
    create trigger fathom_transcripts_updated after update on fathom_transcripts
        referencing old table as old_rows new table as new_rows
        for each statement execute function recordings_changed();
    create trigger fathom_transcripts_deleted after delete on fathom_transcripts
        referencing old table as old_rows for each statement execute function recordings_changed();
    create trigger fathom_calls_updated after update on fathom_calls
        referencing old table as old_rows new table as new_rows
        for each statement execute function recordings_changed();
exception when insufficient_privilege then
    raise notice 'no right to create triggers on the source tables: changes are found at each tick';
end $$;
