//! `pauses`: of a part that stands here nothing is begun, by any process.

use super::admin_actions::{self, Action};
use super::connection::Session;
use crate::domain::part::Part;
use crate::ports::operator::Refusal;

/// Refuses what would be begun in vain.
pub(super) async fn refuse_if_paused(connection: &mut Session, part: Part) -> Result<(), Refusal> {
    let pause = sqlx::query!(r#"select since, "by" from pauses where part = $1"#, part.as_str())
        .fetch_optional(connection)
        .await?;
    match pause {
        Some(pause) => Err(Refusal::Paused { part, since: pause.since, by: pause.by }),
        None => Ok(()),
    }
}

/// Pauses a part. One that is paused stays so since when it was.
pub(super) async fn pause(
    connection: &mut Session,
    part: Part,
    by: &str,
    action: &Action<'_>,
) -> Result<(), Refusal> {
    let paused = sqlx::query!(
        r#"insert into pauses (part, "by") values ($1, $2) on conflict do nothing"#,
        part.as_str(),
        by
    )
    .execute(&mut *connection)
    .await?;
    let outcome = if paused.rows_affected() > 0 { "paused" } else { "was paused already" };
    let id = admin_actions::begin(&mut *connection, action, 0).await?;
    Ok(admin_actions::end(connection, id, outcome).await?)
}

/// Lets a part go on.
pub(super) async fn resume(
    connection: &mut Session,
    part: Part,
    action: &Action<'_>,
) -> Result<(), Refusal> {
    let resumed = sqlx::query!("delete from pauses where part = $1", part.as_str())
        .execute(&mut *connection)
        .await?;
    let outcome = if resumed.rows_affected() > 0 { "resumed" } else { "was not paused" };
    let id = admin_actions::begin(&mut *connection, action, 0).await?;
    Ok(admin_actions::end(connection, id, outcome).await?)
}
