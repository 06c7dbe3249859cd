//! What a service refuses, and what is no service.

use super::{ADMIN_TOKEN, READ_TOKEN, Scene, remote, two_dead_letters};
use crate::fakes::openai::FakeOpenAi;
use crate::harness::program::run;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_an_unknown_recording_and_one_at_work_are_refused_with_the_way_out() {
    let scene = Scene::new().await;
    let with = async |token: &str, args: &[&str]| run(&mut remote(&scene.url, token, args)).await;
    for args in [&["pause"][..], &["jobs"]] {
        let refused = Scene::told(with("a-token-of-somebody-else", args).await, 1);
        assert!(refused.contains("needs a token"), "{refused}");
        assert!(refused.contains("--admin-token-file"), "{refused}");
        assert!(!refused.contains("somebody-else"), "{refused}");
    }
    let refused = Scene::told(with("", &["jobs"]).await, 1);
    assert!(refused.contains("needs a token"), "{refused}");
    assert_eq!(with(READ_TOKEN, &["jobs"]).await.code, Some(0));
    let looks = with(READ_TOKEN, &["pause"]).await;
    assert!(Scene::told(looks, 1).contains("takes this token to look only"));
    let unknown = Scene::told(scene.ask(&["recover", "77", "--force"]).await, 1);
    assert!(unknown.contains("no recording 77 is stored"), "{unknown}");
    scene.fake.hold();
    let asked = Scene::told(scene.ask(&["recover", "1", "--force"]).await, 0);
    assert!(asked.ends_with("follow it with `embedding-recovery explain 1`\n"), "{asked}");
    let processing = "select status = 'processing' from embedding_queue where recording_id = 1";
    scene.database.wait_until(processing).await;
    let busy = Scene::told(scene.ask(&["recover", "1", "--force"]).await, 1);
    assert!(busy.contains("is being processed; its lease ends at 20"), "{busy}");
    scene.fake.release();
    let done = "select status = 'completed' from embedding_queue where recording_id = 1";
    scene.database.wait_until(done).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_database_is_away_says_so_and_monitor_is_critical() {
    let (database, fake) = two_dead_letters().await;
    let url = database.url_of_role("login").await;
    let scene = Scene::over(database, fake, &url).await;
    let role = url::Url::parse(&url).unwrap().username().to_owned();
    // By itself: as long as it is not committed, who is thrown out may come in again.
    scene.database.execute(&format!("alter role {role} nologin")).await;
    let throw_out =
        format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'");
    scene.database.execute(&throw_out).await;
    let away = Scene::told(scene.ask(&["recover", "1", "--force"]).await, 1);
    assert!(away.contains("the database is unavailable"), "{away}");
    let away = Scene::told(scene.ask(&["monitor"]).await, 2);
    assert!(away.contains("the database is unavailable"), "{away}");
    scene.database.execute(&format!("alter role {role} login")).await;
    let one = Scene::told(scene.ask(&["recover", "1", "--force", "--wait"]).await, 0);
    assert!(one.ends_with("done: completed\n"), "{one}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_where_no_service_is_names_itself_and_the_way_out() {
    let nobody = run(&mut remote("http://127.0.0.1:1/", ADMIN_TOKEN, &["jobs"])).await;
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    for told in ["no service answers at http://127.0.0.1:1/", "refused", "embedding-recovery serve"]
    {
        assert!(nobody.stderr.contains(told), "{told}: {nobody:?}");
    }
    let nobody = run(&mut remote("http://127.0.0.1:1/", ADMIN_TOKEN, &["monitor"])).await;
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    // Something else answers there.
    let fake = FakeOpenAi::start(8);
    for args in [&["recover", "1"][..], &["jobs"]] {
        let other = run(&mut remote(fake.base_url(), ADMIN_TOKEN, args)).await;
        assert_eq!(other.code, Some(1), "{other:?}");
        assert!(other.stderr.contains("is not the service (40"), "{other:?}");
        assert!(other.stderr.contains("give --admin-url the address"), "{other:?}");
    }
    let wrong = run(&mut remote("localhost:8080", ADMIN_TOKEN, &["jobs"])).await;
    assert_eq!(wrong.code, Some(64), "{wrong:?}");
    assert!(wrong.stderr.contains("expected http://HOST:PORT"), "{wrong:?}");
}
