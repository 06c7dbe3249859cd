//! What stands before every handler: who asks, from where, and how long it may take.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Shared;
use super::problem::Problem;
use super::token::Scope;

/// A request that takes longer is broken off: Postgres ends statements of its own sooner.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Lets a request pass to the API, or says why not.
pub(super) async fn let_in(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = shared.tokens.caller(request.headers()).ok_or_else(|| {
        let detail = "a bearer token is needed; this request has none, or a wrong one";
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    })?;
    if !is_read_only(request.method()) && caller.scope != Scope::Admin {
        let detail = "this token may only read; --admin-token-file sets one that may act";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
    }
    request.extensions_mut().insert(caller);
    let mut response =
        tokio::time::timeout(REQUEST_TIME, next.run(request)).await.map_err(|_| {
            Problem::unavailable(format!("no answer within {} s", REQUEST_TIME.as_secs()))
        })?;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Where no token is needed, a page of another site that is open in a browser on this machine could
/// act: by a form or a script of its own (its `Origin` tells), or by a name that it resolves to this
/// machine (the `Host` tells).
pub(super) async fn stay_local(
    State(shared): State<Shared>,
    request: Request,
    next: Next,
) -> Response {
    if shared.tokens.is_empty() {
        let read_only = is_read_only(request.method());
        if let Err(problem) = check_local(request.headers(), read_only) {
            return problem.into_response();
        }
    }
    next.run(request).await
}

fn check_local(headers: &HeaderMap, read_only: bool) -> Result<(), Problem> {
    let refused = |detail| Err(Problem::new(StatusCode::FORBIDDEN, "not-local", detail));
    if !header(headers, HOST).is_some_and(is_loopback) {
        return refused(
            "without tokens only localhost is served; set --admin-token-file to be reached by \
             another name",
        );
    }
    if read_only || !headers.contains_key(ORIGIN) {
        return Ok(());
    }
    // The same host and port: another program's page on this machine is another origin.
    let host = header(headers, HOST);
    let origin = header(headers, ORIGIN).and_then(|origin| origin.strip_prefix("http://"));
    match origin == host {
        true => Ok(()),
        false => refused("this request comes from a page of another site"),
    }
}

fn header(headers: &HeaderMap, name: axum::http::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Whether `host[:port]` names this machine whatever a name server says.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_read_only(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for local in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080"] {
            assert!(is_loopback(local), "{local}");
        }
        for foreign in [
            "",
            "evil.example",
            "localhost.evil.example:8080",
            "127.0.0.1.evil.example",
            "10.0.0.1",
        ] {
            assert!(!is_loopback(foreign), "{foreign}");
        }
    }

    #[test]
    fn a_page_of_another_origin_may_not_act() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost:8080"));
        assert!(check_local(&headers, false).is_ok(), "no browser");
        headers.insert(ORIGIN, HeaderValue::from_static("http://localhost:8080"));
        assert!(check_local(&headers, false).is_ok(), "its own page");
        for origin in ["http://evil.example", "http://localhost:3000", "https://x", "null"] {
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            assert!(check_local(&headers, false).is_err(), "{origin}");
            assert!(check_local(&headers, true).is_ok(), "a browser keeps what {origin} reads");
        }
    }
}
