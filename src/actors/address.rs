//! Where a permanent actor is reached across its restarts.

use ractor::{ActorRef, Message, RpcReplyPort};
use tokio::sync::watch;

/// The current reference of an actor that is restarted when it fails.
pub(super) struct Address<M: Message>(watch::Receiver<Option<ActorRef<M>>>);

/// The side that the supervisor holds.
pub(super) struct Directory<M: Message>(watch::Sender<Option<ActorRef<M>>>);

impl<M: Message> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Message> Directory<M> {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(super) fn address(&self) -> Address<M> {
        Address(self.0.subscribe())
    }

    /// Publishes a new incarnation.
    pub(super) fn publish(&self, actor: ActorRef<M>) {
        self.0.send_replace(Some(actor));
    }
}

impl<M: Message> Address<M> {
    /// Sends to whoever lives there now. A message to nobody is dropped: every sender here repeats
    /// itself, or the new incarnation begins by looking for itself.
    pub(super) fn cast(&self, message: M) {
        let current = self.0.borrow().clone();
        if let Some(actor) = current {
            let _ = actor.cast(message);
        }
    }

    /// Asks, and asks the next incarnation again where one dies over the question. `message` is
    /// built anew for each, so what it asks for must be idempotent.
    pub(super) async fn ask<R: Send + 'static>(
        &self,
        mut message: impl FnMut(RpcReplyPort<R>) -> M,
    ) -> R {
        let mut incarnations = self.0.clone();
        loop {
            let actor = incarnations.borrow_and_update().clone();
            if let Some(actor) = actor
                && let Ok(ractor::rpc::CallResult::Success(reply)) =
                    actor.call(&mut message, None).await
            {
                return reply;
            }
            // The supervisor is gone where nothing can change any more: it kills this actor too.
            if incarnations.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
