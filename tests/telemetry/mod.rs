//! What the service tells of itself, where a collector listens.

mod arrived;
mod collectors;
mod discretion;
mod dropped;
mod identity;
mod measured;
mod metrics;
mod received;
mod trees;

use tokio::process::Command;

use crate::fakes::openai::FakeOpenAi;
use crate::harness::TestDatabase;

/// `serve` over a test's database and the fake API, which exports to `endpoint` with short waits.
fn serve(database: &TestDatabase, fake: &FakeOpenAi, endpoint: &str, more: &[&str]) -> Command {
    let mut command = database.program(&["serve", "--retry-delays", "50ms,50ms,50ms"]);
    command
        .args(more)
        .env("OPENAI_BASE_URL", fake.base_url())
        .env("OPENAI_API_KEY", "sk-test-key")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_BSP_SCHEDULE_DELAY", "100")
        .env("OTEL_BLRP_SCHEDULE_DELAY", "100");
    command
}
