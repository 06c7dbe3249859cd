//! The HTTP API and the page over it: what an operator sees and does, over the ports. Handlers
//! hold no rule of their own; `look` reads, `act` acts, `access` stands before both.

mod access;
mod act;
mod connections;
mod extract;
mod health;
mod live;
mod look;
mod page;
mod probes;
mod problem;
mod token;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use probes::{Exposition, serve_probes};
pub use token::{Scope, Tokens};

use crate::domain::health::Thresholds;
use crate::ports::inspector::Inspector;
use crate::ports::operator::Operator;
use live::Live;
use problem::Problem;

/// Bytes of a request's body at most: the largest that can be meant has two names in it.
const BODY_BYTES_MAX: usize = 16 * 1024;

/// What the API stands on.
pub struct Admin {
    /// Acts.
    pub operator: Arc<dyn Operator>,
    /// Reads.
    pub inspector: Arc<dyn Inspector>,
    /// Who may; where there are none, the listener must be on a loopback address.
    pub tokens: Tokens,
    /// What counts as unwell.
    pub thresholds: Thresholds,
    /// Between two looks for the open pages.
    pub look_every: Duration,
    /// Address of a trace, with `{trace_id}` where the id belongs: http or https.
    pub trace_url_template: Option<String>,
}

/// What handlers share.
type Shared = Arc<Parts>;

struct Parts {
    operator: Arc<dyn Operator>,
    inspector: Arc<dyn Inspector>,
    tokens: Tokens,
    thresholds: Thresholds,
    live: Live,
    trace_url_template: Option<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Embedding Recovery",
        description = "Look at the queue, recover dead letters, pause and resume. Errors are \
                       RFC 9457 problems. Where tokens are set, each request carries one: \
                       `Authorization: Bearer TOKEN`.",
        license(identifier = "Apache-2.0")
    ),
    tags((name = "look", description = "Any token"), (name = "act", description = "A token that may act")),
    modifiers(&Bearer)
)]
struct Document;

/// Says in the document that each operation takes a token.
struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{
            Http, HttpAuthScheme, SecurityRequirement, SecurityScheme,
        };
        let components = openapi.components.get_or_insert_default();
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("bearer", scheme);
        openapi.security = Some(vec![SecurityRequirement::new::<_, _, &str>("bearer", [])]);
    }
}

/// Serves the API and the page until `stop` says true and the requests that are under way are
/// answered.
///
/// # Errors
/// Without tokens, a listener that others can reach ([`io::ErrorKind::PermissionDenied`]).
pub async fn serve(
    listener: TcpListener,
    admin: Admin,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    if admin.tokens.is_empty() && !listener.local_addr()?.ip().is_loopback() {
        let reason = "without tokens the API listens on a loopback address only";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    let Admin { operator, inspector, tokens, thresholds, look_every, trace_url_template } = admin;
    let live = Live::new(stop.clone());
    let shared =
        Arc::new(Parts { operator, inspector, tokens, thresholds, live, trace_url_template });
    let server = connections::serve(listener, router(shared.clone()), stop);
    tokio::select! {
        served = server => served,
        never = shared.live.look(shared.inspector.as_ref(), &shared.thresholds, look_every) => match never {},
    }
}

/// Waits for the word, or for the end of those who could give it.
async fn until(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn router(shared: Shared) -> Router {
    let (api, document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(look::queue))
        .routes(routes!(look::health))
        .routes(routes!(look::dead_letters))
        .routes(routes!(look::recording))
        .routes(routes!(look::jobs))
        .routes(routes!(look::runs))
        .routes(routes!(look::history))
        .routes(routes!(look::action))
        .routes(routes!(live::watch))
        .routes(routes!(act::recover))
        .routes(routes!(act::recover_many))
        .routes(routes!(act::discard))
        .routes(routes!(act::run_recovery))
        .routes(routes!(act::run_main))
        .routes(routes!(act::pause))
        .routes(routes!(act::resume))
        .split_for_parts();
    let api = api.route_layer(from_fn_with_state(shared.clone(), access::let_in));
    Router::new()
        .merge(api)
        .merge(page::router())
        .route("/openapi.json", get(async move || Json(document)))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "not-found", "no such path"))
        .method_not_allowed_fallback(async || {
            let detail = "this path takes another method; /openapi.json has all of them";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(shared.clone(), access::stay_local))
        .layer(from_fn(page::guard))
        .with_state(shared)
}
