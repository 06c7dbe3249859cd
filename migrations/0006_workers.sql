-- Who works on the queue. A process renews its row with its leases; one whose time is over is dead. What
-- a process knows of its provider stands here too, so that one look at the database tells of all.
create table workers (
    id uuid primary key,
    host text not null,
    version text not null,
    model text not null,
    started_at timestamptz not null default now(),
    alive_until timestamptz not null,
    -- Recordings that it may work on at once, and works on.
    slots integer not null,
    in_flight integer not null default 0,
    -- Why it claims nothing and until when: its provider's fault. Both null where it claims.
    provider_trouble text,
    provider_asked_at timestamptz,
    check ((provider_trouble is null) = (provider_asked_at is null))
);
create index workers_alive_idx on workers (alive_until);
