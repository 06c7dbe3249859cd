//! Databases in every state of health, with ages that stay what they are while a test runs: each is
//! half a minute over a whole number of minutes.

use crate::harness::TestDatabase;

const WORKER: &str = "00000000-0000-4000-8000-000000000001";

/// Something of everything, and all is well.
pub async fn healthy(database: &TestDatabase) {
    database
        .execute(&format!(
            "insert into embedding_models (name, dimensions) values ('test-model', 3);
             set embedding_recovery.enqueue = off;
             insert into fathom_calls (user_id, recording_id, title)
             select 'ann', n, 'Call ' || n from generate_series(1, 80) n;
             insert into fathom_transcripts (user_id, recording_id, text)
             select 'ann', n, case when s = 3 then '  ' else 'words' end
             from generate_series(1, 80) n, generate_series(1, 3) s;
             reset embedding_recovery.enqueue;
             insert into embedding_queue (id, user_id, recording_id, status, attempts, completed_at, created_at)
             select md5('task' || n)::uuid, 'ann', n, 'completed', 1, now(), now() - interval '2 h' from generate_series(1, 40) n;
             insert into embedding_attempts (task_id, user_id, recording_id, worker_id, number, started_at,
                 ended_at, outcome, chunks, chunks_reused, tokens)
             select md5('task' || n)::uuid, 'ann', n, '{WORKER}', case when n % 10 = 0 then 2 else 1 end,
                    ended - interval '5 s', ended, 'completed', 12, 2, 4800
             from generate_series(1, 40) n, lateral (select now() - n * interval '1 min' - interval '30 s' as ended) e;
             insert into embedding_queue (user_id, recording_id, created_at)
             select 'ann', n, now() - interval '2 min 30 s' from generate_series(41, 42) n;
             insert into embedding_queue (user_id, recording_id, created_at)
             values ('ann', 43, now() - interval '20 min 30 s');
             insert into embedding_queue (user_id, recording_id, status, attempts, created_at, locked_at,
                 worker_id, lease_token, lease_expires_at)
             values ('ann', 44, 'processing', 1, now() - interval '1 h', now() - interval '90 s', '{WORKER}',
                 gen_random_uuid(), now() + interval '1 h');
             insert into chunk_sets (id, user_id, recording_id, model, fingerprint, source_digest, chunks_expected)
             values (md5('set')::uuid, 'ann', 44, 'test-model', 'f', 'd', 12);
             insert into transcript_chunks (user_id, recording_id, chunk_index, chunk_text, embedding,
                 embedding_model, chunk_set_id, content_hash)
             select 'ann', 44, n, 'words', '[1,2,3]', 'test-model', md5('set')::uuid, 'h' from generate_series(0, 4) n;
             insert into workers (id, host, version, model, started_at, alive_until, slots, in_flight)
             values ('{WORKER}', 'worker-1', '0.1.0', 'test-model', now() - interval '3 h 30 s',
                 now() + interval '1 h', 10, 1);
             insert into embedding_jobs (id, created_at, requested_by)
             values (md5('job')::uuid, now() - interval '2 h 30 s', 'enqueue');
             insert into job_tasks select md5('job')::uuid, id from embedding_queue where recording_id <= 41;
             insert into schedules values ('reconcile test-model', now(), '*/5 * * * *'), ('history', now(), null)"
        ))
        .await;
}

/// As before, with retries, two dead letters, one brought back, and a pause.
pub async fn warning(database: &TestDatabase) {
    healthy(database).await;
    dead_letters(database, 45, 46).await;
    database
        .execute(&format!(
            "update embedding_queue set dead_letter_permanent = true, next_retry_at = null where recording_id = 46;
             insert into embedding_queue (user_id, recording_id, status, attempts, next_retry_at, created_at)
             values ('ann', 47, 'failed', 1, now() + interval '90 s', now() - interval '1 h'),
                    ('ann', 48, 'failed', 1, now() - interval '90 s', now() - interval '1 h');
             insert into embedding_attempts (task_id, user_id, recording_id, worker_id, number, part,
                 started_at, ended_at, outcome, chunks, tokens)
             select md5('task40')::uuid, 'ann', 40, '{WORKER}', 1, 'recovery', at - interval '10 s', at, outcome, 12, 0
             from (values (now() - interval '5 h', 'retry'), (now() - interval '4 h', 'completed')) a (at, outcome);
             insert into pauses values ('recovery', now() - interval '1 h 10 min 30 s', 'ann')"
        ))
        .await;
}

/// As before, with more dead letters, and nobody who works.
pub async fn critical(database: &TestDatabase) {
    warning(database).await;
    dead_letters(database, 50, 70).await;
    database.execute("update workers set alive_until = now() - interval '1 min'").await;
}

/// Recordings that died three hours ago after four attempts.
pub async fn dead_letters(database: &TestDatabase, first: i64, last: i64) {
    database
        .execute(&format!(
            "insert into embedding_queue (id, user_id, recording_id, status, attempts, dead_letter_reason, last_error,
                 failure_class, failure_fingerprint, created_at, next_retry_at)
             select md5('task' || n)::uuid, 'ann', n, 'dead_letter', 4, 'a statement ran into statement_timeout',
                    'a statement ran into statement_timeout', 'statement_timeout',
                    'statement_timeout: a statement ran into statement_timeout', now() - interval '4 h',
                    now() + interval '2 h 5 min 30 s'
             from generate_series({first}, {last}) n;
             insert into embedding_attempts (task_id, user_id, recording_id, worker_id, number, started_at, ended_at,
                 outcome, failure_class, message, trace_id)
             select md5('task' || n)::uuid, 'ann', n, '{WORKER}', a, at - interval '20 s', at,
                    case a when 4 then 'dead_letter' else 'retry' end, 'statement_timeout',
                    'a statement ran into statement_timeout', 'abc' || a
             from generate_series({first}, {last}) n, generate_series(1, 4) a,
                  lateral (select now() - interval '3 h 10 min' + a * interval '2 min' as at) e"
        ))
        .await;
}
