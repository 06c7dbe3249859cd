-- Which programs this schema serves. While an upgrade rolls, the old program works beside the new one on
-- the new schema, so a migration only adds: what it takes away, a later release takes away, when no
-- program that needs it runs any more. The migration that does so raises `oldest_version` in the same
-- file, and older programs refuse to start from then on.
create table served_programs (
    -- There is one row.
    one boolean primary key default true check (one),
    -- Version of the oldest program that may work on this schema.
    oldest_version text not null check (oldest_version ~ '^\d+\.\d+\.\d+$')
);
insert into served_programs (oldest_version) values ('0.1.0');
