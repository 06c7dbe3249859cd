//! The API and the probes beside a running service. Embedding matters more than being looked at:
//! where an address is taken, that is told, and the service runs without.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::{self, Admin, Exposition, Scope, Tokens};
use crate::config::{AdminArgs, AdminTokens};
use crate::domain::health::Thresholds;
use crate::ports::Vitals;
use crate::ports::inspector::Inspector;
use crate::ports::operator::Operator;
use crate::telemetry::metrics;

/// Between two looks for the open pages.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Time for requests under way to be answered when the service ends.
const STOP_TIME: Duration = Duration::from_secs(2);

/// Listeners of a service; call [`AdminServer::stop`] at its end.
pub struct AdminServer {
    tasks: JoinSet<std::io::Result<()>>,
    stop: watch::Sender<bool>,
}

impl AdminServer {
    /// Listens for probes, where that is possible.
    pub async fn probes(args: &AdminArgs, vitals: Arc<dyn Vitals>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        if let Some(listener) = listen(args.probe_listen, "--probe-listen").await {
            let address = listener.local_addr().unwrap_or(args.probe_listen);
            tracing::info!("probes and metrics are at http://{address}/metrics");
            let exposition =
                Exposition { write: metrics::exposition, content_type: metrics::EXPOSITION_TYPE };
            tasks.spawn(admin::serve_probes(listener, vitals, exposition, stopped));
        }
        Self { tasks, stop }
    }

    /// Listens for the API and its page, where that is possible.
    pub async fn start(
        args: &AdminArgs,
        tokens: &AdminTokens,
        thresholds: Thresholds,
        operator: Arc<dyn Operator>,
        inspector: Arc<dyn Inspector>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        if let Some(listener) = listen(args.listen, "--listen").await {
            let tokens = allowed(tokens);
            let open = if tokens.is_empty() {
                "; no token is set, so only this machine may use it"
            } else {
                ""
            };
            let address = listener.local_addr().unwrap_or(args.listen);
            tracing::info!("the page is at http://{address}/{open}");
            let admin = Admin {
                operator,
                inspector,
                tokens,
                thresholds,
                look_every: LOOK_EVERY,
                trace_url_template: args.traces.trace_url_template.clone(),
            };
            tasks.spawn(admin::serve(listener, admin, stopped));
        }
        Self { tasks, stop }
    }

    /// Ends every open page, and answers what was asked.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // What does not end by then is dropped with the set.
        let _ = tokio::time::timeout(STOP_TIME, ended).await;
    }
}

fn allowed(tokens: &AdminTokens) -> Tokens {
    let mut allowed = Tokens::default();
    for (scope, named) in [(Scope::Admin, &tokens.admin), (Scope::Read, &tokens.read)] {
        for token in named {
            allowed.add(&token.name, scope, &token.token);
        }
    }
    allowed
}

async fn listen(address: SocketAddr, setting: &str) -> Option<TcpListener> {
    match TcpListener::bind(address).await {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(
                "nothing listens on {address}: {error}; {setting} gives another address"
            );
            None
        }
    }
}
