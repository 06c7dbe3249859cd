//! Adapters that turn texts into vectors.

mod limiter;
pub mod local;
pub mod openai;
pub mod paced;
