//! A look at the queue that finds nothing is no news: every recording that ends brings one, and they
//! would be most of what is exported.

use std::time::Duration;

use opentelemetry::trace::Status;
use opentelemetry::{Context, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use super::spans;

/// Passes every span on but those of claims that took nothing.
#[derive(Debug)]
pub(super) struct WithoutIdleClaims<P>(pub(super) P);

impl<P: SpanProcessor> SpanProcessor for WithoutIdleClaims<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !is_idle_claim(&span) {
            self.0.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

fn is_idle_claim(span: &SpanData) -> bool {
    let took_nothing = || {
        span.attributes
            .iter()
            .any(|pair| pair.key.as_str() == spans::CLAIMED && pair.value == Value::I64(0))
    };
    span.name == spans::CLAIM && span.status == Status::Unset && took_nothing()
}
