//! The page: files that are built into the program, served with a policy under which nothing from
//! elsewhere runs or loads. They hold no data, so they need no token; the page asks for one.

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::get;

use super::Shared;

/// Path, type and content of each file. uPlot is as npm has it; its licence lies beside it.
const FILES: [(&str, &str, &str); 10] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ("/page/charts.js", "text/javascript; charset=utf-8", include_str!("page/charts.js")),
    ("/page/explain.js", "text/javascript; charset=utf-8", include_str!("page/explain.js")),
    ("/page/pages.js", "text/javascript; charset=utf-8", include_str!("page/pages.js")),
    ("/page/views.js", "text/javascript; charset=utf-8", include_str!("page/views.js")),
    ("/page/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    (
        "/page/uplot.js",
        "text/javascript; charset=utf-8",
        include_str!("page/uplot/uPlot.iife.min.js"),
    ),
    ("/page/uplot.css", "text/css; charset=utf-8", include_str!("page/uplot/uPlot.min.css")),
];

/// Scripts, styles and requests of this origin only; in no frame; no form is sent anywhere.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

pub(super) fn router() -> Router<Shared> {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, text)| {
        let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache")];
        router.route(path, get(async move || (headers, text)))
    })
}

/// Puts on every answer what tells a browser to be strict.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
