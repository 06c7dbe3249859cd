//! What a cluster asks of a process, without a token and again and again.

use async_trait::async_trait;

/// How a process is. Each answer is bounded in time by whoever asks.
#[async_trait]
pub trait Vitals: Send + Sync + 'static {
    /// Fails, with the reason, only where nothing but a restart would help.
    async fn alive(&self) -> Result<(), String>;

    /// Fails, with the reason, while it cannot work: before it has started, without its database, and
    /// once it was told to stop.
    async fn ready(&self) -> Result<(), String>;
}
