//! Stand-ins for what lies outside the process.

pub mod embedder;
pub mod openai;
pub mod operations;
pub mod store;
