-- A change of the model without downtime: chunk sets of the next model are built beside those of the
-- current one, which search stays on, until one transaction swaps the two.

alter table embedding_models
    add column state text not null default 'current' check (state in ('current', 'next', 'retired')),
    add column state_since timestamptz not null default now(),
    -- As the provider knows it, where the stored name is another: one model in two lengths.
    add column provider_name text,
    -- Null in a retired model: its re-embedding was cancelled before it ever was the current one.
    add column replaced_by text references embedding_models (name);
create unique index embedding_models_current_key on embedding_models (state) where state = 'current';
create unique index embedding_models_next_key on embedding_models (state) where state = 'next';
create unique index embedding_models_provider_key
    on embedding_models (coalesce(provider_name, name), dimensions);
-- Whoever reads the view reads this table now; there is nothing to hide in it.
grant select on embedding_models to public;

-- Null: the task is for the current model, whichever that is when it is worked on.
alter table embedding_queue add column for_model text references embedding_models (name);
drop index embedding_queue_open_key;
create unique index embedding_queue_open_key
    on embedding_queue (user_id, recording_id, for_model) nulls not distinct where status <> 'completed';
drop index embedding_queue_claim_idx;
create index embedding_queue_claim_idx
    on embedding_queue (coalesce(for_model, ''), claim_rank desc, created_at desc)
    where status in ('pending', 'failed');
create index embedding_queue_for_model_idx on embedding_queue (for_model) where for_model is not null;
-- Finds what a retired model leaves behind.
create index chunk_sets_live_idx on chunk_sets (model) where state <> 'dead';

-- All recordings change over in the moment in which the states of the two models do.
create or replace view searchable_chunks with (security_invoker = true) as
select c.id, c.user_id, c.recording_id, c.chunk_index, c.chunk_text, c.speakers,
       c.timestamp_start, c.timestamp_end, c.call_title, c.call_date,
       c.embedding, c.embedding_model, c.search_text, c.chunk_set_id
from transcript_chunks c
join chunk_sets s on s.id = c.chunk_set_id and s.state = 'current'
    and s.model = (select m.name from embedding_models m where m.state = 'current');

-- What a task's `for_model` is for a model of this name: '' stands for the null of the current one.
-- Null, which equals nothing, for a model that is retired or unknown: nobody works for it.
create function tasks_of_model(model_name text) returns text language sql stable as $$
    select case state when 'current' then '' when 'next' then name end
    from embedding_models where name = model_name
$$;

-- Opens or joins tasks, as enqueue_recordings does, for the current model (`for_current`), for one
-- named model, or for both; where it names none, the next model counts, if there is one. The models
-- are read in the statement that writes, hence behind its lock: the swap cannot come between.
create function open_tasks(users text[], recordings bigint[], for_current boolean, only_model text,
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
        dead_letter_reason = case when not revive then q.dead_letter_reason end,
        dead_letter_permanent = q.dead_letter_permanent and not revive
    returning q.id, q.for_model
$$;

-- As before, and for the next model too while there is one: an edit must reach both. Returns the
-- tasks of the current model: those are what a job counts.
create or replace function enqueue_recordings(
    users text[], recordings bigint[], with_priority integer, revive boolean, for_job uuid)
returns setof uuid language sql as $$
    select task_id from open_tasks(users, recordings, true, null, with_priority, revive, for_job)
    where of_model is null
$$;

-- Recordings that search would lose by the swap, or would see with an older transcript than now. One
-- whose transcript is gone has nothing to be lost.
create view reembedding_missing with (security_invoker = true) as
with unfit as materialized (
    select o.user_id, o.recording_id
    from embedding_models c
    join chunk_sets o on o.model = c.name and o.state = 'current'
    where c.state = 'current' and exists (select from embedding_models where state = 'next')
      and not exists (
        select from chunk_sets n
        where n.user_id = o.user_id and n.recording_id = o.recording_id and n.state = 'current'
          and n.model = (select name from embedding_models where state = 'next')
          and (n.source_digest = o.source_digest
               or n.source_digest = recording_digest(n.user_id, n.recording_id)))
)
select u.user_id, u.recording_id from unfit u
where exists (select from fathom_transcripts t
              where t.user_id = u.user_id and t.recording_id = u.recording_id);
