//! The one integration binary.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod admin;
mod architecture;
mod chaos;
mod chunking;
mod embedded;
mod fakes;
mod harness;
mod importing;
mod observability;
mod openai_embedder;
mod packing;
mod pipeline;
mod program;
mod readme;
mod store;
mod telemetry;
mod transactions;
