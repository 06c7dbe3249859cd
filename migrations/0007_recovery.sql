-- TEMPORARY: stands in for the recovery part's migration until both are merged.
alter table embedding_queue
    add column recoveries integer not null default 0,
    add column part text not null default 'main',
    add column recovery_requested uuid;
alter table embedding_attempts add column part text not null default 'main';
create table runs (
    id uuid primary key default gen_random_uuid(),
    part text not null,
    cause text not null,
    started_at timestamptz not null default now(),
    ended_at timestamptz,
    taken bigint not null default 0,
    completed bigint not null default 0,
    failed bigint not null default 0,
    stopped_because text
);
create table pauses (
    part text primary key,
    since timestamptz not null default now(),
    by text not null
);
