//! The whole tree over a real database and a provider that does as it is told.

mod crashes;
mod database_faults;
mod database_states;
mod edits;
mod finding_work;
mod inserts;
mod leases;
mod operating;
mod own_faults;
mod panics;
mod provider_faults;
mod pulse;
mod recovery;
mod request_sizes;
pub mod scene;
mod shutdown;
mod watched;
mod workers;

use scene::Scene;

use crate::harness::calls::call;

#[tokio::test(flavor = "multi_thread")]
async fn imported_calls_are_embedded_once_and_searchable() {
    let scene = Scene::new().await;
    scene.database.import(&[call(1, 3), call(2, 40)]).await;
    let tree = scene.serve().await;
    let counts = scene.database.wait_until_settled(&tree).await;
    assert_eq!((counts.completed, counts.dead_letter), (2, 0));
    assert_eq!((scene.searchable(1).await, scene.searchable(2).await), (3, 40));
    assert_eq!(scene.bought_once(), 43);
    scene.end(tree).await;
}
