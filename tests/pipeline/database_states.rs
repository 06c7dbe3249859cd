//! What a real server says while it is full, read-only, without a connection to spare, refuses the login, or
//! forbids what the program does: nothing is claimed and nothing counted, and all goes on where it stopped.

use embedding_recovery::postgres::PgStore;

use super::scene::Scene;
use crate::fakes::store::FaultyStore;
use crate::harness::calls::call;

/// A state of the server, and what brings it about and ends it. `{role}` is the program's role.
struct State {
    name: &'static str,
    begin: &'static str,
    end: &'static str,
}

/// Each closes the connections that there are, as a failover or an administrator does.
const STATES: [State; 6] = [
    State {
        name: "53100, disk full",
        begin: "create function full_disk() returns trigger language plpgsql as $$ begin
                    if current_user = '{role}' then
                        raise 'could not extend file: No space left on device' using errcode = '53100';
                    end if;
                    return null;
                end $$;
                create trigger full_disk before insert or update on transcript_chunks
                    for each statement execute function full_disk();
                create trigger full_disk before insert or update on embedding_queue
                    for each statement execute function full_disk();
                create trigger full_disk before insert or update on workers
                    for each statement execute function full_disk()",
        end: "drop function full_disk() cascade",
    },
    State {
        name: "25006, read-only",
        begin: "alter role {role} set default_transaction_read_only = on",
        end: "alter role {role} reset default_transaction_read_only",
    },
    State {
        name: "53300, too many connections",
        begin: "alter role {role} connection limit 0",
        end: "alter role {role} connection limit -1",
    },
    State {
        name: "28000, no login",
        begin: "alter role {role} nologin",
        end: "alter role {role} login",
    },
    State {
        name: "28P01, another password",
        begin: "alter role {role} password 'rotated'",
        end: "alter role {role} password 'test'",
    },
    State {
        name: "42501, a right taken away",
        begin: "revoke update on embedding_queue from {role}; revoke insert on transcript_chunks from {role}",
        end: "grant update on embedding_queue to {role}; grant insert on transcript_chunks to {role}",
    },
];

/// Sent by itself: as long as what keeps the role out is not committed, it may come in again.
const TERMINATE: &str = "select pg_terminate_backend(pid) from pg_stat_activity
    where usename = '{role}'";
const GRANT: &str = "grant all on all tables in schema public to {role};
    grant all on all sequences in schema public to {role}";

/// A scene whose program has a role that is no superuser: those are above every limit.
async fn scene_of_role() -> (Scene, impl Fn(&str) -> String) {
    let mut scene = Scene::new().await;
    let url = scene.database.url_of_role("nosuperuser").await;
    let role = url::Url::parse(&url).unwrap().username().to_owned();
    let named = move |text: &str| text.replace("{role}", &role);
    scene.database.execute(&named(GRANT)).await;
    scene.store = FaultyStore::new(PgStore::connect(&url, 12).await.unwrap());
    (scene, named)
}

async fn pauses_and_goes_on(state: &State) {
    let (scene, named) = scene_of_role().await;
    scene.database.import(&[call(1, 9), call(2, 9)]).await;
    scene.fake.hold();
    let tree = scene.serve().await;
    scene.fake.wait_for_requests(2).await;
    scene.database.execute(&named(state.begin)).await;
    scene.database.execute(&named(TERMINATE)).await;
    scene.store.wait_until_unavailable(1).await;
    scene.database.import(&[call(3, 3)]).await;
    scene.fake.release();
    scene.store.wait_until_unavailable(3).await;
    assert_eq!(scene.attempts(3).await, [""; 0], "{}: it is claimed", state.name);
    for recording_id in [1, 2] {
        assert_eq!(scene.attempts(recording_id).await, ["running"], "{}", state.name);
    }
    if state.name.starts_with("42501") {
        let told = "select count(*) = 1 from workers where database_trouble like '%permission denied for table%'";
        scene.database.wait_until(told).await;
    }
    scene.database.execute(&named(state.end)).await;
    scene.database.execute(&named(TERMINATE)).await;
    scene.database.wait_until_settled(&tree).await;
    for recording_id in [1, 2, 3] {
        assert_eq!(scene.attempts(recording_id).await, ["completed"], "{}", state.name);
    }
    assert_eq!(scene.bought_once(), 9 + 9 + 3, "{}", state.name);
    scene.end(tree).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_full_read_only_or_crowded_or_refuses_the_login_or_a_right_stops_the_claims_and_counts_nothing()
 {
    for state in &STATES {
        println!("{}", state.name);
        pauses_and_goes_on(state).await;
    }
}

/// Every fifth statement of the program on these tables collides with another.
const COLLISIONS: &str = "create sequence statements;
    create function collide() returns trigger language plpgsql security definer as $$ begin
        if nextval('statements') % 5 = 0 then
            raise 'collided' using errcode = '{code}';
        end if;
        return null;
    end $$;
    create trigger collide before insert on transcript_chunks
        for each statement execute function collide();
    create trigger collide before insert or update on chunk_sets
        for each statement execute function collide()";

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_collide_are_sent_again_at_once_and_cost_no_attempt() {
    for code in ["40001", "40P01"] {
        let scene = Scene::new().await;
        scene.database.execute(&COLLISIONS.replace("{code}", code)).await;
        scene.database.import(&[call(1, 9), call(2, 9)]).await;
        let tree = scene.serve().await;
        scene.database.wait_until_settled(&tree).await;
        let statements: i64 = scene.database.value("select last_value from statements").await;
        assert!(statements > 5, "hardly a statement collided: {statements}");
        for recording_id in [1, 2] {
            assert_eq!(scene.attempts(recording_id).await, ["completed"], "{code}");
        }
        assert_eq!(scene.bought_once(), 18, "{code}");
        scene.end(tree).await;
    }
}
