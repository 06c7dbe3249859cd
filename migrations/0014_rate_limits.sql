-- Until when a worker sends no request, since its provider's rate limit is used up; null where it sends.
-- It claims meanwhile, so this is no trouble: its requests wait.
alter table workers add column provider_paused_until timestamptz;
